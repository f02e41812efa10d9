import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import UsageError
from dedupstore.format.chunklist import pack_entries
from dedupstore.format.constants import (
    HOLE_MAX,
    LIST_ENTRY_SIZE,
    LIST_INLINE_MAX,
    PAGE_MAX_BYTES,
    PAGE_MAX_ENTRIES,
    PAGE_MIN_ENTRIES,
)
from dedupstore.ids import HOLE, ChunkId
from dedupstore.model import Node, NodeKind, Summary
from dedupstore.testing.pages import SPLITTER, PageStore, SmallSplitter
from dedupstore.tree.build import ContentBuilder, FolderBuilder
from dedupstore.tree.walk import entries_at, entries_of, nodes_of

NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)


def file_node(name: bytes, size: int = 1, mtime: int = 0) -> Node:
    return Node(name, NodeKind.FILE, mode=0o644, mtime=mtime, size=size)


def many(count: int) -> list[Node]:
    return [file_node(b"%08d" % n, size=n, mtime=n) for n in range(count)]


@given(st.sets(NAMES, max_size=80), st.booleans())
def test_what_was_built_is_read_back(names: set[bytes], small: bool) -> None:
    store = PageStore(SmallSplitter(bytes(32))) if small else PageStore()
    nodes = [file_node(name, size=len(name), mtime=name[0]) for name in sorted(names)]
    top = store.folder(nodes)
    assert list(nodes_of(store.load, top)) == nodes
    assert store.load(top).summary == Summary(
        len(nodes), sum(node.size for node in nodes), max((node.mtime for node in nodes), default=0)
    )


