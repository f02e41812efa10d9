"""What a filter asks of one place in a document: comparisons, and the operators that stand beside them.

A `Condition` looks at one value; `on_path` asks it of whatever a path leads to, `on_value` of one item
(inside ``$elemMatch``). Types are bracketed as MongoDB does it: ``{$gt: 5}`` is of numbers only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from dedupstore.query.failures import bad_value, mismatch
from dedupstore.query.paths import Path, reached
from dedupstore.query.regexes import compiled
from dedupstore.query.values import (
    KIND,
    MISSING,
    NUMBERS,
    Value,
    is_nan,
    is_true,
    items,
    number_of,
    text_in,
    value_in,
    whole_number,
)
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import RANKS, sort_key

Test: TypeAlias = Callable[[bytes], bool]
"""Of a whole document, or of one value."""

TEXTS = frozenset((raw.STRING, raw.SYMBOL))
COLLATED = frozenset((raw.STRING, raw.SYMBOL, raw.OBJECT, raw.ARRAY))
"""Types whose order a collation changes."""
_TYPES: dict[str, frozenset[int]] = {name: frozenset((kind,)) for kind, name in raw.TYPE_NAMES.items()}
_TYPES["number"] = NUMBERS
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one value that is met if any value meets it."""

    test: Test
    expand: bool = True
    """Whether an array's items are looked at too, and not it alone."""


@dataclass(frozen=True, slots=True)
class Unless:
    """Met where another one is not."""

    inner: "Asked"


@dataclass(frozen=True, slots=True)
class Every:
    """Met where all are, each by a value of its own."""

    inner: tuple["Asked", ...]


@dataclass(frozen=True, slots=True)
class Never:
    """Met nowhere."""


Asked: TypeAlias = Condition | Unless | Every | Never


def on_path(asked: Asked, path: Path) -> Test:
    """Return the test of a document whose ``path`` is asked."""
    if isinstance(asked, Never):
        return lambda _: False
    if isinstance(asked, Unless):
        inner = on_path(asked.inner, path)
        return lambda doc: not inner(doc)
    if isinstance(asked, Every):
        parts = [on_path(one, path) for one in asked.inner]
        return parts[0] if len(parts) == 1 else lambda doc: all(part(doc) for part in parts)
    test, expand = asked.test, asked.expand
    if len(path) == 1:
        return _on_field(test, path[0], expand=expand)

    def found(doc: bytes) -> bool:
        for value in reached(doc, path, expand=expand):  # noqa: SIM110 - a generator more would cost
            if test(value):
                return True
        return False

    return found


def _on_field(test: Test, name: bytes, *, expand: bool) -> Test:
    """Return what `on_path` does for a path of one name, the usual case, with less ado."""
    seek = raw.seek

    def found(doc: bytes) -> bool:
        place = seek(doc, name)
        if place is None:
            return test(MISSING)
        kind, value, end = place
        if expand and kind == raw.ARRAY and any(test(value_in(doc, one)) for one in raw.elements(doc, value)):
            return True
        return test(KIND[kind] + doc[value:end])

    return found


def on_value(asked: Asked) -> Test:
    """Return the test of one value."""
    if isinstance(asked, Never):
        return lambda _: False
    if isinstance(asked, Unless):
        inner = on_value(asked.inner)
        return lambda value: not inner(value)
    if isinstance(asked, Every):
        parts = [on_value(one) for one in asked.inner]
        return lambda value: all(part(value) for part in parts)
    return asked.test


def equal(operand: Value) -> Condition:
    """Return ``$eq``; null is met by what is missing as well."""
    if operand[0] == raw.NULL:
        return Condition(lambda value: not value or value[0] == raw.NULL)
    if operand[0] == raw.UNDEFINED:
        raise bad_value("cannot compare to undefined")
    key, rank = sort_key(operand), RANKS[operand[0]]

    def test(value: Value) -> bool:
        if value == operand:
            return True
        return value != MISSING and RANKS[value[0]] == rank and sort_key(value) == key

    return Condition(test)


_ORDERS: dict[bytes, Callable[[bytes, bytes], bool]] = {
    b"$gt": lambda left, right: left > right,
    b"$gte": lambda left, right: left >= right,
    b"$lt": lambda left, right: left < right,
    b"$lte": lambda left, right: left <= right,
}


def ordered(operator: bytes, operand: Value) -> Asked:
    """Return ``$gt``, ``$gte``, ``$lt`` or ``$lte``."""
    kind = operand[0]
    if kind == raw.REGEX:
        raise bad_value("Can't have RegEx as arg to predicate over field")
    if kind == raw.UNDEFINED:
        raise bad_value("cannot compare to undefined")
    or_equal = operator.endswith(b"e")
    if kind == raw.NULL or (kind in NUMBERS and is_nan(operand)):
        return equal(operand) if or_equal else Never()
    if kind in {raw.MIN_KEY, raw.MAX_KEY}:
        return _extreme(kind, above=operator.startswith(b"$g"), or_equal=or_equal)
    key, rank, compare = sort_key(operand), RANKS[kind], _ORDERS[operator]

    def test(value: Value) -> bool:
        if not value or RANKS[value[0]] != rank:
            return False
        if value[0] in NUMBERS and is_nan(value):
            return False
        return compare(sort_key(value), key)

    return Condition(test)


def _extreme(kind: int, *, above: bool, or_equal: bool) -> Asked:
    """Return a comparison with the least or the greatest value: the only one that is of all types."""
    if above == (kind == raw.MIN_KEY):
        return Condition(lambda value: not value or value[0] != kind or or_equal)
    return Condition(lambda value: value != MISSING and value[0] == kind) if or_equal else Never()


