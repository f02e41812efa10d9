"""What slices and positions look like when they are stored: for ever as here."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.documents.slices import SliceFacts, slice_extra, slice_facts, slice_name
from dedupstore.errors import FormatError, ObjectDamaged
from dedupstore.model import Node
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.span import Span

START, END, EARLY = (
    Position(Ts(0x65000001, 2), 3),
    Position(Ts(0x65000101, 9), 4),
    Position(Ts(0x64FFFFFF, 1)),
)
PACKED_START, PACKED_END = "65000001000000020000000000000003", "65000101000000090000000000000004"
PACKED_EARLY = "64ffffff00000001ffffffffffffffff"
U32 = st.integers(0, 0xFFFF_FFFF)
POSITIONS = st.builds(Position, st.builds(Ts, U32, U32), st.integers(-1, 1 << 40))


def node(extra: bytes) -> Node:
    return Node(b"x", 8, extra={"oplog": extra})


def test_a_slice_is_named_after_its_ends() -> None:
    assert slice_name(START.ts, END.ts) == b"1694498817-0000000002_1694499073-0000000009.bson"


def test_what_a_slice_says_of_itself() -> None:
    facts = SliceFacts(START, END, 77, proven=True, why="", wall=1_694_499_073_005)
    stored = "9801c410" + PACKED_START + "c410" + PACKED_END + "4dc3a0cf0000018a8803ebedc400"
    assert slice_extra(facts) == {"oplog": bytes.fromhex(stored)}
    assert slice_facts(node(bytes.fromhex(stored))) == facts


def test_the_shorter_form_is_read_too() -> None:
    """As the log that lies in a snapshot says of itself."""
    values = [1, START.pack(), END.pack(), 5, False, "read beside the collections", 9]
    found = slice_facts(node(msgspec.msgpack.encode(values)))
    assert found == SliceFacts(START, END, 5, proven=False, why="read beside the collections", wall=9)


def test_where_a_tail_began_without_an_entry_is_kept() -> None:
    facts = SliceFacts(START, END, 77, proven=False, why="first", wall=5, since=EARLY)
    assert slice_facts(node(slice_extra(facts)["oplog"])) == facts
    assert (facts.begins, facts.ends) == (EARLY, END)


@given(st.binary(max_size=80) | st.recursive(st.integers() | st.binary() | st.booleans(), st.lists).map(
    lambda value: msgspec.msgpack.encode(value) if _fits(value) else b""
))  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        slice_facts(node(data))
    except (ObjectDamaged, FormatError):
        return


def _fits(value: object) -> bool:
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, msgspec.MsgspecError):
        return False
    return True


@pytest.mark.parametrize(
    ("span", "packed"),
    [
        (Span(END, END), PACKED_END),
        (Span(START, END), PACKED_START + PACKED_END),
        (Span(START, END, EARLY), PACKED_EARLY + PACKED_START + PACKED_END),
        (Span(END, END, EARLY), PACKED_EARLY + PACKED_END + PACKED_END),
    ],
)
def test_between_which_places_a_snapshot_was_read(span: Span, packed: str) -> None:
    assert span.pack().hex() == packed
    assert Span.unpack(bytes.fromhex(packed)) == span


@given(POSITIONS, POSITIONS, st.none() | POSITIONS)
def test_every_span_comes_back(start: Position, end: Position, begun: Position | None) -> None:
    span = Span(start, end, begun)
    assert Span.unpack(span.pack()) == span
    assert span.exact == (start == end)


@given(st.binary(max_size=70))
def test_other_lengths_are_no_span(data: bytes) -> None:
    if len(data) in {16, 32, 48}:
        assert Span.unpack(data).pack() in {data, data[-16:]}
    else:
        with pytest.raises(ValueError, match="bytes"):
            Span.unpack(data)
