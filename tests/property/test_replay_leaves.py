"""Patched leaves are, leaf for leaf, those of the whole collection cut anew; and little is read for them."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import cycle
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.documents.leafpatch import Fresh, Leaf, LeafPage, LeafPatch
from dedupstore.ids import ChunkId
from dedupstore.model import Data
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.leaves import LeafCutter
from dedupstore.sources.bson.order import sort_key

KEY = b"0123456789abcdef"
LEAF_MAX = 2048


class Edit(NamedTuple):
    key: bytes
    document: bytes | None


def merged(documents: Iterator[bytes], edits: Iterator[Edit]) -> Iterator[bytes]:
    edit = next(edits, None)
    for document in documents:
        key = sort_key(raw.id_of(document))
        while edit is not None and edit.key < key:
            if edit.document is not None:
                yield edit.document
            edit = next(edits, None)
        if edit is not None and edit.key == key:
            if edit.document is not None:
                yield edit.document
            edit = next(edits, None)
        else:
            yield document
    while edit is not None:
        if edit.document is not None:
            yield edit.document
        edit = next(edits, None)


def cutter(k: int) -> LeafCutter:
    return LeafCutter(KEY, k=k, max_size=LEAF_MAX)


def leaves_of(documents: list[bytes], k: int) -> list[Fresh]:
    data = b"".join(documents)
    start, found = 0, []
    for end, label in cutter(k).cuts(memoryview(data), final=True):
        found.append(Fresh(label, data[start:end]))
        start = end
    return found


def name_of(data: bytes) -> ChunkId:
    return ChunkId(blake2b(data, digest_size=32).digest())


def document(number: int, size: int, mark: int, prefix: bytes) -> bytes:
    """A document that sorts by its number; ``prefix`` makes its ``_id`` long."""
    identity = raw.string(prefix + b"%06d" % number)
    fields = [(b"_id", raw.STRING, identity), (b"x", raw.BINARY, raw.binary(bytes([mark % 256]) * size))]
    return raw.document(fields)


SIZES = st.one_of(
    st.integers(0, 120), st.integers(100, 900), st.just(LEAF_MAX - 170), st.integers(2000, 9000)
)
PREFIXES = st.sampled_from([b"", b"p" * 118, b"p" * 200])


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], list[Edit], int]:
    prefix = draw(PREFIXES)
    sizes = st.integers(0, 120) if draw(st.booleans()) else SIZES
    numbers = sorted(draw(st.sets(st.integers(0, 400), max_size=150)))
    old = [document(number, draw(sizes), 0, prefix) for number in numbers]
    edits: dict[bytes, Edit] = {}
    for _ in range(draw(st.integers(0, 12))):
        place = draw(st.integers(0, 400))
        for number in range(place, place + draw(st.sampled_from([1, 1, 1, 3, 40]))):
            key = sort_key(raw.id_of(document(number, 0, 0, prefix)))
            gone = draw(st.booleans())
            edits[key] = Edit(key, None if gone else document(number, draw(sizes), 1, prefix))
    return old, [edits[key] for key in sorted(edits)], draw(st.sampled_from([0, 1, 2, 3, 5]))


def paged(leaves: list[Leaf], sizes: list[int]) -> list[Leaf | LeafPage]:
    """The same leaves by pages of so many of them in turn."""
    pages: list[Leaf | LeafPage] = []
    at = 0
    for size in cycle(sizes):
        part = leaves[at : at + size]
        if not part:
            return pages
        page = name_of(b"".join(chunk for chunk, _, _ in part))
        pages.append(LeafPage(page, sum(one[1] for one in part), part[0][2], lambda part=part: part))  # type: ignore[misc]
        at += size
    return pages


@settings(max_examples=400)
@given(histories(), st.lists(st.integers(1, 9), max_size=5))
def test_a_patch_is_what_cutting_everything_gives(
    made: tuple[list[bytes], list[Edit], int], sizes: list[int]
) -> None:
    old, edits, k = made
    before = leaves_of(old, k)
    chunks = {name_of(leaf.data): leaf.data for leaf in before}
    new = list(merged(iter(old), iter(edits)))
    leaves: list[Leaf] = [
        (name_of(leaf.data), len(leaf.data), leaf.label if len(before) > 1 else b"") for leaf in before
    ]
    patch = LeafPatch(
        paged(leaves, sizes) if sizes and len(before) > 1 else leaves,
        edits,
        fetch=lambda wanted: {chunk: chunks[chunk] for chunk in wanted},
        apply=merged,
        cutter=lambda: cutter(k),
        leaf_max=LEAF_MAX,
        where="it",
    )
    found: list[Fresh] = []
    for leaf in patch.leaves():
        if isinstance(leaf, Fresh):
            found.append(leaf)
        else:
            listed = leaf.leaves() if isinstance(leaf, LeafPage) else [leaf]
            found += [Fresh(label, chunks[chunk]) for chunk, _, label in listed]
    if len(before) == 1 and not edits:
        found = [Fresh(before[0].label, leaf.data) for leaf in found]  # one leaf alone has no label
    assert found == leaves_of(new, k)
    assert patch.added == len(new) - len(old)


def test_pages_that_no_change_comes_near_are_not_listed() -> None:
    old = [document(number, 60, 0, b"") for number in range(0, 6000, 2)]
    before = leaves_of(old, 3)
    chunks = {name_of(leaf.data): leaf.data for leaf in before}
    leaves: list[Leaf] = [(name_of(leaf.data), len(leaf.data), leaf.label) for leaf in before]
    pages = paged(leaves, [5])
    assert len(pages) > 20
    for number in range(0, 6000, 334):
        edit = Edit(sort_key(raw.id_of(document(number, 0, 0, b""))), document(number, 60, 9, b""))
        patch = LeafPatch(
            pages, [edit], fetch=lambda wanted: {chunk: chunks[chunk] for chunk in wanted}, apply=merged,
            cutter=lambda: cutter(3), leaf_max=LEAF_MAX, where="it",
        )  # fmt: skip
        given_back = [leaf for leaf in patch.leaves() if isinstance(leaf, LeafPage)]
        assert len(given_back) >= len(pages) - 6


def test_one_change_reads_one_leaf_or_two() -> None:
    old = [document(number, 60, 0, b"") for number in range(0, 6000, 2)]
    before = leaves_of(old, 3)
    chunks = {name_of(leaf.data): leaf.data for leaf in before}
    assert len(before) > 100
    read: list[ChunkId] = []

    def fetch(wanted: list[ChunkId]) -> dict[ChunkId, Data]:
        read.extend(wanted)
        return {chunk: chunks[chunk] for chunk in wanted}

    for number in range(0, 6000, 334):
        read.clear()
        edit = Edit(sort_key(raw.id_of(document(number, 0, 0, b""))), document(number, 60, 9, b""))
        patch = LeafPatch(
            [(name_of(leaf.data), len(leaf.data), leaf.label) for leaf in before],
            [edit], fetch=fetch, apply=merged, cutter=lambda: cutter(3), leaf_max=LEAF_MAX, where="it",
        )  # fmt: skip
        fresh = [leaf for leaf in patch.leaves() if isinstance(leaf, Fresh)]
        assert len(fresh) == 1
        assert len(read) == 1
