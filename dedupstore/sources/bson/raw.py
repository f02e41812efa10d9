"""BSON as it lies in memory: walked, checked, taken apart and put together; never inflated.

What is read here comes out byte for byte as it went in: field order, duplicate, empty and dotted names,
`-0.0`, payloads of NaN, `Timestamp(0, 0)`, deprecated types. A value is its type and its raw bytes; an
identity (what the rest of the package calls ``id``) is the type byte of ``_id`` followed by those bytes.

Every length is checked before it is used. Whatever does not add up raises `SourceError` with the data
attribute ``offset`` (bytes from the start of the buffer); an unknown type is refused by its number.
`elements` checks what it walks over, not what lies inside nested values; `validate` checks all.

Pure functions, safe from any thread; no state, no memory beyond the document.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from dedupstore.errors import SourceError
from dedupstore.model import Data

DOUBLE, STRING, OBJECT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOL = range(0x01, 0x09)
DATE, NULL, REGEX, DB_POINTER, CODE, SYMBOL, CODE_W_SCOPE = range(0x09, 0x10)
INT32, TIMESTAMP, INT64, DECIMAL128 = range(0x10, 0x14)
MAX_KEY, MIN_KEY = 0x7F, 0xFF

TYPE_NAMES = {
    DOUBLE: "double", STRING: "string", OBJECT: "object", ARRAY: "array", BINARY: "binData",
    UNDEFINED: "undefined", OBJECT_ID: "objectId", BOOL: "bool", DATE: "date", NULL: "null", REGEX: "regex",
    DB_POINTER: "dbPointer", CODE: "javascript", SYMBOL: "symbol", CODE_W_SCOPE: "javascriptWithScope",
    INT32: "int", TIMESTAMP: "timestamp", INT64: "long", DECIMAL128: "decimal", MAX_KEY: "maxKey",
    MIN_KEY: "minKey",
}  # fmt: skip
"""What MongoDB's ``$type`` calls each type."""

DOCUMENT_MIN = 5
DOCUMENT_MAX = (16 << 20) + (16 << 10)
"""Bytes. A document has 16 MiB at most; an oplog entry may be a little longer than the document in it."""
NESTING_MAX = 200
"""Levels of documents and arrays inside a document; MongoDB stores 180 and speaks of 200 internally."""
EMPTY = b"\x05\0\0\0\0"
"""The document without fields."""

_FIXED = [-1] * 256
"""Bytes of each type's values where that is fixed; -1 where it is not, or the type is unknown."""
for _sizes in (
    (0, UNDEFINED, NULL, MAX_KEY, MIN_KEY), (1, BOOL), (4, INT32), (8, DOUBLE, DATE, TIMESTAMP, INT64),
    (12, OBJECT_ID), (16, DECIMAL128),
):  # fmt: skip
    for _type in _sizes[1:]:
        _FIXED[_type] = _sizes[0]

_AFTER_LENGTH = {STRING: 4, SYMBOL: 4, CODE: 4, OBJECT: 0, ARRAY: 0, BINARY: 5}
"""Bytes of a value that begins with a length, beyond what that says."""
_NESTED = frozenset((OBJECT, ARRAY))
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")
_read_i32 = _I32.unpack_from


class Element(NamedTuple):
    """One field of a document."""

    name: bytes
    type: int
    start: int
    """Where its value begins and ends, bytes from the start of the buffer."""
    end: int


def damaged(offset: int, how: str) -> SourceError:
    """Return the error for BSON that does not add up at ``offset`` (bytes); both are its data attributes."""
    message = f"BSON {how} (byte {offset}): take the dump again, or look at it with bsondump"
    return SourceError(message, offset=offset, how=how)


def document_at(view: Data, offset: int) -> int:
    """Return where the document that begins at ``offset`` ends.

    Looks at its length and its last byte alone. Raises `SourceError` if it does not lie within ``view``.
    """
    size = len(view)
    if size - offset < 4:
        raise damaged(offset, "ends where a document should begin")
    (length,) = _read_i32(view, offset)
    if length < DOCUMENT_MIN or length > size - offset:
        raise damaged(offset, f"has a document of impossible length {length}")
    if view[offset + length - 1]:
        raise damaged(offset, "has a document that does not end in NUL")
    return offset + int(length)


def documents(view: Data) -> Iterator[bytes]:
    """Yield the documents of a buffer that holds nothing else; raises as `document_at` does."""
    at = 0
    while at < len(view):
        end = document_at(view, at)
        yield bytes(view[at:end])
        at = end


