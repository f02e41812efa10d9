"""The reading half of `extjson`: text to values of BSON, each object judged by its names.

Takes canonical and relaxed extended JSON v2, and of the older kind what differs in form only (``$binary``
beside ``$type``, a number or a text in ``$date``). ``$regex`` and ``$type`` alone are query operators and
stay what they are. Pure functions that raise `ValueError`; deep nesting raises `RecursionError`.
"""

import base64
import binascii
import json
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

from dedupstore.sources.bson import decimal128, raw

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OLD_BINARY = 2
_ID = re.compile("[0-9A-Fa-f]{24}")


def parse_value(text: str) -> tuple[int, bytes]:
    """Return type and raw value of what one JSON text stands for; raises `ValueError`."""
    value: _Value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    return _encoded(value)


def string_value(text: str) -> bytes:
    """Return the raw value of a string; lone surrogates are bytes that are no UTF-8."""
    return raw.string(text.encode("utf-8", "surrogateescape"))


def _unfit(why: str) -> ValueError:
    return ValueError(why)


class _Typed(NamedTuple):
    """A value whose type is settled."""

    kind: int
    data: bytes


class _Fields(NamedTuple):
    """An object that stands for itself."""

    pairs: "list[tuple[str, _Value]]"


_Value: TypeAlias = "_Typed | _Fields | list[_Value] | str | int | float | bool | None"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _object(pairs: list[tuple[str, _Value]]) -> _Typed | _Fields:
    """Return what an object stands for: a wrapped value, or itself."""
    if pairs and pairs[0][0][:1] == "$":
        names = tuple(sorted(name for name, _ in pairs))
        reader = _READERS.get(names)
        if reader is not None:
            values = dict(pairs)
            try:
                return reader(*(values[name] for name in names))
            except (TypeError, AttributeError, struct.error, OverflowError) as error:
                raise ValueError(f"{names[0]} holds no such value") from error
    return _Fields(pairs)


def _document(fields: _Fields) -> bytes:
    return raw.document([(_name(name), *_encoded(value)) for name, value in fields.pairs])


