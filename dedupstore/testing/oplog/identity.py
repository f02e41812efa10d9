"""When two values of ``_id`` are one to MongoDB, and which comes first: told by plain tuples.

``1``, ``1.0`` and ``NumberDecimal("1.00")`` are one ``_id``; a string and a symbol of the same text are.
"""

import math
import struct
from fractions import Fraction
from functools import lru_cache

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Value

Key = tuple[object, ...]
"""Comparable with every other; equal if and only if MongoDB says equal."""

_ORDER = {
    bson.MIN_KEY: 0,
    bson.UNDEFINED: 1,
    bson.NULL: 2,
    bson.INT32: 3,
    bson.INT64: 3,
    bson.DOUBLE: 3,
    bson.DECIMAL: 3,
    bson.STRING: 4,
    bson.SYMBOL: 4,
    bson.DOCUMENT: 5,
    bson.ARRAY: 6,
    bson.BINARY: 7,
    bson.OBJECT_ID: 8,
    bson.BOOLEAN: 9,
    bson.DATE: 10,
    bson.TIMESTAMP: 11,
    bson.REGEX: 12,
    bson.POINTER: 13,
    bson.CODE: 14,
    bson.SCOPED_CODE: 15,
    bson.MAX_KEY: 16,
}


def _number(value: Value) -> tuple[int, Fraction]:
    if value.type in (bson.INT32, bson.INT64):
        return 2, Fraction(int.from_bytes(value.raw, "little", signed=True))
    if value.type == bson.DOUBLE:
        (number,) = struct.unpack("<d", value.raw)
        if math.isnan(number):
            return 0, Fraction(0)
        if math.isinf(number):
            return (3 if number > 0 else 1), Fraction(0)
        return 2, Fraction(number)
    bits = int.from_bytes(value.raw, "little")
    sign = -1 if bits >> 127 else 1
    special = bits >> 122 & 0x1F
    if special == 0x1F:
        return 0, Fraction(0)
    if special == 0x1E:
        return (3 if sign > 0 else 1), Fraction(0)
    if bits >> 125 & 3 == 3:
        return 2, Fraction(0)
    exponent = (bits >> 113 & 0x3FFF) - 6176
    return 2, sign * (bits & (1 << 113) - 1) * Fraction(10) ** exponent


@lru_cache(1 << 16)
def identity(value: Value) -> Key:
    """Return the key of an ``_id``."""
    kind, raw = value
    order = _ORDER[kind]
    if order == 3:
        return (order, *_number(value))
    if order == 4:
        return (order, raw[4:-1])
    if kind in (bson.DOCUMENT, bson.ARRAY):
        parts = []
        for element in bson.elements(raw):
            key = identity(element.value)
            parts.append((key[0], element.name, key[1:]))
        return (order, tuple(parts))
    if kind == bson.BINARY:
        return (order, len(raw), raw[4], raw[5:])
    if kind == bson.DATE:
        return (order, int.from_bytes(raw, "little", signed=True))
    if kind == bson.TIMESTAMP:
        return (order, int.from_bytes(raw, "little"))
    return (order, raw)


def id_of(document: bytes) -> Value:
    """Return the ``_id`` of a document."""
    found = bson.find(document, b"_id")
    assert found is not None, "a document without _id"
    return found
