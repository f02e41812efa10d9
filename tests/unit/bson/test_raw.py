"""Raw BSON: what is walked comes out as it went in, and nothing that does not add up gets through."""

import struct

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from tests.unit.bson.bson_values import decimal, document, scoped, text

EVERY_TYPE: list[tuple[bytes, tuple[int, bytes]]] = [
    (b"_id", (0x07, bytes(range(12)))),
    (b"double", (0x01, struct.pack("<d", -0.0))),
    (b"nan with payload", (0x01, bytes.fromhex("010000000000f8ff"))),
    (b"string", (0x02, text(b"with \0 inside"))),
    (b"object", (0x03, document([(b"a", (0x10, struct.pack("<i", 1)))]))),
    (b"array", (0x04, document([(b"0", (0x0A, b"")), (b"not 1", (0x0A, b""))]))),
    (b"binary", (0x05, struct.pack("<iB", 3, 0x80) + b"abc")),
    (b"old binary", (0x05, struct.pack("<iBi", 7, 2, 3) + b"abc")),
    (b"undefined", (0x06, b"")),
    (b"bool", (0x08, b"\1")),
    (b"date", (0x09, struct.pack("<q", -(2**63)))),
    (b"null", (0x0A, b"")),
    (b"regex", (0x0B, b"^a.*\0im\0")),
    (b"pointer", (0x0C, text(b"db.c") + bytes(12))),
    (b"code", (0x0D, text(b"return 1"))),
    (b"symbol", (0x0E, text(b"s"))),
    (b"scoped", (0x0F, scoped(b"x", document([(b"x", (0x08, b"\0"))])))),
    (b"int", (0x10, struct.pack("<i", -1))),
    (b"timestamp", (0x11, bytes(8))),
    (b"long", (0x12, struct.pack("<q", 1))),
    (b"decimal", (0x13, decimal("1.10"))),
    (b"min", (0xFF, b"")),
    (b"max", (0x7F, b"")),
    (b"", (0x0A, b"")),
    (b"dotted.name", (0x0A, b"")),
    (b"double", (0x0A, b"")),
    (b"\xff no utf-8", (0x0A, b"")),
]
DOC = document(EVERY_TYPE)


def taken_apart(doc: bytes) -> list[tuple[bytes, int, bytes]]:
    return [(name, kind, doc[start:end]) for name, kind, start, end in raw.elements(doc)]


def test_every_type_survives() -> None:
    raw.validate(DOC)
    found = taken_apart(DOC)
    assert found == [(name, kind, data) for name, (kind, data) in EVERY_TYPE]
    assert raw.document(found) == DOC
    assert raw.framed(b"".join(raw.element(*parts) for parts in found)) == DOC
    assert set(raw.TYPE_NAMES) == {kind for _, kind, _ in found}


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_at_any_place(wrap: type) -> None:
    buffer = wrap(b"before" + DOC + b"behind")
    assert raw.document_at(buffer, 6) == 6 + len(DOC)
    found = [(e.name, e.type, bytes(buffer[e.start : e.end])) for e in raw.elements(buffer, 6)]
    assert found == taken_apart(DOC)
    assert raw.id_of(buffer, 6) == b"\x07" + bytes(range(12))
    raw.validate(wrap(DOC))


def test_documents_of_a_buffer() -> None:
    assert list(raw.documents(DOC + raw.EMPTY + DOC)) == [DOC, raw.EMPTY, DOC]
    assert list(raw.documents(memoryview(b""))) == []
    with pytest.raises(SourceError, match="impossible length"):
        list(raw.documents(DOC + DOC[:-1]))


def test_identity_wherever_it_stands() -> None:
    first = (b"_id", (0x02, text(b"x")))
    assert raw.id_of(document([first, (b"a", (0x0A, b""))])) == b"\x02" + text(b"x")
    assert raw.id_of(document([(b"a", (0x0A, b"")), first])) == b"\x02" + text(b"x")
    assert raw.id_of(document([first, (b"_id", (0x0A, b""))])) == b"\x02" + text(b"x")
    assert raw.id_of(document([(b"_id", (0x0A, b""))])) == b"\x0a"
    assert raw.id_of(document([(b"_ids", (0x0A, b"")), (b"x", (0x03, document([first])))])) == b""
    assert raw.id_of(raw.EMPTY) == b""
    for name in (b"_id", b"_i", b"_", b""):
        assert raw.id_of(document([(name, (0x0A, b""))])) == (b"\x0a" if name == b"_id" else b"")


def test_field_is_the_first_of_its_name() -> None:
    found = raw.field(DOC, b"double")
    assert found is not None
    assert found.type == raw.DOUBLE
    assert raw.field(DOC, b"dotted") is None


def test_numbers_and_texts() -> None:
    assert raw.int_of(raw.INT32, raw.int32(-5)) == -5
    assert raw.int_of(raw.INT64, raw.int64(1 << 40)) == 1 << 40
    assert raw.text_of(raw.string("é")) == "é".encode()
    assert raw.string(b"\xff") == text(b"\xff")
    assert raw.binary(b"abc", 3) == struct.pack("<iB", 3, 3) + b"abc"
    assert raw.timestamp(2, 1) == struct.pack("<II", 1, 2)
    assert raw.double(1.5) == struct.pack("<d", 1.5)
    assert raw.array([(raw.NULL, b""), (raw.BOOL, b"\1")]) == document(
        [(b"0", (0x0A, b"")), (b"1", (0x08, b"\1"))]
    )
    with pytest.raises(SourceError, match="double where an integer"):
        raw.int_of(raw.DOUBLE, bytes(8))


