"""Pipelines: stages one after the other, each from documents to documents.

What is not known is refused by name, before anything is read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from dedupstore.query.expressions import parse_expression
from dedupstore.query.failures import Failure, QueryError, bad_value, mismatch, not_done
from dedupstore.query.filters import Filter, parse_filter
from dedupstore.query.groups import Group
from dedupstore.query.paths import Path, shown, split
from dedupstore.query.projections import (
    Transform,
    parse_additions,
    parse_projection,
    parse_removals,
    place_value,
)
from dedupstore.query.sorting import Order, arranged, parse_order
from dedupstore.query.values import (
    MISSING,
    NULL,
    NUMBERS,
    Value,
    document_value,
    field_of,
    fields,
    integer_value,
    is_true,
    items,
    kind_name,
    nothing,
    whole_number,
)
from dedupstore.query.work import OVERHEAD, Work
from dedupstore.sources.bson import raw

MOST_STAGES: Final = 1000


class Stage(Protocol):
    """One step."""

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:
        """Yield what becomes of the documents."""
        ...


@dataclass(frozen=True, slots=True)
class Match:
    """``$match``."""

    filter: Filter

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield what fits."""
        return documents if self.filter.everything else filter(self.filter.test, documents)


@dataclass(frozen=True, slots=True)
class Change:
    """A stage that makes one document of one."""

    transform: Transform

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield what becomes of each."""
        return map(self.transform, documents)


@dataclass(frozen=True, slots=True)
class Sort:
    """``$sort``, with the limit that follows it."""

    order: Order
    limit: int | None = None

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:
        """Yield them in order."""
        return arranged(documents, self.order, self.limit, work)


@dataclass(frozen=True, slots=True)
class Limit:
    """``$limit``."""

    number: int

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield the first ones."""
        return islice(documents, self.number)


@dataclass(frozen=True, slots=True)
class Skip:
    """``$skip``."""

    number: int

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield all but the first ones."""
        return islice(documents, self.number, None)


@dataclass(frozen=True, slots=True)
class Count:
    """``$count``: one document, or none of nothing."""

    name: bytes

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield how many there were."""
        number = sum(1 for _ in documents)
        if number:
            yield raw.framed(field_of(self.name, integer_value(number)))


@dataclass(frozen=True, slots=True)
class Sample:
    """``$sample``: so many at random, each document with the same chance."""

    size: int

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:
        """Read all, keep some (reservoir)."""
        kept: list[bytes] = []
        for number, document in enumerate(documents):
            if len(kept) < self.size:
                work.hold(len(document) + OVERHEAD)
                kept.append(document)
                continue
            place = work.below(number + 1)
            if place < self.size:
                work.hold(len(document))
                work.free(len(kept[place]))
                kept[place] = document
        for number in range(len(kept) - 1, 0, -1):  # else the first ones would stay in front
            other = work.below(number + 1)
            kept[number], kept[other] = kept[other], kept[number]
        yield from kept