@given(st.sets(NAMES, min_size=1, max_size=80), st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_history(names: set[bytes], rng: random.Random) -> None:
    shared, fresh = PageStore(SmallSplitter(bytes(32))), PageStore(SmallSplitter(bytes(32)))
    order = sorted(names)
    rng.shuffle(order)
    for end in range(len(order)):
        shared.folder([file_node(name) for name in order[:end]])
    nodes = [file_node(name) for name in order]
    assert shared.folder(nodes) == fresh.folder(nodes)


def test_an_empty_folder_is_one_empty_leaf() -> None:
    store = PageStore()
    builder = FolderBuilder(store.save, SPLITTER)
    top, summary = builder.finish()
    assert summary == Summary()
    assert store.load(top).level == 0
    assert list(nodes_of(store.load, top)) == []
    assert len(store.pages) == 1


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a"), (b"",)])
def test_disorder_is_refused(names: tuple[bytes, ...]) -> None:
    builder = FolderBuilder(PageStore().save, SPLITTER)
    with pytest.raises(UsageError, match="name order"):
        builder.add_all(file_node(name) for name in names)


def test_pages_keep_their_bounds_and_fit_together() -> None:
    store = PageStore()
    nodes = many(50_000)
    page = store.load(store.folder(nodes))
    assert page.level == 1
    assert page.summary == Summary(50_000, sum(range(50_000)), 49_999)
    for ref, following in pairwise(page.refs):
        leaf = store.load(ref.id)
        assert PAGE_MIN_ENTRIES <= len(leaf.nodes) <= PAGE_MAX_ENTRIES
        assert ref.entries == len(leaf.nodes)
        assert ref.summary == leaf.summary
        assert ref.first == leaf.nodes[0].name
        assert leaf.nodes[-1].name < following.first
    assert sum(ref.entries for ref in page.refs) == 50_000


@pytest.mark.parametrize("place", [0, 1, 777, 25_000, 49_998, 49_999])
def test_one_change_among_many_costs_a_handful_of_pages(place: int) -> None:
    store = PageStore()
    nodes = many(50_000)
    store.folder(nodes)
    before = set(store.pages)
    store.folder([*nodes[:place], file_node(b"%08d" % place, size=9), *nodes[place + 1 :]])
    changed = set(store.pages) - before
    assert len(changed) == 2  # the leaf and the page above it

    store.folder(nodes[:place] + nodes[place + 1 :])
    removed = set(store.pages) - before - changed
    assert len(removed) <= 6

    before = set(store.pages)
    store.folder([*nodes[:place], nodes[place], file_node(b"%08d+" % place), *nodes[place + 1 :]])
    assert len(set(store.pages) - before) <= 6


def test_at_most_one_open_page_a_level() -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    open_most = 0
    builder = FolderBuilder(store.save, store.splitter)
    for node in many(20_000):
        builder.add(node)
        open_most = max(open_most, sum(len(page.nodes) + len(page.refs) for page in builder._levels))
    builder.finish()
    assert open_most <= 6 * len(builder._levels)


def test_fat_entries_end_a_page_early() -> None:
    store = PageStore()
    fat = [Node(b"%04d" % n, NodeKind.FILE, xattrs=((b"user.blob", bytes(65_536)),)) for n in range(200)]
    top = store.folder(fat)
    assert store.load(top).level == 1
    assert max(map(len, store.pages.values())) < PAGE_MAX_BYTES + 2 * 65_536
    assert list(nodes_of(store.load, top)) == fat


def test_a_page_that_ends_with_the_last_entry_gets_no_page_above() -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    names = [b"%d" % n for n in range(9)]
    for end in range(1, len(names) + 1):
        top = store.load(store.folder([file_node(name) for name in names[:end]]))
        assert top.level == 0 or len(top.refs) > 1


def test_summaries_add_up_over_folders() -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    inner = {b"%d" % n: file_node(b"%d" % n, size=10, mtime=n) for n in range(9)}
    root = store.tree({b"a": inner, b"b": {b"c": inner}, b"z": file_node(b"z", size=1, mtime=3)})
    assert store.load(root).summary == Summary(19, 181, 8)


# Content lists


def chunk(number: int) -> ChunkId:
    return ChunkId(random.Random(number).randbytes(32))


def build_content(store: PageStore, entries: list[tuple[ChunkId, int]]) -> Node:
    builder = ContentBuilder(store.save)
    for identifier, length in entries:
        builder.append(identifier, length)
    content, depth = builder.finish()
    return Node(b"f", NodeKind.FILE, size=builder.size, content=content, depth=depth)


@pytest.mark.parametrize("count", [0, 1, LIST_INLINE_MAX - 1, LIST_INLINE_MAX])
def test_short_lists_stay_in_the_node(count: int) -> None:
    store = PageStore()
    entries = [(chunk(n), n + 1) for n in range(count)]
    node = build_content(store, entries)
    assert (node.depth, len(node.content), store.pages) == (0, count * LIST_ENTRY_SIZE, {})
    assert list(entries_of(store.load_list, node)) == entries


@pytest.mark.parametrize("count", [LIST_INLINE_MAX + 1, 500, 5_000, 120_000])
def test_long_lists_go_to_pages(count: int) -> None:
    store = PageStore()
    entries = [(chunk(n), 262_144) for n in range(count)]
    node = build_content(store, entries)
    assert node.depth >= 1
    assert len(node.content) == 32
    assert node.size == count * 262_144
    assert list(entries_of(store.load_list, node)) == entries


def test_any_range_is_found_with_few_loads() -> None:
    store = PageStore()
    entries = [(chunk(n), 1000 + n % 7) for n in range(100_000)]
    node = build_content(store, entries)
    assert node.depth == 2
    starts = [0]
    for _, length in entries:
        starts.append(starts[-1] + length)
    for place in (0, 1, 63, 64, 50_000, 99_999):
        store.loads.clear()
        found = list(entries_at(store.load_list, node, starts[place] + 5, 1))
        assert found == [(starts[place], *entries[place])]
        assert len(store.loads) == node.depth
    assert list(entries_at(store.load_list, node, node.size, 10)) == []
    assert list(entries_at(store.load_list, node, 0, 0)) == []


@given(
    st.lists(st.integers(1, 50), max_size=400),
    st.integers(0, 12_000),
    st.integers(0, 3_000),
)
def test_ranges_equal_a_naive_model(lengths: list[int], offset: int, size: int) -> None:
    store = PageStore()
    entries = [(chunk(n), length) for n, length in enumerate(lengths)]
    node = build_content(store, entries)
    model, start = [], 0
    for identifier, length in entries:
        if start + length > offset and start < offset + size:
            model.append((start, identifier, length))
        start += length
    assert list(entries_at(store.load_list, node, offset, size)) == model


def test_one_new_chunk_in_a_long_list_costs_few_pages() -> None:
    store = PageStore()
    entries = [(chunk(n), 1000) for n in range(50_000)]
    build_content(store, entries)
    before = set(store.pages)
    build_content(store, [*entries[:20_000], (chunk(-1), 77), *entries[20_000:]])
    assert len(set(store.pages) - before) <= 4


def test_long_holes_take_several_entries() -> None:
    store = PageStore()
    node = build_content(store, [(HOLE, 5 * HOLE_MAX + 3), (chunk(1), 9), (HOLE, 0)])
    assert node.size == 5 * HOLE_MAX + 12
    assert list(entries_of(store.load_list, node)) == [
        *[(HOLE, HOLE_MAX)] * 5,
        (HOLE, 3),
        (chunk(1), 9),
    ]


def test_a_list_of_holes_only_ends() -> None:
    store = PageStore()
    node = build_content(store, [(HOLE, 1)] * 9_000)
    assert sum(length for _, length in entries_of(store.load_list, node)) == 9_000


def appended(entries: list[tuple[ChunkId, int]], labels: list[bytes]) -> tuple[object, ...]:
    store = PageStore()
    builder = ContentBuilder(store.save)
    for number, (chunk, size) in enumerate(entries):
        builder.append(chunk, size, labels[number] if labels else b"")
    return builder.finish(), builder.size, store.pages


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 130, 4096, 4200, 9000])
@pytest.mark.parametrize("seed", range(4))
def test_many_chunks_at_once_are_as_one_by_one(count: int, seed: int, labelled: bool) -> None:
    rng = random.Random(seed)
    # Few, some or many ids with a low number, so that pages end early, late, or where they must.
    low = (0.0, 0.001, 0.02, 1.0)[seed]
    entries = []
    for _ in range(count):
        head = rng.randrange(1 << 23 if rng.random() < low else 1 << 32)
        entries.append((ChunkId(head.to_bytes(4, "little") + rng.randbytes(28)), rng.randrange(1, 1 << 20)))
    labels = sorted(rng.randbytes(rng.randrange(1, 4)) for _ in range(count)) if labelled else []
    store = PageStore()
    builder = ContentBuilder(store.save)
    at = 0
    while at < count:
        end = at + rng.choice([1, 2, 63, 64, 500, 5000])
        if rng.random() < 0.2:
            builder.append(*entries[at], *labels[at : at + 1])
            end = at + 1
        else:
            builder.extend(pack_entries(entries[at:end]), labels[at:end])
        at = end
    assert (builder.finish(), builder.size, store.pages) == appended(entries, labels)


@pytest.mark.parametrize(
    "labels", [[b"b", b"a"], [b"a", b""], [b"", b"a"], [b"a"], [b"a", b"b", b"a"]], ids=repr
)
def test_labels_that_do_not_ascend_are_refused_of_many_too(labels: list[bytes]) -> None:
    builder = ContentBuilder(PageStore().save)
    entries = [(ChunkId(bytes([n]) * 32), 10) for n in range(1, 4)][: max(2, len(labels))]
    with pytest.raises(UsageError, match="labels ascend"):
        builder.extend(pack_entries(entries), labels)


def test_labels_ascend_over_calls_too() -> None:
    builder = ContentBuilder(PageStore().save)
    entry = pack_entries([(ChunkId(b"x" * 32), 10)])
    builder.extend(entry, [b"b"])
    for labels in ([b"a"], []):
        with pytest.raises(UsageError, match="labels ascend"):
            builder.extend(entry, labels)
    builder.extend(entry, [b"b"])
    assert builder.size == 20