def value_end(data: Data, kind: int, at: int, end: int) -> int:
    """Return where the value of type ``kind`` that begins at ``at`` ends; it must do so by ``end``.

    Checks lengths and terminators of this value, not what is nested in it.
    """
    size = _FIXED[kind]
    if size < 0:
        size = _variable_size(data, kind, at, end)
    if size > end - at:
        raise damaged(at, f"has a {TYPE_NAMES[kind]} that runs past the end")
    return at + size


def _variable_size(data: Data, kind: int, at: int, end: int) -> int:
    if kind == REGEX:
        return _terminator(data, _terminator(data, at, end) + 1, end) + 1 - at
    if kind not in TYPE_NAMES:
        raise damaged(at, f"has a value of unknown type 0x{kind:02x}")
    if end - at < 4:
        raise damaged(at, f"has a {TYPE_NAMES[kind]} that runs past the end")
    length = int(_read_i32(data, at)[0])
    if kind == BINARY:
        size, least = length + 5, 5
    elif kind in _NESTED:
        size, least = length, DOCUMENT_MIN
    elif kind == CODE_W_SCOPE:
        size, least = length, 4 + 5 + DOCUMENT_MIN
    else:
        size, least = length + (16 if kind == DB_POINTER else 4), 17 if kind == DB_POINTER else 5
    if size < least or size > end - at:
        raise damaged(at, f"has a {TYPE_NAMES[kind]} of impossible length {length}")
    if kind == CODE_W_SCOPE:
        _check_scoped_code(data, at, at + size)
    elif kind == DB_POINTER:
        if data[at + 3 + length]:
            raise damaged(at, "has a dbPointer that does not end in NUL")
    elif kind != BINARY and data[at + size - 1]:
        raise damaged(at, f"has a {TYPE_NAMES[kind]} that does not end in NUL")
    return size


def _check_scoped_code(data: Data, at: int, end: int) -> None:
    scope = value_end(data, STRING, at + 4, end)
    if value_end(data, OBJECT, scope, end) != end:
        raise damaged(at, "has a javascriptWithScope whose lengths disagree")


def _terminator(data: Data, at: int, end: int) -> int:
    stop = data.find(b"\0", at, end) if not isinstance(data, memoryview) else bytes(data[at:end]).find(b"\0")
    if stop < 0:
        raise damaged(at, "has a text without an end")
    return stop + at if isinstance(data, memoryview) else stop


def elements(doc: Data, start: int = 0) -> Iterator[Element]:
    """Yield the fields of the document that begins at ``start``, in order.

    Offsets are those of the buffer. The document's frame is checked before the first field, each field before
    it is yielded. A ``memoryview`` is copied, the document alone.
    """
    end = document_at(doc, start) - 1
    if isinstance(doc, bytes):
        data, base = doc, 0
    else:
        data, base = bytes(memoryview(doc)[start : end + 1]), start
    at, end = start - base + 4, end - base
    find, fixed, new = data.find, _FIXED, tuple.__new__
    while at < end:
        kind = data[at]
        stop = find(0, at + 1, end)
        if stop < 0:
            raise damaged(at + base, "has a name without an end")
        value = stop + 1
        size = fixed[kind]
        if 0 <= size <= end - value:
            following = value + size
        else:
            try:
                following = value_end(data, kind, value, end)
            except SourceError as error:
                if not base:
                    raise
                raise damaged(base + cast("int", error.data["offset"]), str(error.data["how"])) from error
        yield new(Element, (data[at + 1 : stop], kind, value + base, following + base))
        at = following


def field(doc: Data, name: bytes, start: int = 0) -> Element | None:
    """Return the first field of that name, or None."""
    for element in elements(doc, start):
        if element.name == name:
            return element
    return None


def seek(doc: bytes, name: bytes, start: int = 0) -> tuple[int, int, int] | None:
    """Return type, begin and end of the first field of that name: `field`, several times as fast.

    Of what it passes over only the lengths are looked at.
    """
    end = document_at(doc, start) - 1
    at, find, fixed, size = start + 4, doc.find, _FIXED, len(name) + 1
    while at < end:
        kind = doc[at]
        stop = find(0, at + 1, end)
        if stop < 0:
            raise damaged(at, "has a name without an end")
        value = stop + 1
        if stop - at == size and doc.startswith(name, at + 1):
            return kind, value, value_end(doc, kind, value, end)
        at = value + fixed[kind]
        if at < value:
            more = _AFTER_LENGTH.get(kind, -1)
            if more >= 0 and value + 4 < end:
                at = value + more + _read_i32(doc, value)[0]
        if at < value or at > end:
            at = value_end(doc, kind, value, end)
    return None


