"""Decimal128 as BSON stores it: taken apart, written out, read in.

Sixteen bytes, little-endian: a sign, a power of ten with `BIAS` added, and a coefficient of up to 34 digits
as a binary number. Pure functions.
"""

import re
import struct
from decimal import Decimal

from dedupstore.model import Data

BIAS = 6176
DIGITS = 34
_POWER_MIN, _POWER_MAX = -BIAS, 6111
_NUMBER = re.compile(r"([-+]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,9}))?")
_WORD = re.compile(r"([-+]?)(nan|inf(?:inity)?)", re.IGNORECASE)
_NAN, _INFINITE = 0x7C, 0x78
"""What the last byte's bits below the sign hold for what is no number."""


def is_nan(value: Data) -> bool:
    """Tell whether a value is NaN, quiet or signalling."""
    return value[15] & _NAN == _NAN


def parts(value: Data) -> tuple[bool, int, int] | None:
    """Return (negative, coefficient, power of ten) of a value; None if it is NaN or infinite.

    A coefficient of more than 34 digits counts as zero, as the standard has it.
    """
    low, high = struct.unpack_from("<QQ", value)
    negative = bool(high >> 63)
    if high >> 61 & 3 == 3:
        if high >> 59 & 0xF == 0xF:
            return None
        return negative, 0, (high >> 47 & 0x3FFF) - BIAS
    coefficient = (high & 0x1_FFFF_FFFF_FFFF) << 64 | low
    if coefficient >= 10**DIGITS:
        coefficient = 0
    return negative, coefficient, (high >> 49 & 0x3FFF) - BIAS


def text(value: Data) -> str:
    """Return a value as extended JSON writes it: digits and exponent kept, so 1.0 is not 1.00."""
    found = parts(value)
    if found is None:
        return "NaN" if is_nan(value) else ("-" if value[15] & 0x80 else "") + "Infinity"
    negative, coefficient, power = found
    return str(Decimal((int(negative), tuple(map(int, str(coefficient))), power)))


def parse(written: str) -> bytes:
    """Return the encoding of what `text` writes; raises `ValueError` for what it can not hold exactly."""
    word = _WORD.fullmatch(written)
    if word:
        last = _NAN if word[2].lower() == "nan" else _INFINITE
        return bytes(15) + bytes((last | (0x80 if word[1] == "-" else 0),))
    number = _NUMBER.fullmatch(written)
    if number is None or not (number[2] or number[3]):
        raise ValueError(f"{written[:60]!r} is no decimal number")
    fraction = number[3] or ""
    digits = (number[2] + fraction).lstrip("0")
    power = int(number[4] or 0) - len(fraction)
    if not digits:
        return _packed(number[1] == "-", 0, min(max(power, _POWER_MIN), _POWER_MAX))
    # Zeros at the end go while there are too many digits or too small a power; too large a power brings some.
    surplus = max(len(digits) - DIGITS, _POWER_MIN - power, 0)
    if surplus >= len(digits) or (surplus and digits[-surplus:].strip("0")):
        raise ValueError(f"{written[:60]!r} does not fit a decimal128")
    digits, power = digits[: len(digits) - surplus], power + surplus
    missing = max(power - _POWER_MAX, 0)
    if len(digits) + missing > DIGITS:
        raise ValueError(f"{written[:60]!r} does not fit a decimal128")
    return _packed(number[1] == "-", int(digits + "0" * missing), power - missing)


def _packed(negative: bool, coefficient: int, power: int) -> bytes:
    """34 digits need 113 bits, so the form with fewer bits of power never comes up."""
    high = negative << 63 | (power + BIAS) << 49 | coefficient >> 64
    return struct.pack("<QQ", coefficient & (1 << 64) - 1, high)
