"""BSON as the makers of histories write and read it: ordered lists of (name, type, raw value).

Small and slow, and on purpose a second implementation: what `dedupstore.sources.bson` does is checked
against this. Nothing is interpreted that need not be; a value is its type and its bytes.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

DOUBLE, STRING, DOCUMENT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOLEAN = 1, 2, 3, 4, 5, 6, 7, 8
DATE, NULL, REGEX, POINTER, CODE, SYMBOL, SCOPED_CODE, INT32 = 9, 10, 11, 12, 13, 14, 15, 16
TIMESTAMP, INT64, DECIMAL, MAX_KEY, MIN_KEY = 17, 18, 19, 127, 255

_FIXED = {
    DOUBLE: 8,
    UNDEFINED: 0,
    OBJECT_ID: 12,
    BOOLEAN: 1,
    DATE: 8,
    NULL: 0,
    INT32: 4,
    TIMESTAMP: 8,
    INT64: 8,
    DECIMAL: 16,
    MAX_KEY: 0,
    MIN_KEY: 0,
}
EMPTY = b"\x05\0\0\0\0"
"""The empty document."""


class Value(NamedTuple):
    """A BSON value: its type byte and its bytes behind the name."""

    type: int
    raw: bytes


class Element(NamedTuple):
    """One field of a document."""

    name: bytes
    type: int
    raw: bytes

    @property
    def value(self) -> Value:
        """The field without its name."""
        return Value(self.type, self.raw)


def _end(kind: int, data: bytes, start: int) -> int:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return start + fixed
    if kind == REGEX:
        return data.index(b"\0", data.index(b"\0", start) + 1) + 1
    (size,) = struct.unpack_from("<i", data, start)
    if kind in (STRING, CODE, SYMBOL):
        return start + 4 + int(size)
    if kind in (DOCUMENT, ARRAY, SCOPED_CODE):
        return start + int(size)
    if kind == BINARY:
        return start + 5 + int(size)
    if kind == POINTER:
        return start + 4 + int(size) + 12
    raise AssertionError(f"type {kind} is none of BSON's")


def elements(document: bytes) -> list[Element]:
    """Return the fields of a whole document (or array), in order; one level only."""
    found = []
    at = 4
    while document[at]:
        kind = document[at]
        stop = document.index(b"\0", at + 1)
        end = _end(kind, document, stop + 1)
        found.append(Element(document[at + 1 : stop], kind, document[stop + 1 : end]))
        at = end
    assert at + 1 == len(document) == struct.unpack_from("<i", document)[0], "a document with a wrong length"
    return found


def build(parts: Iterable[tuple[bytes, int, bytes]]) -> bytes:
    """Return the document with these fields: what `elements` takes apart."""
    body = b"".join([bytes((kind,)) + name + b"\0" + raw for name, kind, raw in parts])
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def document(fields: Mapping[str, Value | None]) -> bytes:
    """Return the document with these fields; those that are ``None`` are left out."""
    return build((name.encode(), *value) for name, value in fields.items() if value is not None)


def numbered(values: Iterable[Value]) -> bytes:
    """Return the array of these values."""
    return build((b"%d" % index, *value) for index, value in enumerate(values))


def find(document: bytes, name: bytes) -> Value | None:
    """Return the first field of that name, or ``None``."""
    return next((element.value for element in elements(document) if element.name == name), None)


def text(value: Value | None) -> str:
    """Return the text of a string value."""
    assert value is not None, "there is no such field"
    assert value.type == STRING, "not a string"
    return value.raw[4:-1].decode()


def int32(number: int) -> Value:
    """Return a 32-bit integer."""
    return Value(INT32, struct.pack("<i", number))


def int64(number: int) -> Value:
    """Return a 64-bit integer."""
    return Value(INT64, struct.pack("<q", number))


def double(number: float) -> Value:
    """Return a double."""
    return Value(DOUBLE, struct.pack("<d", number))


def decimal(sign: int, coefficient: int, exponent: int) -> Value:
    """Return the Decimal128 ±coefficient x 10^exponent; the coefficient below 2^113."""
    bits = sign << 127 | (exponent + 6176) << 113 | coefficient
    return Value(DECIMAL, bits.to_bytes(16, "little"))


def string(words: str | bytes, kind: int = STRING) -> Value:
    """Return a string; or with ``kind`` code or a symbol."""
    data = words.encode() if isinstance(words, str) else words
    return Value(kind, struct.pack("<i", len(data) + 1) + data + b"\0")


def boolean(truth: bool) -> Value:
    """Return a boolean."""
    return Value(BOOLEAN, b"\1" if truth else b"\0")


def date(milliseconds: int) -> Value:
    """Return a date: milliseconds since the epoch."""
    return Value(DATE, struct.pack("<q", milliseconds))


def timestamp(seconds: int, increment: int) -> Value:
    """Return an internal timestamp."""
    return Value(TIMESTAMP, struct.pack("<II", increment, seconds))


def binary(data: bytes, subtype: int = 0) -> Value:
    """Return binary data of a subtype; 2 carries its length twice."""
    if subtype == 2:
        data = struct.pack("<i", len(data)) + data
    return Value(BINARY, struct.pack("<iB", len(data), subtype) + data)


def uuid(data: bytes) -> Value:
    """Return a UUID: binary data of subtype 4."""
    return binary(data, 4)


def embedded(fields: Mapping[str, Value | None]) -> Value:
    """Return an embedded document."""
    return Value(DOCUMENT, document(fields))


def array(values: Iterable[Value]) -> Value:
    """Return an array."""
    return Value(ARRAY, numbered(values))


NOTHING = Value(NULL, b"")
"""Null."""
