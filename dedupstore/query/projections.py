"""Projections: which fields of a document are kept, dropped, or computed anew.

What is kept is copied as bytes and stays in the document's order; computed fields follow in the order of the
specification, or take the place of a field of their name (``$addFields``). Arrays on the way are gone
through, those inside arrays too. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from dedupstore.query.conditions import Test
from dedupstore.query.expressions import Expression, constant, parse_expression
from dedupstore.query.failures import Failure, QueryError, bad_value, not_done
from dedupstore.query.filters import parse_filter
from dedupstore.query.paths import LONGEST, shown, split
from dedupstore.query.values import (
    KIND,
    NUMBERS,
    Value,
    array_value,
    document_value,
    field_of,
    fields,
    is_true,
    items,
    value_in,
    whole_number,
)
from dedupstore.sources.bson import raw

Transform: TypeAlias = Callable[[bytes], bytes]
"""From a document to a document."""


@dataclass(frozen=True, slots=True)
class Slice:
    """``$slice``: so many items from a place on."""

    skip: int | None
    """None: the first ``limit``, or the last if that is negative."""
    limit: int

    def of(self, value: Value) -> Value:
        """Return what is left of an array; anything else is left as it is."""
        if value[0] != raw.ARRAY:
            return value
        found = items(value)
        if self.skip is None:
            return array_value(found[: self.limit] if self.limit >= 0 else found[self.limit :])
        start = self.skip if self.skip >= 0 else max(len(found) + self.skip, 0)
        return array_value(found[start : start + self.limit])


@dataclass(frozen=True, slots=True)
class FirstItem:
    """``$elemMatch``: the first item that fits."""

    test: Test

    def of(self, value: Value) -> Value:
        """Return an array of that item; nothing if there is none, or this is no array."""
        if value[0] != raw.ARRAY:
            return b""
        found = next((one for one in items(value) if self.test(_alone(one))), None)
        return b"" if found is None else array_value([found])


def _alone(item: Value) -> bytes:
    """Return the document in which an item is looked at: an array of its own, in a field without a name."""
    return raw.document([(b"", raw.ARRAY, array_value([item])[1:])])


Rule: TypeAlias = "bool | Slice | FirstItem | Node"


@dataclass(slots=True)
class Node:
    """What is done with the fields of one document, by their names."""

    rules: dict[bytes, Rule] = field(default_factory=dict)
    computed: dict[bytes, "Expression | Node"] = field(default_factory=dict)
    """In the order of the specification."""


@dataclass(slots=True)
class _Reading:
    """A specification as it is read."""

    finds: bool
    """Whether it is of a find, which has a few words of its own."""
    root: Node = field(default_factory=Node)
    keeps: bool | None = None
    """Whether fields are named that stay (True) or that go; None as long as neither."""
    id: "Rule | None" = None
    taken: set[bytes] = field(default_factory=set)


def parse_projection(specification: bytes, *, finds: bool) -> Transform | None:
    """Read a projection; None if it changes nothing. Raises `QueryError`."""
    reading = _Reading(finds)
    for name, value in fields(document_value(specification)):
        _read(reading, name, value, ())
    root = reading.root
    if reading.id is None and not root.rules and not root.computed:
        return None
    keeps = reading.id is True if reading.keeps is None else reading.keeps
    if not keeps and reading.id is False:
        root.rules[b"_id"] = False
    elif keeps and reading.id is not False and b"_id" not in root.computed:
        root.rules.setdefault(b"_id", True)
    return _keeper(root) if keeps else _dropper(root)


def _keeper(root: Node) -> Transform:
    return lambda doc: _computed(_kept(doc, 0, root), root, doc) if root.computed else _kept(doc, 0, root)


def _dropper(root: Node) -> Transform:
    return lambda doc: _dropped(doc, 0, root)


def _read(reading: _Reading, name: bytes, value: Value, above: tuple[bytes, ...]) -> None:
    path = (*above, *split(name))
    _check_name(path)
    if value[0] == raw.OBJECT:
        given = fields(value)
        if not given:
            raise bad_value("An empty sub-projection is not a valid value. Found empty object at path")
        if given[0][0].startswith(b"$"):
            _read_operator(reading, path, value, given[0])
            return
        for inner, one in given:
            _read(reading, inner, one, path)
        return
    if value[0] not in NUMBERS and value[0] != raw.BOOL:
        _compute(reading, path, parse_expression(value))
        return
    keep = is_true(value)
    if path == (b"_id",):
        _take(reading, path)
        reading.id = keep
        return
    _set_mode(reading, path, keep=keep)
    _place(reading, path, keep)


def _check_name(path: tuple[bytes, ...]) -> None:
    if len(path) > LONGEST:
        raise QueryError(Failure.Overflow, f"FieldPath is too long: at most {LONGEST} names")
    if path[-1] == b"$":
        raise not_done("the positional projection '.$'")
    if any(not name or name.startswith(b"$") for name in path):
        raise QueryError(Failure.Location16410, f"{shown(path)!r} is no path that can be projected")


def _read_operator(
    reading: _Reading, path: tuple[bytes, ...], value: Value, only: tuple[bytes, Value]
) -> None:
    name, operand = only
    if reading.finds and name == b"$slice" and (sliced := _sliced(operand)) is not None:
        _place(reading, path, sliced)
    elif reading.finds and name == b"$elemMatch":
        if len(path) > 1:
            raise QueryError(Failure.Location31249, "Cannot use $elemMatch projection on a nested field")
        if operand[0] != raw.OBJECT:
            raise bad_value("elemMatch: Invalid argument, object required")
        _set_mode(reading, path, keep=True)
        query = raw.document([(b"", raw.OBJECT, raw.document([(b"$elemMatch", raw.OBJECT, operand[1:])]))])
        _place(reading, path, FirstItem(parse_filter(query).test))
    elif name == b"$meta":
        raise not_done("the projection operator $meta")
    else:
        _compute(reading, path, parse_expression(value))


def _sliced(operand: Value) -> Slice | None:
    """Return a find's ``$slice``; None for what only an expression can be."""
    if operand[0] in NUMBERS:
        number = whole_number(operand)
        return None if number is None else Slice(None, number)
    given = [whole_number(one) for one in items(operand)] if operand[0] == raw.ARRAY else []
    if len(given) != 2 or given[0] is None or given[1] is None:
        return None
    if given[1] <= 0:
        raise bad_value("the limit of a $slice must be positive")
    return Slice(given[0], given[1])


