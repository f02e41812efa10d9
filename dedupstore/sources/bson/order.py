"""MongoDB's order of values as bytes: two keys compare as the server compares the two values.

`sort_key` takes an identity (`raw.id_of`: type byte, raw value). Comparing keys as bytes is comparing values
as the server's index on ``_id`` does under the simple collation. Keys are equal exactly where the server
calls values equal: numbers of the same value whatever their types (0, -0.0 and every zero of decimal128 are
one), all NaN, a symbol and a string of the same text.

::

    key     = rank body
    number  = class [magnitude]    classes: NaN, -inf, to -2**64, negative, 0, positive, from 2**64, inf
    magnitude below 2**64  = u64, fraction
    magnitude from 2**64   = u16 number of decimal digits before the point, digits
    fraction               = 00 | u16 (FFFF - zeros after the point), digits
    digits                 = pairs of decimal digits, each + 1, then 00; no zeros at the end
    negative               = the magnitude's bytes inverted
    string  = bytes with 00 as 00 FF, then 00
    object  = (rank name 00 body)* 00
    array   = (rank body)* 00
    binData = u32 length, subtype, bytes

All numbers are big-endian. Ranks are below FF, so what follows a string never looks like its escape. Pure
functions. Raises `SourceError` for an identity that is no value.
"""

import math
import struct
from collections.abc import Callable

from dedupstore.errors import SourceError
from dedupstore.sources.bson import decimal128, raw

LABEL_MAX = 120
"""Bytes. A longer key is cut to this as a label: order stays, ties are told apart by reading on."""

RANKS = {
    raw.MIN_KEY: 0x10, raw.UNDEFINED: 0x18, raw.NULL: 0x20,
    raw.DOUBLE: 0x30, raw.INT32: 0x30, raw.INT64: 0x30, raw.DECIMAL128: 0x30,
    raw.STRING: 0x40, raw.SYMBOL: 0x40, raw.OBJECT: 0x50, raw.ARRAY: 0x58, raw.BINARY: 0x60,
    raw.OBJECT_ID: 0x68, raw.BOOL: 0x70, raw.DATE: 0x78, raw.TIMESTAMP: 0x80, raw.REGEX: 0x88,
    raw.DB_POINTER: 0x90, raw.CODE: 0x98, raw.CODE_W_SCOPE: 0xA0, raw.MAX_KEY: 0xF0,
}  # fmt: skip
"""First byte of each type's keys; the order of types is that of the server's canonical types."""

_NAN, _MINUS_INF, _BIG_NEGATIVE, _NEGATIVE = b"\x10", b"\x20", b"\x2f", b"\x30"
_ZERO, _POSITIVE, _BIG_POSITIVE, _PLUS_INF = b"\x40", b"\x50", b"\x51", b"\x60"
_LIMIT = 1 << 64
_INVERTED = bytes(255 - byte for byte in range(256))
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_LE_I32 = struct.Struct("<i")
_LE_I64 = struct.Struct("<q")
_LE_U64 = struct.Struct("<Q")
_LE_F64 = struct.Struct("<d")
_SIGN = 1 << 63


def sort_key(identity: bytes) -> bytes:
    """Return the key of an identity; ``b""`` for that of a document without ``_id``.

    A key is longer than the value by a few bytes, at most doubled by its NULs; that of a double or decimal128
    with many digits behind the point may have hundreds.
    """
    if not identity:
        return b""
    kind = identity[0]
    if kind == raw.OBJECT_ID and len(identity) == 13:
        return b"\x68" + identity[1:]
    if raw.value_end(identity, kind, 1, len(identity)) != len(identity):
        raise raw.damaged(1, "has bytes behind a value")
    scalar = _SCALARS.get(kind)
    return b"%c%b" % (RANKS[kind], scalar(identity[1:]) if scalar else _NESTED[kind](identity[1:], 1))


def label(identity: bytes) -> bytes:
    """Return `sort_key` cut to `LABEL_MAX` bytes: labels ascend where keys do; equal keys, equal labels."""
    return sort_key(identity)[:LABEL_MAX]


def _digits(text: str) -> bytes:
    """Pack decimal digits so that they compare as a fraction does; ``text`` ends in no zero."""
    if len(text) % 2:
        text += "0"
    return bytes([int(text[at : at + 2]) + 1 for at in range(0, len(text), 2)]) + b"\0"


def _fraction(text: str) -> bytes:
    """Pack the digits behind a decimal point; ``text`` may begin and end in zeros, or be all zeros."""
    text = text.rstrip("0")
    if not text:
        return b"\0"
    significant = text.lstrip("0")
    return (0xFFFF - (len(text) - len(significant))).to_bytes(2, "big") + _digits(significant)


def _signed(negative: bool, whole: int, fraction: str) -> bytes:
    """Return the body of ``whole.fraction`` with that sign."""
    if whole >= _LIMIT:
        text = str(whole)
        return _big(negative, len(text), text + fraction)
    if not whole and not fraction.strip("0"):
        return _ZERO
    magnitude = _U64.pack(whole) + _fraction(fraction)
    return _NEGATIVE + magnitude.translate(_INVERTED) if negative else _POSITIVE + magnitude


