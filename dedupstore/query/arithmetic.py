"""Numbers in expressions: the result has the wider type of its operands, whole numbers stay whole.

A whole number that would not fit a long is refused: MongoDB's versions differ in what they make of it.
"""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import reduce

from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.values import (
    DECIMAL,
    NULL,
    Number,
    Value,
    decimal_value,
    double_value,
    integer_value,
    kind_name,
    nothing,
    number_of,
)
from dedupstore.sources.bson import raw

_INT64 = 1 << 63


def _operands(name: str, values: Sequence[Value]) -> list[Number] | None:
    """Return the numbers; None if one is null or missing."""
    if any(nothing(value) for value in values):
        return None
    found = []
    for value in values:
        number = number_of(value)
        if number is None:
            raise QueryError(
                Failure.TypeMismatch, f"{name} only supports numeric types, not {kind_name(value)}"
            )
        found.append(number)
    return found


def _as_decimal(number: Number) -> Decimal:
    if isinstance(number, float):
        return DECIMAL.create_decimal(f"{number:.15g}")
    return number if isinstance(number, Decimal) else Decimal(number)


def _packed(name: str, number: Number, values: Sequence[Value]) -> Value:
    if isinstance(number, Decimal):
        return decimal_value(number)
    if isinstance(number, float):
        return double_value(number)
    if not -_INT64 <= number < _INT64:
        raise QueryError(Failure.Overflow, f"{name} of whole numbers does not fit a long")
    return integer_value(number, long=any(value[0] == raw.INT64 for value in values))


def _folded(
    name: str,
    plain: Callable[[Number, Number], Number],
    exact: Callable[[Decimal, Decimal], Decimal],
    start: int,
) -> Callable[[Sequence[Value]], Value]:
    def apply(values: Sequence[Value]) -> Value:
        numbers = _operands(name, values)
        if numbers is None:
            return NULL
        if any(isinstance(number, Decimal) for number in numbers):
            return decimal_value(reduce(exact, map(_as_decimal, numbers), Decimal(start)))
        total: Number = start if numbers or start else 0
        for number in numbers:
            total = plain(total, number)
        return _packed(name, total, values)

    return apply


def _plus(left: Number, right: Number) -> Number:
    return left + right  # type: ignore[operator]


def _times(left: Number, right: Number) -> Number:
    return left * right  # type: ignore[operator]


add = _folded("$add", _plus, DECIMAL.add, 0)
multiply = _folded("$multiply", _times, DECIMAL.multiply, 1)


def subtract(values: Sequence[Value]) -> Value:
    """Return the difference of two numbers; null if one is null."""
    numbers = _operands("$subtract", values)
    if numbers is None:
        return NULL
    left, right = numbers
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return decimal_value(DECIMAL.subtract(_as_decimal(left), _as_decimal(right)))
    return _packed("$subtract", left - right, values)


def divide(values: Sequence[Value]) -> Value:
    """Return the quotient of two numbers, a double or a decimal; null if one is null."""
    numbers = _operands("$divide", values)
    if numbers is None:
        return NULL
    left, right = numbers
    if right == 0:
        raise QueryError(Failure.BadValue, "can't $divide by zero")
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return decimal_value(DECIMAL.divide(_as_decimal(left), _as_decimal(right)))
    return double_value(float(left) / float(right))


def modulo(values: Sequence[Value]) -> Value:
    """Return the remainder, with the sign of the dividend; null if an operand is null."""
    numbers = _operands("$mod", values)
    if numbers is None:
        return NULL
    left, right = numbers
    if right == 0:
        raise QueryError(Failure.BadValue, "can't $mod by zero")
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return decimal_value(DECIMAL.remainder(_as_decimal(left), _as_decimal(right)))
    if isinstance(left, float) or isinstance(right, float):
        return double_value(math.fmod(left, right))
    rest = abs(left) % abs(right)
    return _packed("$mod", -rest if left < 0 else rest, values)


def absolute(values: Sequence[Value]) -> Value:
    """Return a number without its sign."""
    numbers = _operands("$abs", values)
    if numbers is None:
        return NULL
    number = numbers[0]
    return _packed("$abs", number if number >= 0 else -number, values)