@dataclass(frozen=True, slots=True)
class Unwind:
    """``$unwind``: one document for each item of an array."""

    path: Path
    keep_empty: bool = False
    index: bytes | None = None

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Yield them."""
        for document in documents:
            yield from self._of(document)

    def _of(self, document: bytes) -> Iterator[bytes]:
        value = _straight(document, self.path)
        if value and value[0] == raw.ARRAY:
            found = items(value)
            for number, item in enumerate(found):
                changed = place_value(document, self.path, item)
                yield self._numbered(changed, integer_value(number, long=True))
            if not found and self.keep_empty:
                yield self._numbered(place_value(document, self.path, MISSING), NULL)
        elif not nothing(value) or self.keep_empty:
            yield self._numbered(document, NULL)

    def _numbered(self, document: bytes, number: Value) -> bytes:
        return document if self.index is None else place_value(document, (self.index,), number)


def _straight(document: bytes, path: Path) -> Value:
    """Return what a path leads to through documents alone."""
    start = 0
    for number, name in enumerate(path):
        found = raw.field(document, name, start)
        if found is None:
            return MISSING
        if number + 1 == len(path):
            return bytes((found.type,)) + document[found.start : found.end]
        if found.type != raw.OBJECT:
            return MISSING
        start = found.start
    return MISSING


@dataclass(frozen=True, slots=True)
class Stats:
    """``$collStats``, which stands first and reads no document."""

    wanted: tuple[bytes, ...]

    def run(self, documents: Iterator[bytes], work: Work) -> Iterator[bytes]:  # noqa: ARG002
        """Pass on what it is given: whoever runs the pipeline answers it."""
        return documents


def parse_pipeline(stages: Sequence[Value]) -> tuple[Stage, ...]:
    """Read a pipeline. Raises `QueryError`."""
    if len(stages) > MOST_STAGES:
        raise bad_value(f"Pipeline length must be no longer than {MOST_STAGES} stages")
    found: list[Stage] = []
    for place, stage in enumerate(stages):
        if stage[0] != raw.OBJECT:
            raise mismatch("Each element of the 'pipeline' array must be an object")
        given = fields(stage)
        if len(given) != 1:
            raise QueryError(
                Failure.Location40323, "A pipeline stage specification object must contain exactly one field."
            )
        found += _stage(given[0][0], given[0][1], first=place == 0)
    return tuple(_limited(found))


def _limited(stages: list[Stage]) -> Iterator[Stage]:
    """Tell sorts of the limit behind them."""
    for place, stage in enumerate(stages):
        following = stages[place + 1] if place + 1 < len(stages) else None
        if isinstance(stage, Sort) and isinstance(following, Limit):
            yield Sort(stage.order, following.number)
        else:
            yield stage


def _stage(name: bytes, value: Value, *, first: bool) -> list[Stage]:
    reader = _READERS.get(name)
    if reader is not None:
        return reader(value)
    shown_name = name.decode("utf-8", "backslashreplace")
    if name == b"$collStats":
        if not first:
            raise bad_value("$collStats is only valid as the first stage in a pipeline")
        return [_stats(value)]
    if name in _NOT_DONE:
        raise not_done(f"the pipeline stage {shown_name}")
    raise QueryError(Failure.Location40324, f"Unrecognized pipeline stage name: '{shown_name}'")


def _object(name: str, value: Value) -> bytes:
    if value[0] != raw.OBJECT:
        raise mismatch(f"the {name} specification must be an object, not {kind_name(value)}")
    return value[1:]


def _match(value: Value) -> list[Stage]:
    return [Match(parse_filter(_object("$match", value)))]


def _project(value: Value) -> list[Stage]:
    transform = parse_projection(_object("$project", value), finds=False)
    if transform is None:
        raise bad_value("Invalid $project :: projection specification must have at least one field")
    return [Change(transform)]


def _add(value: Value) -> list[Stage]:
    return [Change(parse_additions(_object("$addFields", value)))]


def _sort(value: Value) -> list[Stage]:
    order = parse_order(_object("$sort", value))
    if order is None:
        raise bad_value("$sort stage must have at least one sort key")
    return [Sort(order)]


def _number(name: str, value: Value, least: int) -> int:
    number = whole_number(value) if value[0] in NUMBERS else None
    if number is None or number < least:
        raise QueryError(
            Failure.Location15958 if name == "$limit" else Failure.BadValue,
            f"invalid argument to {name}: a whole number from {least} on is needed",
        )
    return number


def _count(value: Value) -> list[Stage]:
    name = raw.text_of(value[1:]) if value[0] == raw.STRING else b""
    if not name or name.startswith(b"$") or b"." in name or b"\0" in name:
        raise bad_value("the count field must be a non-empty string without dots that does not begin with $")
    return [Count(name)]


def _sample(value: Value) -> list[Stage]:
    given = dict(fields(document_value(_object("$sample", value))))
    if given.keys() != {b"size"}:
        raise bad_value("$sample takes a size and nothing else")
    return [Sample(_number("$sample size", given[b"size"], 1))]


def _unwind(value: Value) -> list[Stage]:
    given = {b"path": value} if value[0] != raw.OBJECT else dict(fields(value))
    path = given.pop(b"path", b"")
    if not path or path[0] != raw.STRING or not raw.text_of(path[1:]).startswith(b"$"):
        raise QueryError(Failure.Location28818, "path option to $unwind stage should be prefixed with a '$'")
    keep = given.pop(b"preserveNullAndEmptyArrays", b"\x08\0")
    index = given.pop(b"includeArrayIndex", b"")
    name = raw.text_of(index[1:]) if index and index[0] == raw.STRING else None
    if given or keep[0] != raw.BOOL or (index and (not name or name.startswith(b"$"))):
        raise QueryError(
            Failure.Location28811,
            "$unwind takes a path, preserveNullAndEmptyArrays (a bool) and includeArrayIndex (a name)",
        )
    if name is not None and b"." in name:
        raise not_done("$unwind with an includeArrayIndex that has dots")
    names = split(raw.text_of(path[1:])[1:])
    if b"" in names or names[0].startswith(b"$"):
        raise QueryError(Failure.Location16410, f"{shown(names)!r} is no path that $unwind can take")
    return [Unwind(names, is_true(keep), name)]


def _new_root(value: Value) -> list[Stage]:
    expression = parse_expression(value)

    def replaced(document: bytes) -> bytes:
        root = expression(document)
        if not root or root[0] != raw.OBJECT:
            raise QueryError(
                Failure.Location40228, f"'newRoot' must evaluate to an object, but was {kind_name(root)}"
            )
        return root[1:]

    return [Change(replaced)]


def _replace_root(value: Value) -> list[Stage]:
    given = dict(fields(document_value(_object("$replaceRoot", value))))
    if given.keys() != {b"newRoot"}:
        raise bad_value("$replaceRoot takes a newRoot and nothing else")
    return _new_root(given[b"newRoot"])


def _sort_by_count(value: Value) -> list[Stage]:
    group = document_value(raw.framed(field_of(b"_id", value) + field_of(b"count", _ONE_EACH)))
    return [Group(group), Sort(Order((((b"count",), True),)))]


_ONE_EACH: Final = document_value(raw.framed(field_of(b"$sum", integer_value(1))))


def _stats(value: Value) -> Stats:
    wanted = tuple(name for name, _ in fields(document_value(_object("$collStats", value))))
    for name in wanted:
        if name not in {b"count", b"storageStats"}:
            raise not_done(f"$collStats with {name.decode('utf-8', 'backslashreplace')}")
    return Stats(wanted)


_READERS: Final[dict[bytes, Callable[[Value], list[Stage]]]] = {
    b"$match": _match,
    b"$project": _project,
    b"$addFields": _add,
    b"$set": _add,
    b"$unset": lambda value: [Change(parse_removals(value))],
    b"$sort": _sort,
    b"$limit": lambda value: [Limit(_number("$limit", value, 1))],
    b"$skip": lambda value: [Skip(_number("$skip", value, 0))],
    b"$count": _count,
    b"$group": lambda value: [Group(value)],
    b"$sample": _sample,
    b"$unwind": _unwind,
    b"$replaceRoot": _replace_root,
    b"$replaceWith": _new_root,
    b"$sortByCount": _sort_by_count,
}
_NOT_DONE: Final = frozenset(
    b"$" + name
    for name in (
        b"bucket bucketAuto changeStream currentOp densify documents facet fill geoNear "
        b"graphLookup indexStats listLocalSessions listSearchIndexes listSessions lookup merge "
        b"out planCacheStats queryStats rankFusion redact search searchMeta setWindowFields "
        b"shardedDataDistribution unionWith vectorSearch"
    ).split()
)