def id_of(doc: Data, start: int = 0) -> bytes:
    """Return the type byte and the raw value of the document's ``_id``; ``b""`` if it has none.

    Walks no further than that field. Raises `SourceError` for what it can not walk over.
    """
    end = document_at(doc, start) - 1
    if doc[start + 5 : start + 9] == b"_id\0" and start + 9 <= end:
        kind, value = doc[start + 4], start + 9
        if kind:
            return bytes((kind,)) + bytes(doc[value : value_end(doc, kind, value, end)])
    found = field(doc, b"_id", start)
    return b"" if found is None else bytes((found.type,)) + bytes(doc[found.start : found.end])


def validate(doc: Data) -> None:
    """Check a whole document, nested ones included: lengths, terminators, types, truth values, nesting.

    The buffer must hold the document and nothing else. Text is not checked to be UTF-8: MongoDB stores what
    it is given. Raises `SourceError`.
    """
    data = doc if isinstance(doc, bytes) else bytes(doc)
    at, end = 4, document_at(data, 0) - 1
    if end + 1 != len(data):
        raise damaged(end + 1, "has bytes behind the document")
    find, fixed = data.find, _FIXED
    ends: list[int] = []
    while True:
        if at == end:
            if not ends:
                return
            at, end = end + 1, ends.pop()
            continue
        kind = data[at]
        stop = find(0, at + 1, end)
        if stop < 0:
            raise damaged(at, "has a name without an end")
        value = stop + 1
        size = fixed[kind]
        at = value + size if 0 <= size <= end - value else value_end(data, kind, value, end)
        if kind == BOOL and data[value] > 1:
            raise damaged(value, "has a bool that is neither false nor true")
        if kind == CODE_W_SCOPE:
            value = value_end(data, STRING, value + 4, end)
        if kind in _NESTED or kind == CODE_W_SCOPE:
            if len(ends) == NESTING_MAX:
                raise damaged(value, f"nests documents more than {NESTING_MAX} deep")
            ends.append(end)
            at, end = value + 4, at - 1


def text_of(value: Data) -> bytes:
    """Return the text of a string, symbol or code value."""
    return bytes(value[4:-1])


def int_of(kind: int, value: Data) -> int:
    """Return the number in an int or long value; raises `SourceError` for any other type."""
    if kind == INT32:
        return int(_read_i32(value)[0])
    if kind == INT64:
        return int(_I64.unpack_from(value)[0])
    raise SourceError(
        f"BSON has a {TYPE_NAMES.get(kind, kind)} where an integer belongs: take the dump again"
    )


def element(name: bytes, kind: int, value: Data) -> bytes:
    """Return one field as bytes."""
    return b"%c%b\0%b" % (kind, name, bytes(value))


def document(fields: Iterable[tuple[bytes, int, Data]]) -> bytes:
    """Return the document of these fields: (name, type, raw value)."""
    return framed(b"".join([b"%c%b\0%b" % (kind, name, bytes(value)) for name, kind, value in fields]))


def array(values: Iterable[tuple[int, Data]]) -> bytes:
    """Return the array of these values: (type, raw value); names are positions."""
    return document((b"%d" % number, kind, value) for number, (kind, value) in enumerate(values))


def framed(fields: Data) -> bytes:
    """Return the document whose fields are these bytes."""
    return b"%b%b\0" % (_I32.pack(len(fields) + 5), bytes(fields))


def string(text: str | bytes) -> bytes:
    """Return the raw value of a string, symbol or code."""
    data = text.encode() if isinstance(text, str) else text
    return b"%b%b\0" % (_I32.pack(len(data) + 1), data)


def int32(number: int) -> bytes:
    """Return the raw value of an int."""
    return _I32.pack(number)


def int64(number: int) -> bytes:
    """Return the raw value of a long, or of a date (milliseconds since 1970)."""
    return _I64.pack(number)


def double(number: float) -> bytes:
    """Return the raw value of a double."""
    return _F64.pack(number)


def binary(data: Data, subtype: int = 0) -> bytes:
    """Return the raw value of a binData (its bytes as stored: subtype 2 begins with a length of its own)."""
    return b"%b%c%b" % (_I32.pack(len(data)), subtype, bytes(data))


def timestamp(seconds: int, increment: int) -> bytes:
    """Return the raw value of a timestamp."""
    return struct.pack("<II", increment, seconds)