def _name(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError("a name holds NUL")
    return data


def _encoded(value: _Value) -> tuple[int, bytes]:
    """Return type and raw value."""
    if isinstance(value, _Typed):
        return value.kind, value.data
    if isinstance(value, _Fields):
        return raw.OBJECT, _document(value)
    if isinstance(value, list):
        return raw.ARRAY, raw.array([_encoded(each) for each in value])
    if isinstance(value, str):
        return raw.STRING, string_value(value)
    if isinstance(value, bool):
        return raw.BOOL, bytes((value,))
    if isinstance(value, int):
        if -(1 << 31) <= value < 1 << 31:
            return raw.INT32, raw.int32(value)
        if -(1 << 63) <= value < 1 << 63:
            return raw.INT64, raw.int64(value)
        return raw.DOUBLE, raw.double(_as_float(value))
    if isinstance(value, float):
        return raw.DOUBLE, raw.double(value)
    return raw.NULL, b""


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError as error:
        raise ValueError("a number is too large") from error


def _int(text: _Value) -> int:
    if not isinstance(text, str) or not re.fullmatch("-?[0-9]{1,20}", text):
        raise ValueError(f"{text!r} is no integer")
    return int(text)


def _pair(value: _Value, first: str, second: str) -> tuple[_Value, _Value]:
    """Return the two values of an object of exactly these two names."""
    if not isinstance(value, _Fields) or sorted(name for name, _ in value.pairs) != sorted((first, second)):
        raise ValueError(f"{first} and {second} are wanted, and nothing else")
    values = dict(value.pairs)
    return values[first], values[second]


def _read_double(text: str) -> _Typed:
    if not re.fullmatch(r"-?Infinity|NaN|[-+0-9.eE]+", text):
        raise ValueError(f"{text!r} is no number")
    return _Typed(raw.DOUBLE, raw.double(float(text)))


def _read_binary(value: _Value) -> _Typed:
    encoded, subtype = _pair(value, "base64", "subType")
    return _binary(encoded, subtype)


def _binary(encoded: _Value, subtype: _Value) -> _Typed:
    if not isinstance(encoded, str) or not isinstance(subtype, str):
        raise _unfit("$binary wants two texts")
    if not re.fullmatch("[0-9A-Fa-f]{1,2}", subtype):
        raise ValueError(f"{subtype!r} is no subtype")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{encoded[:60]!r} is not base64") from error
    number = int(subtype, 16)
    if number == _OLD_BINARY:
        data = raw.int32(len(data)) + data
    return _Typed(raw.BINARY, raw.binary(data, number))


def _read_uuid(text: str) -> _Typed:
    if not re.fullmatch("[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}", text):
        raise ValueError(f"{text!r} is no UUID")
    return _Typed(raw.BINARY, raw.binary(bytes.fromhex(text.replace("-", "")), 4))


def _read_id(text: str) -> _Typed:
    if not _ID.fullmatch(text):
        raise ValueError(f"{text!r} is no ObjectId: it has 24 hexadecimal digits")
    return _Typed(raw.OBJECT_ID, bytes.fromhex(text))


def _read_date(value: _Value) -> _Typed:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _Typed(raw.DATE, raw.int64((moment - _EPOCH) // timedelta(milliseconds=1)))
    if isinstance(value, _Typed) and value.kind == raw.INT64:
        return _Typed(raw.DATE, value.data)
    if isinstance(value, int) and not isinstance(value, bool):
        return _Typed(raw.DATE, raw.int64(value))
    raise ValueError("$date wants a time or $numberLong")


def _read_timestamp(value: _Value) -> _Typed:
    seconds, increment = _pair(value, "t", "i")
    if not isinstance(seconds, int) or not isinstance(increment, int):
        raise _unfit("$timestamp wants two numbers")
    return _Typed(raw.TIMESTAMP, raw.timestamp(seconds, increment))


def _read_regex(value: _Value) -> _Typed:
    pattern, options = _pair(value, "pattern", "options")
    if not isinstance(pattern, str) or not isinstance(options, str):
        raise _unfit("$regularExpression wants two texts")
    return _Typed(raw.REGEX, b"%b\0%b\0" % (_name(pattern), _name(options)))


def _read_scoped_code(code: _Value, scope: _Value) -> _Typed:
    if not isinstance(code, str) or not isinstance(scope, _Fields):
        raise _unfit("$code wants a text, $scope a document")
    inner = string_value(code) + _document(scope)
    return _Typed(raw.CODE_W_SCOPE, raw.int32(len(inner) + 4) + inner)


def _read_pointer(value: _Value) -> _Typed:
    identity, namespace = _pair(value, "$id", "$ref")
    if not isinstance(namespace, str) or not isinstance(identity, _Typed) or identity.kind != raw.OBJECT_ID:
        raise ValueError("$dbPointer wants a name and an ObjectId")
    return _Typed(raw.DB_POINTER, string_value(namespace) + identity.data)


def _only(kind: int, expected: _Value) -> Callable[[_Value], _Typed]:
    def read(value: _Value) -> _Typed:
        if value is not expected and value != expected:
            raise ValueError(f"{expected!r} is the only value of {raw.TYPE_NAMES[kind]}")
        return _Typed(kind, b"")

    return read


_READERS: dict[tuple[str, ...], Callable[..., _Typed]] = {
    ("$numberInt",): lambda text: _Typed(raw.INT32, raw.int32(_int(text))),
    ("$numberLong",): lambda text: _Typed(raw.INT64, raw.int64(_int(text))),
    ("$numberDouble",): _read_double,
    ("$numberDecimal",): lambda text: _Typed(raw.DECIMAL128, decimal128.parse(text)),
    ("$oid",): _read_id,
    ("$uuid",): _read_uuid,
    ("$binary",): _read_binary,
    ("$binary", "$type"): _binary,
    ("$date",): _read_date,
    ("$timestamp",): _read_timestamp,
    ("$regularExpression",): _read_regex,
    ("$code",): lambda text: _Typed(raw.CODE, string_value(text)),
    ("$code", "$scope"): _read_scoped_code,
    ("$symbol",): lambda text: _Typed(raw.SYMBOL, string_value(text)),
    ("$dbPointer",): _read_pointer,
    ("$undefined",): _only(raw.UNDEFINED, True),
    ("$minKey",): _only(raw.MIN_KEY, 1),
    ("$maxKey",): _only(raw.MAX_KEY, 1),
}
"""What the names of an object say it is, sorted; any other object stands for itself."""
