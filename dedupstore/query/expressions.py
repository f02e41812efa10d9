"""Expressions of pipelines: ``"$a.b"``, constants, documents, and the operators in `OPERATORS`.

An operator or a variable that is not known is refused by name. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dedupstore.query import arithmetic
from dedupstore.query.failures import Failure, QueryError, bad_value, not_done
from dedupstore.query.paths import along, split
from dedupstore.query.values import (
    MISSING,
    NULL,
    NUMBERS,
    Value,
    array_value,
    bool_value,
    document_value,
    field_of,
    fields,
    integer_value,
    is_true,
    items,
    kind_name,
    nothing,
    text_value,
    whole_number,
)
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key

Expression: TypeAlias = Callable[[bytes], Value]
"""From a document to a value; `MISSING` where there is none."""
Function: TypeAlias = Callable[[Sequence[Value]], Value]

DEEPEST: Final = 100


def constant(value: Value) -> Expression:
    """Return the expression that is always the same."""
    return lambda _: value


def parse_expression(value: Value, depth: int = 0) -> Expression:
    """Read an expression. Raises `QueryError`."""
    if depth > DEEPEST:
        raise bad_value(f"exceeded maximum nesting of {DEEPEST} in an expression")
    kind = value[0]
    if kind == raw.STRING:
        text = raw.text_of(value[1:])
        return _path(text) if text.startswith(b"$") else constant(value)
    if kind == raw.ARRAY:
        each = [parse_expression(one, depth + 1) for one in items(value)]
        return lambda doc: array_value(one(doc) or NULL for one in each)
    if kind != raw.OBJECT:
        return constant(value)
    given = fields(value)
    if given and given[0][0].startswith(b"$"):
        if len(given) != 1:
            raise QueryError(
                Failure.Location15983, "an expression specification must contain exactly one field"
            )
        return _operator(given[0][0], given[0][1], depth)
    return _document(given, depth)


def _path(text: bytes) -> Expression:
    if text.startswith(b"$$"):
        variable, _, rest = text[2:].partition(b".")
        if variable in {b"ROOT", b"CURRENT"}:
            if not rest:
                return document_value
            return _along(rest)
        if variable == b"REMOVE" and not rest:
            return constant(MISSING)
        raise not_done(f"the variable $${variable.decode('utf-8', 'backslashreplace')}")
    return _along(text[1:])


def _along(text: bytes) -> Expression:
    path = split(text)
    if b"" in path or any(name.startswith(b"$") for name in path):
        raise QueryError(
            Failure.Location16410, f"'${text.decode('utf-8', 'backslashreplace')}' is no field path"
        )
    return lambda doc: along(doc, path)


def _document(given: list[tuple[bytes, Value]], depth: int) -> Expression:
    parts = []
    for name, value in given:
        if name.startswith(b"$") or b"." in name:
            raise QueryError(
                Failure.Location16410,
                f"FieldPath field names may not have dots or begin with $: {name.decode('utf-8', 'replace')}",
            )
        parts.append((name, parse_expression(value, depth + 1)))

    def build(doc: bytes) -> Value:
        found = [(name, part(doc)) for name, part in parts]
        return document_value(raw.framed(b"".join([field_of(name, value) for name, value in found if value])))

    return build


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator that takes all its operands at once."""

    apply: Function
    least: int = 0
    most: int = 1 << 30


def _operator(name: bytes, value: Value, depth: int) -> Expression:
    shown = name.decode("utf-8", "backslashreplace")
    if name == b"$literal":
        return constant(value)
    if name == b"$cond" and value[0] == raw.OBJECT:
        return _cond(value, depth)
    known = OPERATORS.get(name)
    if known is None:
        raise not_done(f"the expression operator {shown}")
    given = items(value) if value[0] == raw.ARRAY else [value]
    if not known.least <= len(given) <= known.most:
        raise QueryError(
            Failure.Location16020, f"Expression {shown} takes another number of arguments than {len(given)}"
        )
    operands = [parse_expression(one, depth + 1) for one in given]
    if name in _LAZY:
        return _LAZY[name](operands)
    apply = known.apply
    return lambda doc: apply([operand(doc) for operand in operands])


def _cond(value: Value, depth: int) -> Expression:
    given = dict(fields(value))
    if given.keys() != {b"if", b"then", b"else"}:
        raise bad_value("$cond needs 'if', 'then' and 'else'")
    return _choose([parse_expression(given[part], depth + 1) for part in (b"if", b"then", b"else")])


def _choose(operands: Sequence[Expression]) -> Expression:
    condition, then, other = operands
    return lambda doc: then(doc) if is_true(condition(doc)) else other(doc)


def _first_there(operands: Sequence[Expression]) -> Expression:
    *tried, last = operands

    def first(doc: bytes) -> Value:
        for one in tried:
            value = one(doc)
            if not nothing(value):
                return value
        return last(doc)

    return first


