"""Keys compare as MongoDB compares values: against an order written a second time, over every type."""

import contextlib
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson.order import LABEL_MAX, RANKS, label, sort_key
from tests.unit.bson.bson_values import INTERESTING, NUMBERS, VALUES, Value, compare, number


def identity(value: Value) -> bytes:
    return bytes((value[0],)) + value[1]


def sign(a: bytes, b: bytes) -> int:
    return (a > b) - (a < b)


@given(a=VALUES, b=VALUES)
@settings(max_examples=600)
def test_any_two_values(a: Value, b: Value) -> None:
    assert sign(sort_key(identity(a)), sort_key(identity(b))) == compare(a, b)


@given(a=NUMBERS, b=NUMBERS)
@settings(max_examples=1200)
def test_any_two_numbers(a: Value, b: Value) -> None:
    assert sign(sort_key(identity(a)), sort_key(identity(b))) == compare(a, b)


@given(x=st.one_of(st.floats(), st.sampled_from(INTERESTING)), step=st.integers(-3, 3))
def test_neighbours_of_a_double(x: float, step: int) -> None:
    """A double beside the 34 digits nearest to it, and beside its neighbours: no two fall together."""
    bits = struct.unpack("<Q", struct.pack("<d", x))[0]
    near = (0x01, struct.pack("<Q", (bits + step) % (1 << 64)))
    here = (0x01, struct.pack("<d", x))
    assert sign(sort_key(identity(near)), sort_key(identity(here))) == compare(near, here)
    assert (sort_key(identity(near)) == sort_key(identity(here))) == (number(near) == number(here))


@given(values=st.lists(VALUES, max_size=8))
def test_labels_ascend_with_keys(values: list[Value]) -> None:
    keys = sorted(sort_key(identity(value)) for value in values)
    labels = [key[:LABEL_MAX] for key in keys]
    assert labels == sorted(labels)
    assert sorted(label(identity(value)) for value in values) == labels
    assert all(name <= key for name, key in zip(labels, keys, strict=True))


@given(st.binary(max_size=60))
@settings(max_examples=500)
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    try:
        key = sort_key(data)
    except SourceError:
        return
    assert not data or key[0] == RANKS[data[0]]


@given(value=VALUES, at=st.integers(0), byte=st.integers(0, 255))
@settings(max_examples=500)
def test_a_changed_byte_is_another_value_or_refused(value: Value, at: int, byte: int) -> None:
    data = bytearray(identity(value))
    data[at % len(data)] = byte
    with contextlib.suppress(SourceError):
        assert sort_key(bytes(data))
