"""Finds and pipelines put to a collection or a view: what is read, and through which stages it goes.

`Answer` is a query at work: documents come out of it one by one. It owns what it holds until it is closed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from dedupstore.documents.view import CollectionView
from dedupstore.query.failures import bad_value, not_done
from dedupstore.query.filters import Filter, parse_filter
from dedupstore.query.groups import Group
from dedupstore.query.projections import Transform, parse_projection
from dedupstore.query.scans import Bounds, Scan, bounds_of, close_iterator, looked_up, wanted_ids
from dedupstore.query.sorting import NATURAL, Order, arranged, backwards, direction, parse_order
from dedupstore.query.stages import Count, Limit, Match, Sample, Skip, Stage, Stats, Unwind
from dedupstore.query.targets import Target
from dedupstore.query.values import MISSING, NUMBERS, Value, document_value, fields
from dedupstore.query.work import Work
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key


@dataclass(frozen=True, slots=True)
class Find:
    """What a find asks for, read."""

    filter: Filter
    order: Order | None = None
    backwards: bool = False
    """Against the order in which documents are stored."""
    projection: Transform | None = None
    skip: int = 0
    limit: int | None = None
    bounds: Bounds = field(default_factory=Bounds)
    """What ``min`` and ``max`` leave."""
    computes: bool = False
    """Whether the projection is more than names."""

    @property
    def plain(self) -> bool:
        """Whether it asks for everything as it lies there, so that no collation matters."""
        return not (self.filter.collated or self.computes) and self.order is None


class Answer:
    """A query at work. One thread at a time. Close it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._scan: Scan | None = None
        self._documents: Iterator[bytes] = iter(())

    def __iter__(self) -> Iterator[bytes]:
        return self._documents

    def __next__(self) -> bytes:
        """Return the next document."""
        return next(self._documents)

    def scanned(self, collection: CollectionView, asked: Filter, bounds: Bounds) -> Iterator[bytes]:
        """Return the documents of a collection that fit."""
        ids = wanted_ids(asked.ids)
        found: Iterator[bytes]
        few = ids is not None and bounds == Bounds() and (len(ids) == 1 or not collection.natural)
        if ids is not None and few:
            found = looked_up(collection, ids, self.work)
        else:
            self._scan = Scan(collection, bounds if bounds != Bounds() else bounds_of(asked.ids), self.work)
            found = iter(self._scan)
        return found if asked.everything else filter(asked.test, found)

    def through(self, documents: Iterator[bytes], stages: Sequence[Stage]) -> Iterator[bytes]:
        """Return what becomes of documents."""
        for stage in stages:
            documents = stage.run(documents, self.work)
        return documents

    def gives(self, documents: Iterator[bytes]) -> "Answer":
        """Answer with these documents."""
        self._documents = documents
        return self

    def pause(self) -> None:
        """Hold less until the next document is wanted, where that can be."""
        if self._scan is not None:
            self._scan.pause()

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        close_iterator(self._documents)
        self._documents = iter(())
        if self._scan is not None:
            self._scan.close()
        self.work.close()


def found(target: Target, asked: Find, work: Work) -> Answer:
    """Put a find to a target. Raises `QueryError`."""
    answer = Answer(work)
    if target.collection is None:
        return answer
    if target.stages:
        if asked.bounds != Bounds():
            raise not_done("min or max on a view")
        documents = answer.through(_read(answer, target.collection, target.stages), _rest(target.stages))
        if not asked.filter.everything:
            documents = filter(asked.filter.test, documents)
    else:
        documents = answer.scanned(target.collection, asked.filter, asked.bounds)
    most = None if asked.limit is None else asked.limit + asked.skip
    stored = not target.stages and not target.collection.natural
    if asked.backwards:
        documents = backwards(documents, most, work)
    elif asked.order is not None and not (stored and asked.order.only_id):
        documents = arranged(documents, asked.order, most, work)
    if asked.skip or most is not None:
        documents = islice(documents, asked.skip, most)
    return answer.gives(documents if asked.projection is None else map(asked.projection, documents))


def piped(target: Target, stages: Sequence[Stage], work: Work) -> Answer:
    """Put a pipeline to a target. `Stats` in front is not done here. Raises `QueryError`."""
    answer = Answer(work)
    every = (*target.stages, *stages)
    if target.collection is None:
        return answer.gives(answer.through(iter(()), every))
    return answer.gives(answer.through(_read(answer, target.collection, every), _rest(every)))


def _read(answer: Answer, collection: CollectionView, stages: Sequence[Stage]) -> Iterator[bytes]:
    """Return the documents that the first stage lets through."""
    first = stages[0] if stages else None
    asked = first.filter if isinstance(first, Match) else parse_filter(raw.EMPTY)
    return answer.scanned(collection, asked, Bounds())


def _rest(stages: Sequence[Stage]) -> Sequence[Stage]:
    return stages[1:] if stages and isinstance(stages[0], Match) else stages


def collated(stages: Sequence[Stage]) -> bool:
    """Tell whether a collation would matter to a pipeline; only of the simplest it is known not to."""
    return any(_collated(stage) for stage in stages)


def _collated(stage: Stage) -> bool:
    if isinstance(stage, Match):
        return stage.filter.collated
    if isinstance(stage, Group):
        return stage.collated
    return not isinstance(stage, Limit | Skip | Stats | Count | Sample | Unwind)


def parse_find(given: dict[bytes, Value]) -> Find:
    """Read what a find says of documents: filter, sort, projection, min and max. Raises `QueryError`."""
    asked = parse_filter(given.get(b"filter", _NOTHING)[1:])
    sort = given.get(b"sort", _NOTHING)[1:]
    reverse = _reversed(sort) or _reversed(_natural_hint(given))
    order = None if _is_natural(sort) else parse_order(sort)
    wanted = given.get(b"projection", _NOTHING)
    projection = parse_projection(wanted[1:], finds=True)
    computes = any(value[0] not in NUMBERS and value[0] != raw.BOOL for _, value in fields(wanted))
    bounds = _min_max(given.get(b"min", _NOTHING)[1:], given.get(b"max", _NOTHING)[1:])
    return Find(asked, order, reverse and order is None, projection, bounds=bounds, computes=computes)


_NOTHING = document_value(raw.EMPTY)


def _natural_hint(given: dict[bytes, Value]) -> bytes:
    hint = given.get(b"hint", MISSING)
    return hint[1:] if hint and hint[0] == raw.OBJECT and _is_natural(hint[1:]) else raw.EMPTY


def _is_natural(specification: bytes) -> bool:
    names = [name for name, _ in fields(document_value(specification))]
    if NATURAL in names and len(names) > 1:
        raise bad_value("$natural sort cannot be set to a value other than -1 or 1, or beside other fields")
    return NATURAL in names


def _reversed(specification: bytes) -> bool:
    found = fields(document_value(specification))
    return bool(found) and found[0][0] == NATURAL and direction(found[0][1]) < 0


def _min_max(low: bytes, high: bytes) -> Bounds:
    """Return the stretch from ``min`` up to before ``max``, across types."""
    ends = []
    for what, bound in (("min", low), ("max", high)):
        named = fields(document_value(bound))
        if named and [name for name, _ in named] != [b"_id"]:
            raise not_done(f"{what} on another index than that on _id")
        ends.append(named[0][1] if named else MISSING)
    first, last = ends
    return Bounds(first, True, sort_key(last), False) if last else Bounds(first)