def one(kind: int, data: bytes) -> bytes:
    return document([(b"f", (kind, data))])


@pytest.mark.parametrize(
    ("doc", "says"),
    [
        (b"", "ends where a document"),
        (b"\x05\0\0", "ends where a document"),
        (b"\x04\0\0\0\0", "impossible length 4"),
        (b"\xff\xff\xff\xff\0", "impossible length -1"),
        (b"\x06\0\0\0\0", "impossible length 6"),
        (b"\x05\0\0\0\1", "does not end in NUL"),
        (b"\x06\0\0\0\x0a\0", "name without an end"),
        (b"\x08\0\0\0\x0aab\0", "name without an end"),
        (one(0x14, b""), "unknown type 0x14"),
        (one(0x00, b""), "unknown type 0x00"),
        (one(0x80, b"abc"), "unknown type 0x80"),
        (one(0x10, b"abc"), "int that runs past the end"),
        (one(0x13, bytes(15)), "decimal that runs past the end"),
        (one(0x02, b"\1\0"), "string that runs past the end"),
        (one(0x02, struct.pack("<i", 0)), "string of impossible length 0"),
        (one(0x02, struct.pack("<i", -1)), "string of impossible length -1"),
        (one(0x02, struct.pack("<i", 2**31 - 1) + b"a\0"), "string of impossible length"),
        (one(0x02, struct.pack("<i", 1) + b"a"), "string that does not end in NUL"),
        (one(0x0D, struct.pack("<i", 1) + b"a"), "javascript that does not end in NUL"),
        (one(0x0E, struct.pack("<i", 3) + b"a\0"), "symbol of impossible length 3"),
        (one(0x03, struct.pack("<i", 4)), "object of impossible length 4"),
        (one(0x03, struct.pack("<i", 5) + b"\1"), "object that does not end in NUL"),
        (one(0x04, struct.pack("<i", 6) + b"\0"), "array of impossible length 6"),
        (one(0x05, struct.pack("<iB", 1, 0)), "binData of impossible length 1"),
        (one(0x05, struct.pack("<iB", -1, 0)), "binData of impossible length -1"),
        (one(0x05, b"\0\0\0"), "binData that runs past the end"),
        (one(0x0B, b"a"), "text without an end"),
        (one(0x0B, b"a\0b"), "text without an end"),
        (one(0x0C, text(b"a") + bytes(11)), "dbPointer of impossible length 2"),
        (one(0x0C, struct.pack("<i", 1) + b"a" + bytes(12)), "dbPointer that does not end in NUL"),
        (one(0x0F, struct.pack("<i", 13) + bytes(9)), "javascriptWithScope of impossible length 13"),
        (one(0x0F, struct.pack("<i", 14) + text(b"a") + raw.EMPTY), "impossible length 5"),
        (one(0x0F, struct.pack("<i", 16) + text(b"a") + raw.EMPTY + b"\0"), "lengths disagree"),
    ],
)
def test_what_does_not_add_up(doc: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=says) as failure:
        raw.validate(doc)
    assert isinstance(failure.value.data["offset"], int)
    with pytest.raises(SourceError, match=says):
        list(raw.elements(doc))
    for walk in (raw.elements, raw.id_of):
        with pytest.raises(SourceError, match=says) as shifted:
            list(walk(memoryview(b"xy" + doc), 2))
        with pytest.raises(SourceError, match=says) as here:
            list(walk(doc))
        assert shifted.value.data["offset"] == here.value.data["offset"] + 2


@pytest.mark.parametrize(
    ("doc", "says"),
    [
        (one(0x08, b"\2"), "neither false nor true"),
        (one(0x03, document([(b"x", (0x08, b"\xff"))])), "neither false nor true"),
        (one(0x0F, scoped(b"", one(0x14, b""))), "unknown type 0x14"),
        (one(0x04, one(0x04, one(0x10, b""))), "int that runs past the end"),
        (one(0x03, b"\x06\0\0\0\x0a\0"), "name without an end"),
        (raw.EMPTY + b"\0", "bytes behind the document"),
        (raw.EMPTY + raw.EMPTY, "bytes behind the document"),
    ],
)
def test_only_a_whole_look_finds(doc: bytes, says: str) -> None:
    list(raw.elements(doc))
    with pytest.raises(SourceError, match=says):
        raw.validate(doc)


def nested(levels: int, kind: int) -> bytes:
    doc = raw.EMPTY
    for _ in range(levels):
        doc = one(kind, doc if kind != 0x0F else scoped(b"", doc))
    return doc


@pytest.mark.parametrize("kind", [0x03, 0x04, 0x0F])
def test_nesting_is_bounded(kind: int) -> None:
    raw.validate(nested(raw.NESTING_MAX, kind))
    with pytest.raises(SourceError, match="more than 200 deep"):
        raw.validate(nested(raw.NESTING_MAX + 1, kind))
    with pytest.raises(SourceError, match="more than 200 deep"):
        raw.validate(nested(20_000, kind))
