"""Pages of a list taken over as they are: the same list as from all of their chunks, and little is read."""

import random
from collections.abc import Sequence

import pytest

from dedupstore.errors import ObjectDamaged
from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import PageStore
from dedupstore.tree.build import ContentBuilder
from dedupstore.tree.listpages import PageOfList, entries_in_page, list_pages_of
from dedupstore.tree.walk import labelled_of
from tests.unit.tree.test_labels import Row, build, chunk

ROWS: list[Row] = [(chunk(number), 1 + number % 7, b"%06d" % number) for number in range(20_000)]


def patched(store: PageStore, parts: Sequence[PageOfList | Row]) -> Node:
    """A list of pages, taken over, and rows."""
    builder = ContentBuilder(store.save)
    for part in parts:
        if isinstance(part, PageOfList):
            builder.append_page(
                part.id, part.size, part.label, lambda part=part: entries_in_page(store.load_list, part)
            )
        else:
            builder.append(*part)
    content, depth = builder.finish()
    return Node(b"list", NodeKind.STREAM, content=content, depth=depth, size=builder.size)


@pytest.mark.parametrize("count", [2, 65, 1000, 4097, 20_000])
def test_all_pages_are_the_list(count: int) -> None:
    store = PageStore()
    node = build(store, ROWS[:count])
    pages = list(list_pages_of(store.load_list, node))
    assert bool(pages) == (node.depth > 1)
    if pages:
        again = patched(store, pages)
        assert (again.content, again.depth, again.size) == (node.content, node.depth, node.size)
        rows = [row for page in pages for row in entries_in_page(store.load_list, page)]
        assert rows == ROWS[:count]


@pytest.mark.parametrize("seed", range(30))
def test_pages_and_changed_rows_are_what_all_rows_give(seed: int) -> None:
    chance = random.Random(seed)
    store = PageStore()
    pages = list(list_pages_of(store.load_list, build(store, ROWS)))
    parts: list[PageOfList | Row] = []
    rows: list[Row] = []
    for page in pages:
        found = entries_in_page(store.load_list, page)
        if chance.random() < 0.7:
            parts.append(page)
        else:
            for _ in range(chance.choice([0, 1, 1, 40])):
                place = chance.randrange(len(found))
                what = chance.choice(["other", "gone", "more"])
                fresh = chunk(chance.randrange(1 << 40)), 5, found[place][2]
                found[place : place + (what != "more")] = [] if what == "gone" else [fresh]
                found = found or [fresh]
            parts += found
        rows += found
    wanted, again = build(store, rows), patched(store, parts)
    assert (again.content, again.depth, again.size) == (wanted.content, wanted.depth, wanted.size)
    assert list(labelled_of(store.load_list, again)) == rows


def test_a_page_where_another_should_be_is_damage() -> None:
    store = PageStore()
    node = build(store, ROWS)
    first, second = list(list_pages_of(store.load_list, node))[:2]
    with pytest.raises(ObjectDamaged):
        entries_in_page(store.load_list, first._replace(id=second.id))
    with pytest.raises(ObjectDamaged):
        list(list_pages_of(store.load_list, Node(b"x", NodeKind.STREAM, content=first.id, depth=3, size=9)))
