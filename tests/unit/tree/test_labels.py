"""Labelled content lists: built, read in order, and found by label."""

import random
from bisect import bisect_left, bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import ObjectDamaged, UsageError
from dedupstore.format.chunklist import ListPage, encode_list_page, iter_refs, pack_entries, pack_refs
from dedupstore.format.constants import HOLE_MAX, LIST_ENTRY_SIZE, LIST_INLINE_MAX
from dedupstore.ids import HOLE, ChunkId
from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import PageStore
from dedupstore.tree.build import ContentBuilder
from dedupstore.tree.walk import entries_at, entries_of, labelled_from, labelled_of

Row = tuple[ChunkId, int, bytes]


def chunk(number: int) -> ChunkId:
    return ChunkId(random.Random(number).randbytes(32))


def build(store: PageStore, rows: list[Row]) -> Node:
    builder = ContentBuilder(store.save)
    for identifier, length, label in rows:
        builder.append(identifier, length, label)
    content, depth = builder.finish()
    return Node(b"f", NodeKind.STREAM, size=builder.size, content=content, depth=depth)


def rows_of(labels: list[bytes]) -> list[Row]:
    return [(chunk(number), 1 + number % 9, label) for number, label in enumerate(sorted(labels))]


def model_from(rows: list[Row], label: bytes) -> list[tuple[int, ChunkId, int, bytes]]:
    labels = [row[2] for row in rows]
    place = bisect_right(labels, label) - 1
    place = bisect_left(labels, labels[place]) if place >= 0 else 0
    start = sum(size for _, size, _ in rows[:place])
    found = []
    for identifier, size, own in rows[place:]:
        found.append((start, identifier, size, own))
        start += size
    return found


@pytest.mark.parametrize("count", [0, 1, 2, LIST_INLINE_MAX, 500, 120_000])
def test_what_was_built_is_read_back(count: int) -> None:
    store = PageStore()
    rows = rows_of([b"%06d" % number for number in range(count)])
    node = build(store, rows)
    assert (node.depth > 0) == (count > 1)
    assert len(node.content) == (32 if count > 1 else count * LIST_ENTRY_SIZE)
    plain = [(identifier, size) for identifier, size, _ in rows]
    assert list(entries_of(store.load_list, node)) == plain
    read = list(labelled_of(store.load_list, node))
    assert read == (rows if count > 1 else [(*entry, b"") for entry in plain])
    assert list(entries_at(store.load_list, node, 0, node.size))[-1:] == [
        (node.size - size, identifier, size) for identifier, size in plain[-1:]
    ]


LABELS = st.binary(min_size=1, max_size=2)


@given(st.lists(LABELS, min_size=2, max_size=600), st.lists(st.binary(max_size=3), min_size=1, max_size=6))
def test_finding_by_label_equals_a_naive_model(labels: list[bytes], wanted: list[bytes]) -> None:
    store = PageStore()
    rows = rows_of(labels)
    node = build(store, rows)
    for label in wanted:
        assert list(labelled_from(store.load_list, node, label)) == model_from(rows, label)


@pytest.mark.parametrize("seed", range(3))
def test_runs_of_equal_labels_may_reach_over_many_pages(seed: int) -> None:
    rng = random.Random(seed)
    labels: list[bytes] = []
    while len(labels) < 30_000:
        labels += [b"%05d" % (len(labels) * 2)] * rng.choice([1, 1, 1, 40, 9000])
    store = PageStore()
    rows = rows_of(labels)
    node = build(store, rows)
    for number in [0, 1, 2, *rng.sample(range(60_000), 30)]:
        label = b"%05d" % number
        found = labelled_from(store.load_list, node, label)
        model = model_from(rows, label)
        assert [next(found) for _ in model[:50]] == model[:50]
    assert list(labelled_from(store.load_list, node, b"\xff")) == model_from(rows, b"\xff")


