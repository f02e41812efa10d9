"""Bytes that come in: what is a message, and what ends a connection without harm."""

import contextlib
import struct

import bson
import pytest
from bson.errors import InvalidBSON
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.server.mongowire.crc32c import crc32c
from dedupstore.server.mongowire.wire import HEADER, Malformed, decode
from tests.support.wireserver import serving
from tests.unit.server.server_inputs import small_view

PING = bson.encode({"ping": 1, "$db": "admin"})


def header(size: int, opcode: int = 2013) -> bytes:
    return HEADER.pack(size + 16, 1, 0, opcode)


def msg(flags: int = 0, *sections: bytes) -> bytes:
    return struct.pack("<I", flags) + b"".join(sections)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_checksum_is_looked_at() -> None:
    body = msg(1, b"\0" + PING)
    whole = header(len(body) + 4) + body
    good = struct.pack("<I", crc32c(whole))
    assert decode(whole[:16], body + good).body == PING
    with pytest.raises(Malformed, match="checksum"):
        decode(whole[:16], body + bytes(4))


def test_sections_of_documents_are_arrays() -> None:
    documents = bson.encode({"a": 1}) + bson.encode({"b": 2})
    section = b"docs\0" + documents
    body = msg(0, b"\0" + PING, b"\1" + struct.pack("<i", len(section) + 4) + section)
    found = bson.decode(decode(header(len(body)), body).body)
    assert found == {"ping": 1, "$db": "admin", "docs": [{"a": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msg(),
        msg(4, b"\0" + PING),
        msg(0, b"\2" + PING),
        msg(0, b"\0" + PING, b"\0" + PING),
        msg(0, b"\0" + PING[:-1]),
        msg(0, b"\0" + PING, b"\1\xff\xff\xff\x7f"),
        msg(0, b"\0" + PING, b"\1\1\0\0\0"),
        msg(0, b"\0" + b"\xff\xff\xff\x7f"),
        msg(0, b"\0" + bson.encode({"a": True}).replace(b"\x08a\0\1", b"\x08a\0\7")),
        msg(1, b"\0" + PING),
        msg(0, b"\0" + PING, b"\1\x0a\0\0\0$db\0\0\0"),
        msg(0, b"\1\x06\0\0\0a\0"),
    ],
)
def test_what_does_not_add_up_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode(header(len(body)), body)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from([2013, 2004, 2012, 1, 0]))
def test_random_bytes_are_malformed_or_a_message(body: bytes, opcode: int) -> None:
    with contextlib.suppress(Malformed):
        decode(header(len(body), opcode), body)


FIND = bson.encode(
    {
        "find": "orders",
        "filter": {"n": {"$in": [1, 2]}, "$or": [{"text": {"$regex": "x"}}, {"_id": 1}]},
        "sort": {"n": -1},
        "projection": {"n": 1, "a.b": 1},
        "limit": 5,
        "$db": "shop",
    }
)
AGGREGATE = bson.encode(
    {
        "aggregate": "orders",
        "pipeline": [
            {"$match": {"n": 1}},
            {"$group": {"_id": "$n", "s": {"$sum": {"$add": ["$n", 1]}}}},
            {"$unwind": "$s"},
            {"$addFields": {"x": {"$cond": [1, "$s", 2]}}},
        ],
        "cursor": {},
        "$db": "shop",
    }
)


def test_no_message_harms_the_server() -> None:
    """Mutated commands get an answer that is no fault of ours, or their connection ends."""

    @settings(max_examples=400)
    @given(
        st.sampled_from([FIND, AGGREGATE, PING]),
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
        st.integers(-3, 3),
    )
    def attack(command: bytes, changes: list[tuple[int, int]], longer: int) -> None:
        body = bytearray(msg(0, b"\0" + command))
        for place, byte in changes:
            body[place % len(body)] = byte
        with running.wire() as wire:
            wire.number = 1
            try:
                wire.sock.sendall(header(len(body) + longer) + body)
                wire.sock.shutdown(1)
                answer = wire.read()
            except (EOFError, OSError):
                return
            except InvalidBSON:  # a string of the command comes back as it was sent
                with pytest.raises(InvalidBSON):
                    bson.decode(bytes(body[5:]))
                return
            assert answer["ok"] == 1 or answer["code"] != 1, answer

    with serving(small_view()) as running:
        attack()
        with running.wire() as wire:
            assert wire.ask({"ping": 1})["ok"] == 1


@pytest.mark.parametrize("place", [b"orders", b"shop"])
def test_a_name_that_is_no_text_is_refused_and_not_sent_back(place: bytes) -> None:
    body = msg(0, b"\0" + FIND.replace(place, b"\xff" + place[1:]))
    with serving(small_view()) as running, running.wire() as wire:
        wire.number = 1
        wire.sock.sendall(header(len(body)) + body)
        assert wire.read()["codeName"] == "InvalidNamespace"


@pytest.mark.parametrize("size", [-1, 0, 15, 16, 48_000_001, 0x7FFFFFFF, -(2**31)])
def test_impossible_lengths_end_the_connection(size: int) -> None:
    with serving(small_view()) as running, running.wire() as wire:
        wire.sock.sendall(struct.pack("<iiii", size, 1, 0, 2013))
        assert wire.ended


@pytest.mark.parametrize("opcode", [2012, 2010, 2001, 1, 0, -1])
def test_other_opcodes_end_the_connection(opcode: int) -> None:
    with serving(small_view()) as running, running.wire() as wire:
        wire.sock.sendall(header(len(PING), opcode) + PING)
        assert wire.ended


def test_the_old_greeting_is_understood_and_nothing_else_that_is_old() -> None:
    def query(command: dict[str, object]) -> bytes:
        body = struct.pack("<i", 4) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + bson.encode(command)
        return header(len(body), 2004) + body

    with serving(small_view()) as running, running.wire() as wire:
        wire.number = 1
        wire.sock.sendall(query({"isMaster": 1, "helloOk": True}))
        greeting = wire.read()
        assert greeting["ismaster"] is True
        assert greeting["maxWireVersion"] == 25
        wire.sock.sendall(query({"find": "orders"}))
        assert wire.read()["code"] == 352


def test_no_answer_is_sent_where_none_is_wanted() -> None:
    with serving(small_view()) as running, running.wire() as wire:
        wire.send({"insert": "orders", "documents": [], "$db": "shop"}, flags=2)
        assert wire.ask({"ping": 1}) == {"ok": 1.0}


def test_a_stranger_may_not_say_much_and_nothing_but_greet() -> None:
    with serving(small_view(), user="u", password="p") as running:
        with running.wire() as wire:
            assert wire.ask({"find": "orders", "$db": "shop"})["code"] == 13
            assert wire.ask({"listDatabases": 1})["code"] == 13
            assert wire.ask({"serverStatus": 1})["code"] == 13
            assert wire.ask({"insert": "orders"})["code"] == 13
            for name in ("ping", "hello", "isMaster", "buildInfo", "connectionStatus"):
                assert wire.ask({name: 1})["ok"] == 1
        with running.wire() as wire:
            wire.sock.sendall(struct.pack("<iiii", 16_385, 1, 0, 2013))
            assert wire.ended


def test_more_clients_than_there_is_room_for_are_sent_away() -> None:
    with serving(small_view(), most=2) as running, running.wire() as one, running.wire() as two:
        assert one.ask({"ping": 1})["ok"] == two.ask({"ping": 1})["ok"] == 1
        with running.wire() as three:
            assert three.ended
        assert one.ask({"ping": 1})["ok"] == 1
