"""Answers: fields as bytes, and errors as MongoDB words them."""

import struct
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias

from dedupstore.errors import DedupstoreError, IntegrityError, NotFoundError, SourceError
from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.values import (
    KIND,
    Value,
    array_value,
    bool_value,
    document_value,
    double_value,
    field_of,
    integer_value,
    text_value,
)
from dedupstore.sources.bson import raw

Parts: TypeAlias = list[bytes]
"""The fields of a document, in pieces that are joined once, when they are sent."""
Plain: TypeAlias = "bool | int | float | str | bytes | datetime | Sequence[Plain] | dict[str, Plain]"
"""What `value` makes a value of; bytes are a document."""

OK: Final = field_of(b"ok", double_value(1.0))
_I32 = struct.Struct("<i")


def value(plain: Plain) -> Value:
    """Return plain Python as a value."""
    if isinstance(plain, bool):
        return bool_value(plain)
    if isinstance(plain, int):
        return integer_value(plain)
    if isinstance(plain, float):
        return double_value(plain)
    if isinstance(plain, str):
        return text_value(plain.encode("utf-8", "surrogateescape"))
    if isinstance(plain, bytes):
        return document_value(plain)
    if isinstance(plain, datetime):
        return date(plain)
    if isinstance(plain, dict):
        return document_value(raw.framed(b"".join(parts(plain))))
    return array_value(map(value, plain))


def parts(fields: dict[str, Plain]) -> Parts:
    """Return fields as they lie in a document."""
    return [field_of(name.encode(), value(plain)) for name, plain in fields.items()]


def date(moment: datetime) -> Value:
    """Return an instant."""
    return KIND[raw.DATE] + raw.int64(int(moment.timestamp() * 1000))


def long(name: str, number: int) -> bytes:
    """Return a field that is a long."""
    return field_of(name.encode(), integer_value(number, long=True))


def binary(name: str, data: bytes, subtype: int = 0) -> bytes:
    """Return a field that is binary data."""
    return raw.element(name.encode(), raw.BINARY, raw.binary(data, subtype))


def cursor_parts(batch: Sequence[bytes], size: int, identifier: int, namespace: str, *, first: bool) -> Parts:
    """Return the field ``cursor``; ``batch`` are the ``size`` bytes of an array's fields."""
    name = b"\x04firstBatch\0" if first else b"\x04nextBatch\0"
    tail = b"\0" + long("id", identifier) + field_of(b"ns", value(namespace)) + b"\0"
    array = size + 5
    whole = 4 + len(name) + array - 1 + len(tail)
    return [b"\x03cursor\0" + _I32.pack(whole) + name + _I32.pack(array), *batch, tail]


def error_parts(failure: int, name: str, message: str) -> Parts:
    """Return an error."""
    return [
        field_of(b"ok", double_value(0.0)),
        *parts({"errmsg": message, "code": failure, "codeName": name}),
    ]


def parts_of_error(error: DedupstoreError) -> Parts:
    """Return what a client is told of an error: damage by its own name, and what it says of the place."""
    if isinstance(error, QueryError):
        return error_parts(error.failure, error.failure.name, str(error))
    if isinstance(error, IntegrityError | NotFoundError | SourceError):
        lost = Failure.DataCorruptionDetected
        return error_parts(lost, lost.name, f"the backup is damaged here: {error}")
    return error_parts(Failure.InternalError, Failure.InternalError.name, str(error))


def joined(fields: Iterable[bytes]) -> bytes:
    """Return the document of fields."""
    return raw.framed(b"".join(fields))