def _all_true(operands: Sequence[Expression]) -> Expression:
    return lambda doc: bool_value(all(is_true(one(doc)) for one in operands))


def _any_true(operands: Sequence[Expression]) -> Expression:
    return lambda doc: bool_value(any(is_true(one(doc)) for one in operands))


_LAZY: Final[dict[bytes, Callable[[Sequence[Expression]], Expression]]] = {
    b"$cond": _choose,
    b"$ifNull": _first_there,
    b"$and": _all_true,
    b"$or": _any_true,
}
"""Operators that do not look at all their operands."""


def _compared(holds: Callable[[bytes, bytes], bool]) -> Function:
    return lambda values: bool_value(holds(sort_key(values[0]), sort_key(values[1])))


def _order(values: Sequence[Value]) -> Value:
    left, right = map(sort_key, values)
    return integer_value((left > right) - (left < right))


def _size(values: Sequence[Value]) -> Value:
    if not values[0] or values[0][0] != raw.ARRAY:
        raise QueryError(
            Failure.Location17124,
            f"The argument to $size must be an array, but was of type: {kind_name(values[0])}",
        )
    return integer_value(len(items(values[0])))


def _item(values: Sequence[Value]) -> Value:
    array, place = values
    if nothing(array) or nothing(place):
        return NULL
    number = whole_number(place) if place[0] in NUMBERS else None
    if array[0] != raw.ARRAY or number is None:
        raise bad_value("$arrayElemAt needs an array and a whole number")
    found = items(array)
    return found[number] if -len(found) <= number < len(found) else MISSING


def _is_in(values: Sequence[Value]) -> Value:
    if not values[1] or values[1][0] != raw.ARRAY:
        raise bad_value(f"$in requires an array as a second argument, found: {kind_name(values[1])}")
    key = sort_key(values[0])
    return bool_value(any(sort_key(one) == key for one in items(values[1])))


def _concat(values: Sequence[Value]) -> Value:
    if any(nothing(value) for value in values):
        return NULL
    for value in values:
        if value[0] != raw.STRING:
            raise QueryError(Failure.Location16702, f"$concat only supports strings, not {kind_name(value)}")
    return text_value(b"".join(raw.text_of(value[1:]) for value in values))


def _concat_arrays(values: Sequence[Value]) -> Value:
    if any(nothing(value) for value in values):
        return NULL
    if any(value[0] != raw.ARRAY for value in values):
        raise bad_value("$concatArrays only supports arrays")
    return array_value(one for value in values for one in items(value))


def _recased(change: Callable[[bytes], bytes], name: str) -> Function:
    def apply(values: Sequence[Value]) -> Value:
        if nothing(values[0]):
            return text_value(b"")
        if values[0][0] != raw.STRING:
            raise not_done(f"{name} of a {kind_name(values[0])}")
        return text_value(change(raw.text_of(values[0][1:])))  # bytes: ASCII alone, as MongoDB does

    return apply


OPERATORS: Final[dict[bytes, Operator]] = {
    b"$add": Operator(arithmetic.add),
    b"$subtract": Operator(arithmetic.subtract, 2, 2),
    b"$multiply": Operator(arithmetic.multiply),
    b"$divide": Operator(arithmetic.divide, 2, 2),
    b"$mod": Operator(arithmetic.modulo, 2, 2),
    b"$abs": Operator(arithmetic.absolute, 1, 1),
    b"$cmp": Operator(_order, 2, 2),
    b"$eq": Operator(_compared(lambda left, right: left == right), 2, 2),
    b"$ne": Operator(_compared(lambda left, right: left != right), 2, 2),
    b"$gt": Operator(_compared(lambda left, right: left > right), 2, 2),
    b"$gte": Operator(_compared(lambda left, right: left >= right), 2, 2),
    b"$lt": Operator(_compared(lambda left, right: left < right), 2, 2),
    b"$lte": Operator(_compared(lambda left, right: left <= right), 2, 2),
    b"$and": Operator(lambda values: values[0]),
    b"$or": Operator(lambda values: values[0]),
    b"$not": Operator(lambda values: bool_value(not is_true(values[0])), 1, 1),
    b"$cond": Operator(lambda values: values[0], 3, 3),
    b"$ifNull": Operator(lambda values: values[0], 2),
    b"$size": Operator(_size, 1, 1),
    b"$arrayElemAt": Operator(_item, 2, 2),
    b"$isArray": Operator(lambda values: bool_value(values[0][:1] == b"\x04"), 1, 1),
    b"$in": Operator(_is_in, 2, 2),
    b"$concat": Operator(_concat),
    b"$concatArrays": Operator(_concat_arrays),
    b"$toLower": Operator(_recased(bytes.lower, "$toLower"), 1, 1),
    b"$toUpper": Operator(_recased(bytes.upper, "$toUpper"), 1, 1),
    b"$type": Operator(lambda values: text_value(kind_name(values[0])), 1, 1),
}
"""All that there are; the ones in `_LAZY` are here for their numbers of operands."""
