"""``$group``: documents gathered under keys, and what is kept of each group.

Groups come out in the order in which they were first met. Memory: counted, for keys and what is gathered.
"""

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from dedupstore.query.expressions import Expression, constant, parse_expression
from dedupstore.query.failures import Failure, QueryError, bad_value, not_done
from dedupstore.query.sums import Total
from dedupstore.query.values import (
    NULL,
    Value,
    array_value,
    document_value,
    field_of,
    fields,
    integer_value,
    nothing,
)
from dedupstore.query.work import OVERHEAD, Work
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key


class Gathered(Protocol):
    """What one accumulator keeps of one group."""

    def add(self, value: Value) -> int:
        """Take one document's value in; returns by how many bytes more is held."""
        ...

    def value(self) -> Value:
        """Return the outcome."""
        ...


class _Sum:
    def __init__(self) -> None:
        self._total = Total()

    def add(self, value: Value) -> int:
        self._total.add(value)
        return 0

    def value(self) -> Value:
        return self._total.value()


class _Average(_Sum):
    def value(self) -> Value:
        return self._total.average() or NULL


class _Count:
    def __init__(self) -> None:
        self._number = 0

    def add(self, value: Value) -> int:  # noqa: ARG002 - all count
        self._number += 1
        return 0

    def value(self) -> Value:
        return integer_value(self._number)


class _Extreme:
    """The least or the greatest value; null and missing do not count."""

    greatest = False

    def __init__(self) -> None:
        self._best = b""
        self._key = b""

    def add(self, value: Value) -> int:
        if nothing(value):
            return 0
        key = sort_key(value)
        if self._best and (key <= self._key if self.greatest else key >= self._key):
            return 0
        more = len(key) + len(value) - len(self._key) - len(self._best)
        self._best, self._key = value, key
        return more

    def value(self) -> Value:
        return self._best or NULL


class _Greatest(_Extreme):
    greatest = True


class _First:
    def __init__(self) -> None:
        self._value: Value | None = None

    def add(self, value: Value) -> int:
        if self._value is not None:
            return 0
        self._value = value
        return len(value)

    def value(self) -> Value:
        return self._value or NULL


class _Last:
    def __init__(self) -> None:
        self._value: Value = b""

    def add(self, value: Value) -> int:
        more = len(value) - len(self._value)
        self._value = value
        return more

    def value(self) -> Value:
        return self._value or NULL


class _Push:
    def __init__(self) -> None:
        self._values: list[Value] = []

    def add(self, value: Value) -> int:
        if not value:
            return 0
        self._values.append(value)
        return len(value) + OVERHEAD

    def value(self) -> Value:
        return array_value(self._values)


class _Set:
    def __init__(self) -> None:
        self._values: dict[bytes, Value] = {}

    def add(self, value: Value) -> int:
        if not value:
            return 0
        key = sort_key(value)
        if key in self._values:
            return 0
        self._values[key] = value
        return len(key) + len(value) + 2 * OVERHEAD

    def value(self) -> Value:
        return array_value(self._values.values())


ACCUMULATORS: Final[dict[bytes, Callable[[], Gathered]]] = {
    b"$sum": _Sum,
    b"$avg": _Average,
    b"$count": _Count,
    b"$min": _Extreme,
    b"$max": _Greatest,
    b"$first": _First,
    b"$last": _Last,
    b"$push": _Push,
    b"$addToSet": _Set,
}


class Group:
    """The stage."""

    def __init__(self, value: Value) -> None:
        """Read it. Raises `QueryError`."""
        if value[0] != raw.OBJECT:
            raise QueryError(Failure.Location15947, "a group's fields must be specified in an object")
        self.collated = False
        """Whether a collation would matter: not where one group takes values in as they are."""
        self._id: Expression | None = None
        self._fields: list[tuple[bytes, Callable[[], Gathered], Expression]] = []
        for name, given in fields(value):
            if name == b"_id":
                self._id = parse_expression(given)
                self.collated = self.collated or given[0] in {raw.STRING, raw.OBJECT, raw.ARRAY}
            else:
                self.collated = self.collated or _compares(given)
                self._fields.append(_accumulator(name, given))
        if self._id is None:
            raise QueryError(Failure.Location15955, "a group specification must include an _id")

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:
        """Yield the groups."""
        assert self._id is not None
        groups: dict[bytes, tuple[Value, list[Gathered]]] = {}
        parts = [part for _, _, part in self._fields]
        for document in documents:
            found = self._id(document) or NULL
            key = sort_key(found)
            group = groups.get(key)
            if group is None:
                work.hold(len(key) + len(found) + OVERHEAD * (4 + len(parts)))
                group = groups[key] = found, [make() for _, make, _ in self._fields]
            for kept, part in zip(group[1], parts, strict=True):
                more = kept.add(part(document))
                if more > 0:
                    work.hold(more)
        names = [b"_id", *(name for name, _, _ in self._fields)]
        for found, gathered in groups.values():
            values = [found, *(one.value() for one in gathered)]
            yield raw.framed(b"".join(map(field_of, names, values)))


def _compares(value: Value) -> bool:
    """Tell whether an accumulator compares values, or is of an expression that may."""
    return any(
        operator in {b"$min", b"$max", b"$addToSet"} or (operand[0] == raw.OBJECT and operator != b"$count")
        for operator, operand in (fields(value) if value[0] == raw.OBJECT else ())
    )


def _accumulator(name: bytes, value: Value) -> tuple[bytes, Callable[[], Gathered], Expression]:
    shown = name.decode("utf-8", "backslashreplace")
    if b"." in name or name.startswith(b"$"):
        raise QueryError(Failure.Location40235, f"The field name '{shown}' cannot have dots or begin with $")
    given = fields(value) if value[0] == raw.OBJECT else []
    if len(given) != 1:
        raise QueryError(Failure.Location40234, f"The field '{shown}' must be an accumulator object")
    operator, operand = given[0]
    make = ACCUMULATORS.get(operator)
    if make is None:
        raise not_done(f"the group operator {operator.decode('utf-8', 'backslashreplace')}")
    if operator == b"$count":
        if operand != document_value(raw.EMPTY):
            raise bad_value("$count takes no arguments, i.e. $count: {}")
        return name, make, constant(NULL)
    if operand[0] == raw.ARRAY:
        raise QueryError(
            Failure.Location40237, f"The {operator.decode()} accumulator is a unary operator, not of an array"
        )
    return name, make, parse_expression(operand)
