"""Adding numbers up as MongoDB does: whole numbers exactly, doubles without loss, decimals to 34 digits.

The widest type met is that of the result. Not thread-safe; memory: a few doubles.
"""

import math
from decimal import Decimal

from dedupstore.query.values import (
    DECIMAL,
    Value,
    decimal_value,
    double_value,
    integer_value,
    number_of,
)
from dedupstore.sources.bson import raw


class Total:
    """A sum that grows."""

    def __init__(self) -> None:
        self.count = 0
        """Numbers that were added."""
        self._whole = 0
        self._parts: list[float] = []
        """Doubles that do not overlap, whose sum is exact (Shewchuk)."""
        self._odd = 0.0
        """Infinities and NaN."""
        self._decimal = Decimal(0)
        self._widest = raw.INT32

    def add(self, value: Value) -> None:
        """Add a value; what is no number is passed over."""
        number = number_of(value)
        if number is None:
            return
        self.count += 1
        kind = value[0]
        if isinstance(number, Decimal):
            self._decimal = DECIMAL.add(self._decimal, number)
            self._widest = kind
        elif isinstance(number, float):
            self._double(number)
            if self._widest != raw.DECIMAL128:
                self._widest = raw.DOUBLE
        elif isinstance(number, int):
            self._whole += number
            if kind == raw.INT64 and self._widest == raw.INT32:
                self._widest = kind

    def _double(self, number: float) -> None:
        if not math.isfinite(number):
            self._odd += number
            return
        kept = 0
        for part in self._parts:
            if abs(number) < abs(part):
                number, part = part, number
            high = number + part
            low = part - (high - number)
            if low:
                self._parts[kept] = low
                kept += 1
            number = high
        if math.isfinite(number):
            self._parts[kept:] = [number]
        else:
            self._odd += number

    def value(self) -> Value:
        """Return the sum."""
        if self._widest == raw.DECIMAL128:
            return decimal_value(self._as_decimal())
        if self._widest == raw.DOUBLE:
            return double_value(self._as_double())
        return integer_value(self._whole, long=self._widest == raw.INT64)

    def average(self) -> Value | None:
        """Return the mean; None of nothing."""
        if not self.count:
            return None
        if self._widest == raw.DECIMAL128:
            return decimal_value(DECIMAL.divide(self._as_decimal(), Decimal(self.count)))
        return double_value(self._as_double() / self.count)

    @property
    def _is_odd(self) -> bool:
        return self._odd != 0  # also true of NaN

    def _as_double(self) -> float:
        if self._is_odd:
            return self._odd
        try:
            # A whole number of any length in doubles that lose nothing of it.
            high = float(self._whole)
            return math.fsum([*self._parts, high, float(self._whole - int(high))])
        except OverflowError:
            return math.inf if self._whole > 0 or sum(self._parts) > 0 else -math.inf

    def _as_decimal(self) -> Decimal:
        whole = DECIMAL.add(self._decimal, Decimal(self._whole))
        if not self._parts and not self._is_odd:
            return whole  # adding 0.0 would give it another digit
        doubles = self._odd if self._is_odd else math.fsum(self._parts)
        return DECIMAL.add(whole, DECIMAL.create_decimal(repr(doubles)))
