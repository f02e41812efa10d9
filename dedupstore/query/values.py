"""Values as the engine handles them: one type byte and the raw bytes, as identities are; numbers among them.

A value that is not there is `MISSING`. Values are never inflated: what is only passed on keeps its bytes.
Pure functions.
"""

import math
import struct
from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Final, TypeAlias

from dedupstore.query.failures import Failure, QueryError
from dedupstore.sources.bson import decimal128, raw

Value: TypeAlias = bytes
"""A type byte and the raw value; see `dedupstore.sources.bson.raw`."""
Number: TypeAlias = int | float | Decimal

KIND: Final = tuple(bytes((number,)) for number in range(256))
"""The type byte of each type as bytes."""
MISSING: Final[Value] = b""
NULL: Final[Value] = KIND[raw.NULL]
TRUE: Final[Value] = KIND[raw.BOOL] + b"\1"
FALSE: Final[Value] = KIND[raw.BOOL] + b"\0"
NUMBERS: Final = frozenset((raw.DOUBLE, raw.INT32, raw.INT64, raw.DECIMAL128))
_NO_VALUE = frozenset((raw.NULL, raw.UNDEFINED))

_INT32_LIMIT, _INT64_LIMIT = 1 << 31, 1 << 63
_F64 = struct.Struct("<d")
DECIMAL = Context(prec=decimal128.DIGITS, Emin=-6143, Emax=6144, traps=[])
"""How numbers of type decimal are calculated with."""


def value_in(data: bytes, element: raw.Element) -> Value:
    """Return the value of a field of ``data``."""
    return KIND[element.type] + data[element.start : element.end]


def field_of(name: bytes, value: Value) -> bytes:
    """Return a field as it lies in a document."""
    return b"%b%b\0%b" % (value[:1], name, value[1:])


def document_value(doc: bytes) -> Value:
    """Return a document as a value."""
    return KIND[raw.OBJECT] + doc


def array_value(values: Iterable[Value]) -> Value:
    """Return an array of values."""
    parts = [b"%b%d\0%b" % (value[:1], number, value[1:]) for number, value in enumerate(values)]
    return KIND[raw.ARRAY] + raw.framed(b"".join(parts))


def text_value(text: str | bytes) -> Value:
    """Return a string."""
    return KIND[raw.STRING] + raw.string(text)


def bool_value(truth: bool) -> Value:
    """Return a truth value."""
    return TRUE if truth else FALSE


def integer_value(number: int, *, long: bool = False) -> Value:
    """Return a whole number: an int if it fits (and not ``long``), else a long, else a double."""
    if not long and -_INT32_LIMIT <= number < _INT32_LIMIT:
        return KIND[raw.INT32] + raw.int32(number)
    if -_INT64_LIMIT <= number < _INT64_LIMIT:
        return KIND[raw.INT64] + raw.int64(number)
    return double_value(float(number))


def double_value(number: float) -> Value:
    """Return a double."""
    return KIND[raw.DOUBLE] + raw.double(number)


def decimal_value(number: Decimal) -> Value:
    """Return a decimal, rounded to 34 digits."""
    rounded = DECIMAL.plus(number)
    try:
        return KIND[raw.DECIMAL128] + decimal128.parse(str(rounded))
    except ValueError as error:
        raise QueryError(Failure.Overflow, f"{rounded} does not fit a decimal") from error


def number_of(value: Value) -> Number | None:
    """Return the number that a value is; None if it is none."""
    kind = value[0] if value else 0
    if kind == raw.DOUBLE:
        return float(_F64.unpack_from(value, 1)[0])
    if kind in {raw.INT32, raw.INT64}:
        return raw.int_of(kind, value[1:])
    if kind == raw.DECIMAL128:
        return _decimal(value[1:])
    return None


def _decimal(value: bytes) -> Decimal:
    parts = decimal128.parts(value)
    if parts is None:
        return Decimal(decimal128.text(value))
    negative, coefficient, power = parts
    return Decimal((int(negative), tuple(map(int, str(coefficient))), power))


def is_nan(value: Value) -> bool:
    """Tell whether a value is not a number, of either type that has that."""
    if value[0] == raw.DOUBLE:
        return math.isnan(_F64.unpack_from(value, 1)[0])
    return value[0] == raw.DECIMAL128 and decimal128.is_nan(value[1:])


def whole_number(value: Value) -> int | None:
    """Return the whole number that a value is, of whatever type; None if it is none."""
    number = number_of(value)
    if number is None or (isinstance(number, int)):
        return number
    if not math.isfinite(number) or number != int(number):
        return None
    return int(number)


def is_true(value: Value) -> bool:
    """Tell what a value counts as where a truth is wanted."""
    if not value or value[0] in _NO_VALUE:
        return False
    if value[0] == raw.BOOL:
        return value[1] != 0
    number = number_of(value)
    return number is None or number != 0


def nothing(value: Value) -> bool:
    """Tell whether a value is missing, null or undefined."""
    return not value or value[0] in _NO_VALUE


def kind_name(value: Value) -> str:
    """Return what MongoDB calls the type of a value."""
    return raw.TYPE_NAMES[value[0]] if value else "missing"


def text_in(value: Value) -> str:
    """Return the text of a string; what is no UTF-8 in it becomes lone surrogates."""
    return raw.text_of(value[1:]).decode("utf-8", "surrogateescape")


def items(value: Value) -> list[Value]:
    """Return the values in an array (or of a document's fields)."""
    return [value_in(value, element) for element in raw.elements(value, 1)]


def fields(value: Value) -> list[tuple[bytes, Value]]:
    """Return names and values in a document."""
    return [(element.name, value_in(value, element)) for element in raw.elements(value, 1)]