def test_a_label_is_found_with_one_page_a_level() -> None:
    store = PageStore()
    rows = rows_of([b"%06d" % (2 * number) for number in range(100_000)])
    node = build(store, rows)
    assert node.depth == 2
    loads = []
    for number in range(0, 200_000, 997):
        store.loads.clear()
        assert next(labelled_from(store.load_list, node, b"%06d" % number))[3] == b"%06d" % (number // 2 * 2)
        loads.append(len(store.loads))
    assert set(loads) <= {2, 5}
    assert loads.count(5) <= 3  # where the label is one that a page begins with


def test_lists_without_labels_are_yielded_whole() -> None:
    store = PageStore()
    for count in (0, 1, 3, LIST_INLINE_MAX, 3000):
        rows = [(chunk(number), 7, b"") for number in range(count)]
        node = build(store, rows)
        assert list(labelled_of(store.load_list, node)) == rows
        assert list(labelled_from(store.load_list, node, b"any")) == [
            (7 * number, *row) for number, row in enumerate(rows)
        ]


def test_labels_do_not_move_page_ends() -> None:
    plain, labelled = PageStore(), PageStore()
    rows = rows_of([b"%06d" % number for number in range(20_000)])
    bare = build(plain, [(identifier, size, b"") for identifier, size, _ in rows])
    node = build(labelled, rows)

    def sizes(store: PageStore, top: Node) -> list[int]:
        page = store.load_list(top.content)  # type: ignore[arg-type]
        return [size for _, size in iter_refs(page.entries)]

    assert sizes(plain, bare) == sizes(labelled, node)


def test_one_relabelled_chunk_costs_a_page_a_level() -> None:
    store = PageStore()
    rows = rows_of([b"%06d" % number for number in range(50_000)])
    build(store, rows)
    before = set(store.pages)
    identifier, size, label = rows[20_000]
    build(store, [*rows[:20_000], (identifier, size, label + b"x"), *rows[20_001:]])
    assert len(set(store.pages) - before) == 2


@pytest.mark.parametrize(
    "labels", [(b"", b"a"), (b"a", b""), (b"b", b"a"), (b"a", b"b", b"a"), (b"\x80", b"\x7f")]
)
def test_labels_out_of_order_or_for_some_only_are_refused(labels: tuple[bytes, ...]) -> None:
    with pytest.raises(UsageError, match="labels ascend"):
        build(PageStore(), [(chunk(number), 1, label) for number, label in enumerate(labels)])


def test_chunks_of_no_length_and_holes() -> None:
    store = PageStore()
    rows = [(chunk(0), 0, b"a"), (chunk(1), 5, b"b"), (HOLE, HOLE_MAX + 1, b"c")]
    node = build(store, rows)
    assert list(labelled_of(store.load_list, node)) == [rows[1], (HOLE, HOLE_MAX, b"c"), (HOLE, 1, b"c")]
    assert node.size == HOLE_MAX + 6


@pytest.mark.parametrize("below", [(b"b",), ()])
@pytest.mark.parametrize("above", [(b"a",), ()])
def test_pages_that_do_not_fit_together_are_damage(
    above: tuple[bytes, ...], below: tuple[bytes, ...]
) -> None:
    store = PageStore()
    leaf = store.save(encode_list_page(ListPage(0, pack_entries([(chunk(1), 5)]), below)))
    top = store.save(encode_list_page(ListPage(1, pack_refs([(leaf, 5)]), above)))
    node = Node(b"f", NodeKind.STREAM, size=5, content=top, depth=2)
    if above == below:
        assert list(labelled_of(store.load_list, node)) == [(chunk(1), 5, b"")]
        return
    with pytest.raises(ObjectDamaged, match="wrong place"):
        list(labelled_of(store.load_list, node))
    with pytest.raises(ObjectDamaged, match="wrong place"):
        next(labelled_from(store.load_list, node, b"z"))


def test_a_list_that_repeats_itself_ends() -> None:
    store = PageStore()
    page = store.save(encode_list_page(ListPage(0, pack_entries([(chunk(1), 1)] * 1000), (b"a",) * 1000)))
    for level in range(1, 6):
        page = store.save(encode_list_page(ListPage(level, pack_refs([(page, 1)] * 1000), (b"a",) * 1000)))
    node = Node(b"f", NodeKind.STREAM, size=3, content=page, depth=6)
    assert len(list(labelled_of(store.load_list, node))) == 3000
    with pytest.raises(ObjectDamaged, match="wrong place"):
        list(labelled_from(store.load_list, node, b"a"))