def one_of(operand: Value) -> Condition:
    """Return ``$in``: values, null, and regular expressions."""
    if operand[0] != raw.ARRAY:
        raise bad_value("$in needs an array")
    plain: set[bytes] = set()
    texts: list[Test] = []
    null = False
    for one in items(operand):
        if one[0] == raw.REGEX:
            texts.append(pattern(one).test)
        elif (
            one[0] == raw.OBJECT
            and (_first_name(one) or b"-")[:1] == b"$"
            and _first_name(one) not in REFERENCE
        ):
            raise bad_value("cannot nest $ under $in")
        elif one[0] == raw.UNDEFINED:
            raise bad_value("cannot compare to undefined")
        else:
            null = null or one[0] == raw.NULL
            plain.add(sort_key(one))
    ranks = {key[0] for key in plain}

    def test(value: Value) -> bool:
        if not value:
            return null
        if RANKS[value[0]] in ranks and sort_key(value) in plain:
            return True
        return any(text(value) for text in texts)

    return Condition(test)


REFERENCE = frozenset((b"$ref", b"$id", b"$db"))
"""Names that begin with a dollar sign and are no operators: those of a reference to another document."""


def _first_name(document: Value) -> bytes:
    return next((element.name for element in raw.elements(document, 1)), b"")


def pattern(expression: Value, options: str | None = None) -> Condition:
    """Return the test by a regular expression: of texts, or of the same expression."""
    if expression[0] == raw.REGEX:
        text, own, _ = expression[1:].split(b"\0")
        written = text.decode("utf-8", "surrogateescape")
        letters = own.decode("ascii", "replace") if options is None else options
    else:
        written, letters = text_in(expression), options or ""
    search = compiled(written, letters).search

    def test(value: Value) -> bool:
        if not value:
            return False
        if value[0] in TEXTS:
            return search(raw.text_of(value[1:]).decode("utf-8", "surrogateescape")) is not None
        return value[0] == raw.REGEX and value == expression

    return Condition(test)


def exists(operand: Value) -> Asked:
    """Return ``$exists``."""
    there = Condition(lambda value: value != MISSING, expand=False)
    return there if is_true(operand) else Unless(there)


def of_type(operand: Value) -> Condition:
    """Return ``$type``: an alias, a number, or an array of them."""
    wanted: set[int] = set()
    named = items(operand) if operand[0] == raw.ARRAY else [operand]
    if not named:
        raise bad_value("$type must match at least one type")
    for one in named:
        if one[0] in TEXTS:
            name = text_in(one)
            if name not in _TYPES:
                raise bad_value(f"Unknown type name alias: {name}")
            wanted |= _TYPES[name]
        elif one[0] in NUMBERS:
            code = whole_number(one)
            if code == -1:
                code = raw.MIN_KEY
            if code not in raw.TYPE_NAMES or whole_number(one) == raw.MIN_KEY:
                raise bad_value(f"Invalid numerical type code: {number_of(one)}")
            wanted.add(int(code))
        else:
            raise mismatch("type must be represented as a number or a string")
    return Condition(lambda value: value != MISSING and value[0] in wanted)


def of_size(operand: Value) -> Condition:
    """Return ``$size``."""
    wanted = whole_number(operand)
    if wanted is None or wanted < 0:
        raise bad_value(
            f"Failed to parse $size. Expected a whole number that is not negative: {number_of(operand)}"
        )
    return Condition(
        lambda value: (
            value != MISSING and value[0] == raw.ARRAY and sum(1 for _ in raw.elements(value, 1)) == wanted
        ),
        expand=False,
    )


def remainder(operand: Value) -> Condition:
    """Return ``$mod``."""
    given = items(operand) if operand[0] == raw.ARRAY else []
    if len(given) != 2:
        raise bad_value("malformed mod, needs an array of two numbers: the divisor and the remainder")
    divisor, wanted = (_truncated(one) for one in given)
    if divisor is None or wanted is None:
        raise bad_value("malformed mod, divisor and remainder must be numbers")
    if divisor == 0:
        raise bad_value("divisor cannot be 0")
    size, rest, sign = abs(divisor), abs(wanted), wanted < 0

    def test(value: Value) -> bool:
        number = _truncated(value) if value and value[0] in NUMBERS else None
        if number is None or abs(number) % size != rest:
            return False
        return rest == 0 or (number < 0) == sign

    return Condition(test)


def _truncated(value: Value) -> int | None:
    number = number_of(value)
    try:
        whole = None if number is None else int(number)
    except (ValueError, OverflowError):
        return None
    return None if whole is None or not -_INT64 <= whole < _INT64 else whole


def every_item(asked: Sequence[Asked]) -> Condition:
    """Return ``$elemMatch`` of values: one item meets all."""
    tests = [on_value(one) for one in asked]

    def test(value: Value) -> bool:
        if not value or value[0] != raw.ARRAY:
            return False
        return any(all(check(item) for check in tests) for item in items(value))

    return Condition(test, expand=False)


def some_document(meets: Test) -> Condition:
    """Return ``$elemMatch`` of documents: one item, a document or an array, meets the filter."""

    def test(value: Value) -> bool:
        if not value or value[0] != raw.ARRAY:
            return False
        return any(item[0] in {raw.OBJECT, raw.ARRAY} and meets(item[1:]) for item in items(value))

    return Condition(test, expand=False)