def _set_mode(reading: _Reading, path: tuple[bytes, ...], *, keep: bool) -> None:
    if reading.keeps is not None and reading.keeps != keep:
        done, other = ("inclusion", "exclusion") if keep else ("exclusion", "inclusion")
        raise QueryError(
            Failure.Location31253, f"Cannot do {done} on field {shown(path)} in {other} projection"
        )
    reading.keeps = keep


def _take(reading: _Reading, path: tuple[bytes, ...]) -> None:
    """Refuse two rules for one path, or for one within the other."""
    whole = b".".join(path)
    for size in range(1, len(path) + 1):
        if b".".join(path[:size]) in reading.taken:
            raise QueryError(Failure.Location31250, f"Path collision at {shown(path)}")
    if any(other.startswith(whole + b".") for other in reading.taken):
        raise QueryError(Failure.Location31249, f"Path collision at {shown(path)}")
    reading.taken.add(whole)


def _place(reading: _Reading, path: tuple[bytes, ...], rule: Rule) -> None:
    _take(reading, path)
    node = reading.root
    for name in path[:-1]:
        below = node.rules.setdefault(name, Node())
        assert isinstance(below, Node)  # two rules for one path were refused
        node = below
    node.rules[path[-1]] = rule


def _compute(reading: _Reading, path: tuple[bytes, ...], expression: Expression) -> None:
    _set_mode(reading, path, keep=True)
    _take(reading, path)
    place_computed(reading.root, path, expression)


def place_computed(root: Node, path: tuple[bytes, ...], expression: Expression) -> None:
    """Put an expression at its path."""
    node = root
    for name in path[:-1]:
        below = node.computed.setdefault(name, Node())
        assert isinstance(below, Node)
        node = below
    node.computed[path[-1]] = expression


