"""Timestamps and positions: text, bytes, order, and the little that is read of an entry for them."""

import pytest

from dedupstore.errors import SourceError, UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.position import NO_TERM, Position, Ts, header_of
from tests.unit.oplog.log_entries import Typed, doc, inserted


def test_timestamps_as_text() -> None:
    assert Ts.parse(" 1700000000:12 ") == Ts(1_700_000_000, 12)
    assert str(Ts(1_700_000_000, 12)) == "1700000000:12"


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "1:2:3", "-1:2", "1.5:2", "4294967296:1", "1:4294967296", "١:1"]
)
def test_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(UsageError):
        Ts.parse(text)


def test_keys_compare_as_timestamps_do() -> None:
    some = [Ts(0, 0), Ts(0, 1), Ts(1, 0), Ts(1, 256), Ts(255, 9), Ts(256, 1), Ts(2**32 - 1, 2**32 - 1)]
    assert sorted(some, key=Ts.key) == sorted(some) == some


def test_raw_values() -> None:
    assert Ts(5, 7).raw() == bytes.fromhex("0700000005000000")
    assert Ts.of(b"xx" + Ts(5, 7).raw(), 2) == Ts(5, 7)


def test_positions_are_sixteen_bytes() -> None:
    position = Position(Ts(1, 2), -1)
    assert position.pack() == bytes.fromhex("0000000100000002ffffffffffffffff")
    assert Position.unpack(position.pack()) == position
    assert Position.unpack(Position(Ts(9, 9), 7).pack()) == Position(Ts(9, 9), 7)
    with pytest.raises(ValueError, match="16 bytes"):
        Position.unpack(bytes(15))


def test_positions_in_words() -> None:
    assert str(Position(Ts(1, 2))) == "1:2"
    assert str(Position(Ts(1, 2), 3)) == "1:2 of term 3"


def test_the_header_of_an_entry() -> None:
    assert header_of(inserted(4, {"_id": 1})) == (Position(Ts(1000, 4), 1), 5000)
    assert header_of(doc(ts=Ts(1, 1), op="n")) == (Position(Ts(1, 1), NO_TERM), 0)
    wall = Typed(raw.DATE, raw.int64(77))
    assert header_of(doc(wall=wall, t=3, ts=Ts(1, 1))) == (Position(Ts(1, 1), 3), 77)


@pytest.mark.parametrize("what", [doc(op="i"), doc(ts=5), b"", b"\5\0\0\0"])
def test_what_has_no_header(what: bytes) -> None:
    with pytest.raises(SourceError):
        header_of(what)
