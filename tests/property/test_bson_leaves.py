"""Both walks give the same leaves, labels, facts and errors, however the input is split."""

import itertools
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson.leaves import MAX_SIZE_MIN, LeafCutter, kernels
from dedupstore.sources.bson.order import label, sort_key
from dedupstore.sources.bson.raw import documents, id_of
from tests.unit.bson.bson_values import NAMES, NUMBERS, SCALARS, VALUES, Value, document, text
from tests.unit.bson.leaf_inputs import KEY, cut_in_pieces

IDENTITIES = st.one_of(
    SCALARS, NUMBERS, VALUES, st.integers(0, 40).map(lambda n: (0x10, struct.pack("<i", n)))
)
SIZES = st.sampled_from([0, 0, 5, 20, 100, 300, 1100, 2000, 5000])


@st.composite
def bodies(draw: st.DrawFn, identity: Value | None) -> bytes:
    fields: list[tuple[bytes, Value]] = [] if identity is None else [(b"_id", identity)]
    if draw(st.booleans()):
        fields.append((draw(NAMES.filter(lambda name: name != b"_id")), draw(SCALARS)))
    if draw(st.integers(0, 9)) == 0:
        fields.reverse()
    fields.append((b"f", (0x02, text(b"x" * draw(SIZES)))))
    return document(fields)


@st.composite
def collections(draw: st.DrawFn) -> bytes:
    identities: list[Value | None] = list(draw(st.lists(IDENTITIES, max_size=12)))
    if draw(st.integers(0, 4)):
        identities.sort(key=lambda value: sort_key(bytes((value[0],)) + value[1]) if value else b"")
    if draw(st.integers(0, 9)) == 0:
        identities.append(None)
    return b"".join(draw(bodies(identity)) for identity in identities)


OPTIONS = st.fixed_dictionaries(
    {
        "k": st.one_of(st.none(), st.integers(0, 4)),
        "sorted": st.booleans(),
        "max_size": st.sampled_from([MAX_SIZE_MIN, 1500, 4096, 1 << 20]),
    }
)
SPLITS = st.lists(st.integers(0, 30_000), max_size=8)


def outcome(kernel: str, data: bytes, splits: list[int], options: dict[str, Any]) -> tuple[object, ...]:
    """Return all that can be told from outside about one way to cut, errors included."""
    cutter = LeafCutter(KEY, kernel=kernel, **options)
    try:
        found = cut_in_pieces(cutter, data, splits)
    except SourceError as error:
        return (str(error),)
    return found, cutter.k, cutter.documents, cutter.in_order


@given(data=collections(), splits=SPLITS, options=OPTIONS)
@settings(max_examples=250)
def test_any_collection_in_any_pieces(data: bytes, splits: list[int], options: dict[str, Any]) -> None:
    expected = outcome("python", data, [], options)
    for kernel in kernels():
        assert outcome(kernel, data, [], options) == expected
        assert outcome(kernel, data, splits, options) == expected


@given(
    data=collections().filter(bool),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
    cut=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 9]),
    splits=SPLITS,
    options=OPTIONS,
)
@settings(max_examples=300)
def test_damaged_collections(
    data: bytes, changes: list[tuple[int, int]], cut: int, splits: list[int], options: dict[str, Any]
) -> None:
    damaged = bytearray(data)
    for at, byte in changes:
        damaged[at % len(data)] = byte
    data = bytes(damaged[: len(damaged) - cut])
    expected = outcome("python", data, [], options)
    for kernel in kernels():
        assert outcome(kernel, data, [], options) == expected
        assert outcome(kernel, data, splits, options) == expected


@given(data=collections(), k=st.integers(0, 3))
@settings(max_examples=150)
def test_what_the_facts_say(data: bytes, k: int) -> None:
    """Leaves hold whole documents, labels are those of their first, order and count are as one sees them."""
    whole = list(documents(data))
    identities = [id_of(doc) for doc in whole]
    keys = [sort_key(identity) for identity in identities]
    cutter = LeafCutter(KEY, k=k, sorted=False)
    ends = [end for end, _ in cutter.cuts(memoryview(data), final=True)]
    assert set(ends) <= set(itertools.accumulate(map(len, whole)))
    assert ends[-1:] == ([len(data)] if data else [])
    assert cutter.documents == len(whole)
    assert cutter.in_order == (all(identities) and keys == sorted(keys))
    if cutter.in_order:
        named = LeafCutter(KEY, k=k).cuts(memoryview(data), final=True)
        starts = dict(zip([0, *itertools.accumulate(map(len, whole))], identities, strict=False))
        assert [end for end, _ in named] == ends
        assert [name for _, name in named] == [label(starts[start]) for start in [0, *ends[:-1]] if ends]
