"""Leaves: where they end, that updates move none of them, and what is refused."""

import itertools
import struct

import pytest

from dedupstore.errors import SourceError, UsageError
from dedupstore.sources.base import Cutter
from dedupstore.sources.bson import leaves, raw
from dedupstore.sources.bson.leaves import (
    LEAF_MAX,
    LEAF_MIN,
    LEAF_TARGET,
    SAMPLE,
    LeafCutter,
    choose_k,
    kernels,
)
from dedupstore.sources.bson.order import label
from dedupstore.sources.bson.siphash import siphash
from tests.unit.bson.bson_values import document, text
from tests.unit.bson.leaf_inputs import KEY, collection, cut_in_pieces, cut_whole, made, noise, object_id

both = pytest.mark.parametrize("kernel", kernels())


def leaves_of(data: bytes, cutter: LeafCutter) -> list[bytes]:
    ends = [end for end, _ in cut_whole(cutter, data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@both
@pytest.mark.parametrize("size", [50, 300, 3000])
def test_the_rule_once_more(size: int, kernel: str) -> None:
    """The rule in words, document by document."""
    data = collection(200_000 // size, size)
    cutter = LeafCutter(KEY, kernel=kernel)
    found = cut_whole(cutter, data)
    assert cutter.k is not None
    ends, at, start, names = [], 0, 0, []
    for doc in raw.documents(data):
        if at - start + len(doc) > LEAF_MAX:
            ends.append(at)
            start = at
        if at == start:
            names.append(label(raw.id_of(doc)))
        at += len(doc)
        if at - start >= LEAF_MIN and siphash(KEY, raw.id_of(doc)) < 1 << (64 - cutter.k):
            ends.append(at)
            start = at
    assert [end for end, _ in found] == ends + [len(data)] * (start < len(data))
    assert [name for _, name in found] == names
    assert cutter.documents == 200_000 // size
    assert cutter.in_order


@pytest.mark.parametrize("size", [100, 300, 1000, 3000])
def test_leaves_are_about_as_long_as_wanted(size: int) -> None:
    data = collection(4_000_000 // size, size)
    sizes = [len(leaf) for leaf in leaves_of(data, LeafCutter(KEY))]
    mean = sum(sizes) / len(sizes)
    assert LEAF_TARGET / 1.6 < mean < LEAF_TARGET * 1.6
    assert all(LEAF_MIN <= size <= LEAF_MAX for size in sizes[:-1])


@both
def test_an_update_changes_its_leaf_and_no_other(kernel: str) -> None:
    docs = list(made(map(object_id, range(2000)), 300))
    changed = {17, 500, 501, 1200, 1999}
    later = [
        document([(b"_id", object_id(n)), (b"g", (0x02, text(noise(200, f"later {n}"))))])
        if n in changed
        else doc
        for n, doc in enumerate(docs)
    ]
    before = leaves_of(b"".join(docs), LeafCutter(KEY, kernel=kernel))
    after = leaves_of(b"".join(later), LeafCutter(KEY, kernel=kernel))
    assert len(before) == len(after)
    fresh = [number for number, leaf in enumerate(after) if leaf != before[number]]
    assert [sum(1 for _ in raw.documents(leaf)) for leaf in before] == [
        sum(1 for _ in raw.documents(leaf)) for leaf in after
    ]
    assert 0 < len(fresh) <= len(changed)


@both
def test_inserts_and_deletes_change_little(kernel: str) -> None:
    docs = list(made(map(object_id, range(3000)), 300))
    k = choose_k(b"".join(docs))
    gone = docs[:1000] + docs[1003:2000] + docs[2001:]
    before = set(leaves_of(b"".join(docs), LeafCutter(KEY, k=k, kernel=kernel)))
    after = leaves_of(b"".join(gone), LeafCutter(KEY, k=k, kernel=kernel))
    assert sum(leaf not in before for leaf in after) <= 4


def test_another_key_gives_other_leaves() -> None:
    data = collection(1000, 300)
    assert cut_whole(LeafCutter(KEY), data) != cut_whole(LeafCutter(bytes(16)), data)


@both
def test_unlabelled_leaves_end_where_labelled_ones_do(kernel: str) -> None:
    data = collection(500, 300)
    plain = LeafCutter(KEY, sorted=False, kernel=kernel)
    found = cut_whole(plain, data)
    assert {name for _, name in found} == {b""}
    assert [end for end, _ in found] == [end for end, _ in cut_whole(LeafCutter(KEY, kernel=kernel), data)]
    assert plain.in_order


def large(number: int, size: int) -> bytes:
    return document([(b"_id", object_id(number)), (b"f", (0x02, text(noise(size, f"large {number}"))))])


@both
def test_a_large_document_stands_alone_in_pieces(kernel: str) -> None:
    small = list(made(map(object_id, range(3)), 300))
    big = large(3, 3 * LEAF_MAX + 1000)
    rest = list(made(map(object_id, range(4, 7)), 300))
    data = b"".join([*small, big, *rest])
    cutter = LeafCutter(KEY, k=20, kernel=kernel)
    found = cut_whole(cutter, data)
    start = sum(map(len, small))
    name = label(raw.id_of(big))
    ends = [start, *range(start + LEAF_MAX, start + len(big), LEAF_MAX), start + len(big), len(data)]
    assert [end for end, _ in found] == ends
    assert [n for _, n in found] == [label(raw.id_of(small[0])), *[name] * 4, label(raw.id_of(rest[0]))]
    assert (cutter.documents, cutter.in_order) == (7, True)
    for split in [*range(start - 3, start + 12), start + LEAF_MAX, start + len(big) - 1, len(data) - 1]:
        again = LeafCutter(KEY, k=20, kernel=kernel)
        assert cut_in_pieces(again, data, [split]) == found
        assert (again.documents, again.in_order) == (7, True)


@both
@pytest.mark.parametrize(
    "sizes", [(LEAF_MAX, LEAF_MAX), (LEAF_MAX + 1, 100), (LEAF_MAX - 4, 100), (LEAF_MAX - 5, 5)]
)
def test_documents_as_long_as_a_leaf(sizes: tuple[int, int], kernel: str) -> None:
    data = b"".join(
        large(number, size - len(large(number, 0))) for number, size in enumerate(sizes) if size > 50
    )
    ends = [end for end, _ in cut_whole(LeafCutter(KEY, k=32, kernel=kernel), data)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert max(lengths) <= LEAF_MAX
    assert sum(lengths) == len(data)


@both
@pytest.mark.parametrize("max_size", [leaves.MAX_SIZE_MIN, 5000, 1 << 20])
def test_a_window_of_the_largest_size_holds_a_leaf(max_size: int, kernel: str) -> None:
    data = b"".join(
        itertools.chain(made(map(object_id, range(300)), 37), (large(n, 70_000) for n in range(300, 304)))
    )
    cutter: Cutter = LeafCutter(KEY, max_size=max_size, kernel=kernel)
    at = 0
    while at < len(data):
        window = data[at : at + cutter.max_size]
        found = cutter.cuts(memoryview(window), final=at + len(window) == len(data))
        assert found
        assert all(end - start <= max_size for (start, _), (end, _) in itertools.pairwise([(0, b""), *found]))
        at += found[-1][0]


@both
def test_nothing_is_no_leaf(kernel: str) -> None:
    cutter = LeafCutter(KEY, kernel=kernel)
    assert cut_whole(cutter, b"") == []
    assert (cutter.documents, cutter.in_order) == (0, True)
    assert cutter.k == choose_k(b"")


def test_k_follows_from_the_first_documents() -> None:
    assert [choose_k(collection(2000, size)) for size in (100, 300, 1000, 3000)] == [6, 4, 3, 1]
    assert choose_k(collection(20, 20_000)) == 0
    start = collection(2000, 300)[:SAMPLE]
    assert choose_k(start) == choose_k(start + b"anything") == choose_k(start + collection(9, 90_000))
    for number in (b"", b"\0\0\0", b"\xff\xff\xff\xff"):
        assert choose_k(number) == choose_k(b"")
    assert choose_k(raw.EMPTY * 100_000) < 16


@both
def test_k_waits_for_enough_to_look_at(kernel: str) -> None:
    data = collection(3000, 300)
    cutter = LeafCutter(KEY, kernel=kernel)
    assert cutter.cuts(memoryview(data)[: SAMPLE - 1], final=False) == []
    assert cutter.k is None
    assert cutter.cuts(memoryview(data)[:SAMPLE], final=False)
    assert cutter.k == choose_k(data)


def no_id(number: int) -> bytes:
    return document([(b"a", (0x10, struct.pack("<i", number)))])


@both
def test_documents_without_an_id(kernel: str) -> None:
    data = b"".join(map(no_id, range(5000)))
    cutter = LeafCutter(KEY, sorted=False, kernel=kernel)
    ends = [end for end, _ in cut_whole(cutter, data)]
    assert len(ends) > 3
    assert (cutter.documents, cutter.in_order) == (5000, False)
    with pytest.raises(SourceError, match=r"without an _id among sorted ones \(byte 0\)"):
        cut_whole(LeafCutter(KEY, kernel=kernel), data)


ONE = collection(1, 300)
TWO = b"".join(made(map(object_id, (5, 6)), 300))
BIG = large(9, 200_000)
BROKEN: list[tuple[str, bytes, str]] = [
    ("cut off", TWO[:-1], f"ends inside a document (byte {len(TWO) - len(list(raw.documents(TWO))[1])})"),
    ("cut off in a length", TWO + b"\x05\0\0", f"ends inside a document (byte {len(TWO)})"),
    ("no documents", b"hello, world", "impossible length 1819043176 (byte 0)"),
    ("too short", TWO + b"\4\0\0\0\0", f"impossible length 4 (byte {len(TWO)})"),
    ("too long", TWO + struct.pack("<i", 2 * raw.DOCUMENT_MAX), f"impossible length {2 * raw.DOCUMENT_MAX}"),
    ("no NUL", TWO[:-1] + b"x", "does not end in NUL"),
    ("no NUL after pieces", BIG[:-1] + b"x", f"does not end in NUL (byte {len(BIG) - 1})"),
    ("pieces cut off", BIG[:-1], f"ends inside a document (byte {3 * LEAF_MAX})"),
    ("before the first piece ends", BIG[:100], "ends inside a document (byte 0)"),
    ("unknown type", document([(b"a", (0x20, b"")), (b"_id", object_id(1))]), "unknown type 0x20"),
    ("disorder", TWO + ONE, f"_id is less than the one before it (byte {len(TWO)})"),
    ("disorder of a large one", TWO + large(1, 100_000), f"than the one before it (byte {len(TWO)})"),
    ("disorder after a large one", BIG + TWO, "_id is less than the one before it"),
    (
        "damage inside an _id",
        document([(b"_id", (0x03, document([(b"a", (0x44, b""))])))]),
        "whose _id is damaged (byte 0)",
    ),
    (
        "an _id far behind",
        document([(b"f", (0x02, text(bytes(LEAF_MAX)))), (b"_id", object_id(1))]),
        f"without an _id in its first {LEAF_MAX} (byte 0)",
    ),
]


@both
@pytest.mark.parametrize(("data", "says"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_what_is_refused(data: bytes, says: str, kernel: str) -> None:
    with pytest.raises(SourceError) as whole:
        cut_whole(LeafCutter(KEY, kernel=kernel), data)
    assert says in str(whole.value)
    for split in range(0, len(data), 1 + len(data) // 50):
        with pytest.raises(SourceError) as pieces:
            cut_in_pieces(LeafCutter(KEY, kernel=kernel), data, [split])
        assert str(pieces.value) == str(whole.value)


def test_what_makes_no_sense() -> None:
    for wrong in (b"", bytes(15), bytes(32)):
        with pytest.raises(UsageError, match="16 bytes"):
            LeafCutter(wrong)
    for k in (-1, 33):
        with pytest.raises(UsageError, match="number of bits"):
            LeafCutter(KEY, k=k)
    with pytest.raises(UsageError, match="too small for leaves"):
        LeafCutter(KEY, max_size=1023)
    with pytest.raises(UsageError, match="choose one of"):
        LeafCutter(KEY, kernel="simd")
