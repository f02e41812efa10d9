import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson.feed import Fill, behind, feed_of, fill_up
from dedupstore.sources.bson.gunzip import Gunzip


def unpack(data: bytes, window: int = 100) -> bytes:
    fill, view, found = Gunzip(feed_of(data), "here").fill, memoryview(bytearray(window)), bytearray()
    while size := fill(view):
        found += view[:size]
    assert fill(view) == 0
    return bytes(found)


def dribble(data: bytes) -> Fill:
    """A reader of one byte at a time."""
    fill = feed_of(data)
    return lambda view: fill(view[:1])


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(1, 500), st.integers(0, 9))
def test_members_one_after_the_other_and_zeros_behind(parts: list[bytes], window: int, zeros: int) -> None:
    packed = b"".join(gzip.compress(part, 1) for part in parts) + bytes(zeros)
    assert unpack(packed, window) == b"".join(parts)
    view = memoryview(bytearray(1000))
    assert bytes(view[: fill_up(Gunzip(dribble(packed), "here").fill, view)]) == b"".join(parts)


def test_much_that_packs_well() -> None:
    data = bytes(5_000_000)
    assert unpack(gzip.compress(data), 4096) == data


def test_what_is_cut_short_is_noticed() -> None:
    packed = gzip.compress(b"some text" * 3)
    for cut in range(len(packed)):
        with pytest.raises(SourceError, match="here"):
            unpack(packed[:cut])


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_does_not_matter(place: int, bit: int) -> None:
    packed = bytearray(gzip.compress(b"some text" * 30, mtime=0))
    packed[place % len(packed)] ^= 1 << bit
    found = b"some text" * 30
    with suppress(SourceError):
        found = unpack(bytes(packed))
    assert found == b"some text" * 30


@pytest.mark.parametrize(
    "data", [b"", b"plain", b"\x1f", gzip.compress(b"x", mtime=0) + b"more", zlib.compress(b"x")]
)
def test_what_is_no_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="here"):
        unpack(data)


def test_a_view_without_room_takes_nothing() -> None:
    assert Gunzip(feed_of(gzip.compress(b"x")), "here").fill(memoryview(b"")) == 0


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(1, 7))
def test_bytes_before_a_reader(head: bytes, tail: bytes, step: int) -> None:
    fill, view, found = behind(head, feed_of(tail)), memoryview(bytearray(step)), b""
    while size := fill(view):
        found += bytes(view[:size])
    assert found == head + tail