def _big(negative: bool, size: int, digits: str) -> bytes:
    """Return the body of a number of at least 2**64 that has ``size`` digits before the point."""
    magnitude = size.to_bytes(2, "big") + _digits(digits.rstrip("0"))
    return _BIG_NEGATIVE + magnitude.translate(_INVERTED) if negative else _BIG_POSITIVE + magnitude


def _integer(number: int) -> bytes:
    if number > 0:
        return b"\x50%b\0" % _U64.pack(number)
    return _signed(number < 0, -number, "")


def _int32(value: bytes) -> bytes:
    return _integer(_LE_I32.unpack(value)[0])


def _int64(value: bytes) -> bytes:
    return _integer(_LE_I64.unpack(value)[0])


def _double(value: bytes) -> bytes:
    number = _LE_F64.unpack(value)[0]
    if math.isnan(number):
        return _NAN
    if math.isinf(number):
        return _PLUS_INF if number > 0 else _MINUS_INF
    numerator, denominator = abs(number).as_integer_ratio()
    whole, rest = divmod(numerator, denominator)
    places = denominator.bit_length() - 1  # rest / 2**n is rest * 5**n / 10**n: finitely many digits
    return _signed(number < 0, whole, str(rest * 5**places).zfill(places) if rest else "")


def _decimal128(value: bytes) -> bytes:
    parts = decimal128.parts(value)
    if parts is None:
        if decimal128.is_nan(value):
            return _NAN
        return _MINUS_INF if value[15] & 0x80 else _PLUS_INF
    negative, coefficient, power = parts
    if not coefficient:
        return _ZERO
    digits = str(coefficient)
    point = len(digits) + power
    if point > 20:  # 2**64 has 20 digits
        return _big(negative, point, digits)
    if point <= 0:
        return _signed(negative, 0, "0" * -point + digits)
    digits = digits.ljust(point, "0")
    return _signed(negative, int(digits[:point]), digits[point:])


def _string(value: bytes) -> bytes:
    return value[4:-1].replace(b"\0", b"\0\xff") + b"\0"


def _object(value: bytes, depth: int) -> bytes:
    _check_depth(depth)
    parts = []
    for name, kind, start, end in raw.elements(value):
        scalar, inner = _SCALARS.get(kind), value[start:end]
        body = scalar(inner) if scalar else _NESTED[kind](inner, depth + 1)
        parts.append(b"%c%b\0%b" % (RANKS[kind], name, body))
    parts.append(b"\0")
    return b"".join(parts)


def _array(value: bytes, depth: int) -> bytes:
    _check_depth(depth)
    parts = []
    for _, kind, start, end in raw.elements(value):
        scalar, inner = _SCALARS.get(kind), value[start:end]
        parts.append(b"%c%b" % (RANKS[kind], scalar(inner) if scalar else _NESTED[kind](inner, depth + 1)))
    parts.append(b"\0")
    return b"".join(parts)


def _check_depth(depth: int) -> None:
    if depth > raw.NESTING_MAX:
        raise SourceError(
            f"an _id nests documents more than {raw.NESTING_MAX} deep, which MongoDB does not store: "
            "take the dump again"
        )


def _binary(value: bytes) -> bytes:
    return _U32.pack(len(value) - 5) + value[4:]


def _as_is(value: bytes) -> bytes:
    return value


def _date(value: bytes) -> bytes:
    return _U64.pack(_LE_U64.unpack(value)[0] ^ _SIGN)


def _timestamp(value: bytes) -> bytes:
    return value[::-1]


def _db_pointer(value: bytes) -> bytes:
    return _U32.pack(len(value) - 17) + value[4:-13] + value[-12:]


def _scoped_code(value: bytes, depth: int) -> bytes:
    scope = raw.value_end(value, raw.STRING, 4, len(value))
    return _string(value[4:scope]) + _object(value[scope:], depth)


_SCALARS: dict[int, Callable[[bytes], bytes]] = {
    raw.MIN_KEY: _as_is, raw.UNDEFINED: _as_is, raw.NULL: _as_is,
    raw.DOUBLE: _double, raw.INT32: _int32, raw.INT64: _int64, raw.DECIMAL128: _decimal128,
    raw.STRING: _string, raw.SYMBOL: _string, raw.BINARY: _binary, raw.OBJECT_ID: _as_is, raw.BOOL: _as_is,
    raw.DATE: _date, raw.TIMESTAMP: _timestamp, raw.REGEX: _as_is, raw.DB_POINTER: _db_pointer,
    raw.CODE: _string, raw.MAX_KEY: _as_is,
}  # fmt: skip
_NESTED: dict[int, Callable[[bytes, int], bytes]] = {
    raw.OBJECT: _object,
    raw.ARRAY: _array,
    raw.CODE_W_SCOPE: _scoped_code,
}