def _kept(doc: bytes, start: int, node: Node) -> bytes:
    parts = []
    rules = node.rules
    for element in raw.elements(doc, start):
        rule = rules.get(element.name)
        if rule is True:
            parts.append(doc[element.start - len(element.name) - 2 : element.end])
        elif isinstance(rule, Node):
            inner = _kept_value(doc, element, rule)
            if inner:
                parts.append(field_of(element.name, inner))
        elif rule:
            value = rule.of(value_in(doc, element))
            if value:
                parts.append(field_of(element.name, value))
    return raw.framed(b"".join(parts))


def _kept_value(doc: bytes, element: raw.Element, node: Node) -> Value:
    """Return what is kept of a value inside which fields are named; nothing of what has no fields."""
    if element.type == raw.OBJECT:
        return document_value(_kept(doc, element.start, node))
    if element.type != raw.ARRAY:
        return b""
    inside = [_kept_value(doc, one, node) for one in raw.elements(doc, element.start)]
    return array_value(one for one in inside if one)


def _dropped(doc: bytes, start: int, node: Node) -> bytes:
    parts = []
    rules = node.rules
    for element in raw.elements(doc, start):
        rule = rules.get(element.name)
        if rule is None or rule is True:
            parts.append(doc[element.start - len(element.name) - 2 : element.end])
        elif isinstance(rule, Node):
            parts.append(field_of(element.name, _dropped_value(doc, element, rule)))
        elif rule is not False:
            value = rule.of(value_in(doc, element))
            if value:
                parts.append(field_of(element.name, value))
    return raw.framed(b"".join(parts))


def _dropped_value(doc: bytes, element: raw.Element, node: Node) -> Value:
    if element.type == raw.OBJECT:
        return document_value(_dropped(doc, element.start, node))
    if element.type != raw.ARRAY:
        return KIND[element.type] + doc[element.start : element.end]
    return array_value(_dropped_value(doc, one, node) for one in raw.elements(doc, element.start))


def _computed(doc: bytes, node: Node, root: bytes) -> bytes:
    """Return a document with computed fields put in; ``root`` is what they are computed from."""
    waiting = dict(node.computed)
    parts = []
    for element in raw.elements(doc):
        rule = waiting.pop(element.name, None)
        if rule is None:
            parts.append(doc[element.start - len(element.name) - 2 : element.end])
            continue
        value = _computed_value(value_in(doc, element), rule, root)
        if value:
            parts.append(field_of(element.name, value))
    for name, rule in waiting.items():
        value = _computed_value(b"", rule, root)
        if value:
            parts.append(field_of(name, value))
    return raw.framed(b"".join(parts))


def _computed_value(value: Value, rule: "Expression | Node", root: bytes) -> Value:
    if not isinstance(rule, Node):
        return rule(root)
    if value and value[0] == raw.ARRAY:
        return array_value(_computed_value(one, rule, root) for one in items(value))
    inner = value[1:] if value and value[0] == raw.OBJECT else raw.EMPTY
    return document_value(_computed(inner, rule, root))


def place_value(document: bytes, path: tuple[bytes, ...], value: Value) -> bytes:
    """Return a document with another value at a path of documents; `MISSING` takes the field away."""
    root = Node()
    place_computed(root, path, constant(value))
    return _computed(document, root, document)


def parse_additions(specification: bytes) -> Transform:
    """Read ``$addFields``. Raises `QueryError`."""
    reading = _Reading(finds=False)
    _read_additions(reading, fields(document_value(specification)), ())
    root = reading.root
    return lambda doc: _computed(doc, root, doc)


def _read_additions(reading: _Reading, given: list[tuple[bytes, Value]], above: tuple[bytes, ...]) -> None:
    for name, value in given:
        path = (*above, *split(name))
        _check_name(path)
        inner = fields(value) if value[0] == raw.OBJECT else []
        if inner and not inner[0][0].startswith(b"$"):
            _read_additions(reading, inner, path)
            continue
        _take(reading, path)
        place_computed(reading.root, path, parse_expression(value))


def parse_removals(value: Value) -> Transform:
    """Read ``$unset``: a path or an array of them. Raises `QueryError`."""
    named = items(value) if value[0] == raw.ARRAY else [value]
    if not named or any(one[0] != raw.STRING for one in named):
        raise bad_value("$unset specification must be a string or an array of strings")
    reading = _Reading(finds=False)
    for one in named:
        path = split(raw.text_of(one[1:]))
        _check_name(path)
        _place(reading, path, False)
    return _dropper(reading.root)
