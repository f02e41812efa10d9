"""Filters: from a query document to a test of documents, and to what it says of ``_id``.

What is not known is refused by name. Memory: a few times the query's own. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dedupstore.query import conditions
from dedupstore.query.conditions import COLLATED, REFERENCE, TEXTS, Asked, Every, Test, Unless, on_path
from dedupstore.query.expressions import parse_expression
from dedupstore.query.failures import bad_value, not_done
from dedupstore.query.paths import split
from dedupstore.query.values import Value, document_value, fields, is_true, items, kind_name, text_in
from dedupstore.sources.bson import raw

DEEPEST: Final = 100
"""Levels of operators inside operators."""

_NOT_DONE = frozenset(
    (b"$where", b"$text", b"$jsonSchema", b"$sampleRate", b"$alwaysTrue", b"$alwaysFalse", b"$near",
     b"$nearSphere", b"$geoWithin", b"$geoIntersects", b"$geoNear", b"$within", b"$maxDistance",
     b"$minDistance", b"$bitsAllSet", b"$bitsAnySet", b"$bitsAllClear", b"$bitsAnyClear")
)  # fmt: skip
_ORDERED = frozenset((b"$gt", b"$gte", b"$lt", b"$lte"))


@dataclass(frozen=True, slots=True)
class OnId:
    """One thing that every document that fits has in its ``_id``: an operator and its operand."""

    operator: bytes
    """``$eq``, ``$in`` or a comparison."""
    operand: Value


@dataclass(frozen=True, slots=True)
class Filter:
    """A query, read."""

    test: Test
    ids: tuple[OnId, ...] = ()
    """What it says of ``_id``, all of which a document must meet."""
    everything: bool = False
    """Whether every document fits."""
    collated: bool = False
    """Whether it compares texts, so that a collation would matter."""


@dataclass
class _Reading:
    """What is gathered while a filter is read."""

    ids: list[OnId] = field(default_factory=list)
    collated: bool = False


def parse_filter(query: bytes) -> Filter:
    """Read a query document. Raises `QueryError`."""
    reading = _Reading()
    tests = _document(query, reading, 0, top=True)
    ids = tuple(reading.ids)
    if not tests:
        return Filter(lambda _: True, ids, everything=True)
    if len(tests) == 1:
        return Filter(tests[0], ids, collated=reading.collated)
    return Filter(_all(tests), ids, collated=reading.collated)


def _all(tests: list[Test]) -> Test:
    return tests[0] if len(tests) == 1 else lambda doc: all(test(doc) for test in tests)


def _document(query: bytes, reading: _Reading, depth: int, *, top: bool = False) -> list[Test]:
    """Return the tests that a document must all pass; ``top``: what is said of ``_id`` holds for all."""
    if depth > DEEPEST:
        raise bad_value(f"exceeded maximum nesting of {DEEPEST} in a filter")
    tests: list[Test] = []
    for name, value in fields(document_value(query)):
        if name.startswith(b"$") and name not in REFERENCE:
            tests += _joined(name, value, reading, depth, top=top)
            continue
        asked = _field(name, value, reading, depth, top=top)
        tests.append(on_path(asked, split(name)))
    return tests


def _joined(name: bytes, value: Value, reading: _Reading, depth: int, *, top: bool) -> list[Test]:
    """Return the tests that a top-level operator stands for."""
    shown = name.decode("utf-8", "backslashreplace")
    if name == b"$comment":
        return []
    if name == b"$expr":
        reading.collated = True
        expression = parse_expression(value)
        return [lambda doc: is_true(expression(doc))]
    if name not in {b"$and", b"$or", b"$nor"}:
        if name in _NOT_DONE:
            raise not_done(f"the query operator {shown}")
        raise bad_value(f"unknown top level operator: {shown}")
    if value[0] != raw.ARRAY:
        raise bad_value(f"{shown} must be an array")
    clauses = items(value)
    if not clauses:
        raise bad_value("$and/$or/$nor must be a nonempty array")
    if any(clause[0] != raw.OBJECT for clause in clauses):
        raise bad_value("$or/$and/$nor entries need to be full objects")
    keep = top and name == b"$and"
    each = [_all_or_true(_document(clause[1:], reading, depth + 1, top=keep)) for clause in clauses]
    if name == b"$and":
        return each
    if name == b"$or":
        return [lambda doc: any(test(doc) for test in each)]
    return [lambda doc: not any(test(doc) for test in each)]


def _all_or_true(tests: list[Test]) -> Test:
    return _all(tests) if tests else lambda _: True


def _field(name: bytes, value: Value, reading: _Reading, depth: int, *, top: bool) -> Asked:
    """Return what is asked of one field."""
    if value[0] == raw.REGEX:
        reading.collated = True
        return conditions.pattern(value)
    if value[0] == raw.OBJECT and _is_operators(value):
        asked = _operators(value, reading, depth)
        if top and name == b"_id":
            known = {b"$eq", b"$in"} | _ORDERED
            reading.ids += [OnId(each, operand) for each, operand in fields(value) if each in known]
        return asked
    if top and name == b"_id":
        reading.ids.append(OnId(b"$eq", value))
    reading.collated = reading.collated or value[0] in COLLATED
    return conditions.equal(value)


def _is_operators(value: Value) -> bool:
    first = next((element.name for element in raw.elements(value, 1)), b"")
    return first.startswith(b"$") and first not in REFERENCE


def _operators(value: Value, reading: _Reading, depth: int) -> Asked:
    """Return what a document of operators asks, such as ``{$gt: 1, $lt: 5}``."""
    if depth > DEEPEST:
        raise bad_value(f"exceeded maximum nesting of {DEEPEST} in a filter")
    given = fields(value)
    options = next((one for name, one in given if name == b"$options"), None)
    if options is not None and not any(name == b"$regex" for name, _ in given):
        raise bad_value("$options needs a $regex")
    found: list[Asked] = []
    for name, operand in given:
        if name == b"$options":
            continue
        reading.collated = reading.collated or operand[0] in COLLATED or operand[0] == raw.REGEX
        found.append(_operator(name, operand, options, reading, depth))
    return found[0] if len(found) == 1 else Every(tuple(found))


def _operator(name: bytes, operand: Value, options: Value | None, reading: _Reading, depth: int) -> Asked:
    if name in _ORDERED:
        return conditions.ordered(name, operand)
    plain = _PLAIN.get(name)
    if plain is not None:
        return plain(operand)
    if name == b"$regex":
        return _regex(operand, options)
    if name == b"$not":
        return _negated(operand, reading, depth)
    if name == b"$all":
        return _all_of(operand, reading, depth)
    if name == b"$elemMatch":
        return _element(operand, reading, depth)
    shown = name.decode("utf-8", "backslashreplace")
    if name in _NOT_DONE:
        raise not_done(f"the query operator {shown}")
    raise bad_value(f"unknown operator: {shown}")


def _not_equal(operand: Value) -> Asked:
    if operand[0] == raw.REGEX:
        raise bad_value("Can't have regex as arg to $ne.")
    return Unless(conditions.equal(operand))


_PLAIN: dict[bytes, Callable[[Value], Asked]] = {
    b"$eq": conditions.equal,
    b"$ne": _not_equal,
    b"$in": conditions.one_of,
    b"$nin": lambda operand: Unless(conditions.one_of(operand)),
    b"$exists": conditions.exists,
    b"$type": conditions.of_type,
    b"$size": conditions.of_size,
    b"$mod": conditions.remainder,
}


def _regex(operand: Value, options: Value | None) -> Asked:
    if operand[0] not in TEXTS and operand[0] != raw.REGEX:
        raise bad_value("$regex has to be a string")
    if options is not None and options[0] not in TEXTS:
        raise bad_value("$options has to be a string")
    return conditions.pattern(operand, None if options is None else text_in(options))


def _negated(operand: Value, reading: _Reading, depth: int) -> Asked:
    if operand[0] == raw.REGEX:
        return Unless(conditions.pattern(operand))
    if operand[0] != raw.OBJECT or not _is_operators(operand):
        raise bad_value("$not needs a regex or a document of operators")
    return Unless(_operators(operand, reading, depth + 1))


def _all_of(operand: Value, reading: _Reading, depth: int) -> Asked:
    if operand[0] != raw.ARRAY:
        raise bad_value("$all needs an array")
    wanted: list[Asked] = []
    for one in items(operand):
        if one[0] == raw.REGEX:
            wanted.append(conditions.pattern(one))
        elif one[0] == raw.OBJECT and _is_operators(one):
            given = fields(one)
            if [name for name, _ in given] != [b"$elemMatch"]:
                raise bad_value("no $ expressions in $all")
            wanted.append(_element(given[0][1], reading, depth + 1))
        else:
            wanted.append(conditions.equal(one))
    return Every(tuple(wanted)) if wanted else conditions.Never()


def _element(operand: Value, reading: _Reading, depth: int) -> Asked:
    if operand[0] != raw.OBJECT:
        raise bad_value(f"$elemMatch needs an Object, not {kind_name(operand)}")
    logical = {b"$and", b"$or", b"$nor", b"$where", b"$expr"}
    names = [name for name, _ in fields(operand)]
    if names and names[0].startswith(b"$") and names[0] not in REFERENCE | logical:
        inner = _operators(operand, reading, depth + 1)
        return conditions.every_item([inner])
    if b"$expr" in names:
        raise bad_value("$expr can only be applied to the top-level document")
    return conditions.some_document(_all_or_true(_document(operand[1:], reading, depth + 1)))
