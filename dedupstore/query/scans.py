"""Reading a collection for a query: as little of it as what is asked of ``_id`` allows.

Equality costs one leaf for each value; a range begins at its lower end and stops behind its upper one; all
else reads through. A `Scan` can be paused between two documents, so that it holds nothing while nobody asks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from dedupstore.documents.view import CollectionView
from dedupstore.errors import DedupstoreError
from dedupstore.query.filters import OnId
from dedupstore.query.values import Value, items
from dedupstore.query.work import Work
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import RANKS, sort_key

MOST_GETS: Final = 1000
"""Values of ``$in`` up to which each is looked up by itself."""
_NO_ID: Final = frozenset((raw.NULL, raw.UNDEFINED, raw.ARRAY, raw.REGEX))
"""Types that equality on ``_id`` means something else by than one document."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A stretch of the order of ``_id``."""

    low: Value = b""
    """Where it begins; empty: with the first document."""
    low_included: bool = True
    high: bytes = b""
    """The key (of `sort_key`) where it ends; empty: nowhere."""
    high_included: bool = True

    def ends_before(self, key: bytes) -> bool:
        """Tell whether a key lies behind the stretch."""
        return bool(self.high) and (key > self.high if self.high_included else key >= self.high)


def wanted_ids(asked: Sequence[OnId]) -> list[Value] | None:
    """Return the only ``_id`` values that can fit, in order; None if they are not so few."""
    for one in asked:
        if one.operator == b"$eq" and one.operand[0] not in _NO_ID:
            return [one.operand]
    for one in asked:
        if one.operator == b"$in" and one.operand[0] == raw.ARRAY:
            found = {sort_key(value): value for value in items(one.operand)}
            if len(found) <= MOST_GETS and not any(value[0] in _NO_ID for value in found.values()):
                return [found[key] for key in sorted(found)]
    return None


def bounds_of(asked: Sequence[OnId]) -> Bounds:
    """Return the stretch that comparisons leave; they are of one type each, so that bounds it too."""
    low, low_included, low_key = b"", True, b""
    high, high_included = b"", True
    for one in asked:
        kind = one.operand[0]
        if one.operator in {b"$eq", b"$in"} or kind in _NO_ID or kind in {raw.MIN_KEY, raw.MAX_KEY}:
            continue
        key, included = sort_key(one.operand), one.operator.endswith(b"e")
        if one.operator.startswith(b"$g"):
            if key > low_key:
                low, low_key, low_included = one.operand, key, included
            key, included = bytes((RANKS[kind] + 1,)), False
        if not high or key < high:
            high, high_included = key, included
    return Bounds(low, low_included, high, high_included)


class Scan:
    """The documents of a collection within bounds, in stored order. One thread at a time."""

    def __init__(self, collection: CollectionView, bounds: Bounds, work: Work) -> None:
        self._collection = collection
        self._bounds = bounds
        self._work = work
        self._documents: Iterator[bytes] | None = None
        self._last = b""
        self._last_document = raw.EMPTY
        self._waiting: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        """Yield the documents. Raises as `CollectionView.documents` and `Work.check` do."""
        if not self._collection.natural:
            low = self._bounds.low
            if low and self._bounds.low_included:
                document = self._collection.get(low)
                if document is not None and not self._bounds.ends_before(sort_key(raw.id_of(document))):
                    yield document
            self._last = low
        while True:
            documents = self._collection.documents(self._last or None)
            self._documents = documents
            yield from self._bounded(documents)
            if self._documents is documents:  # it came to its end, nobody paused it
                return
            yield from self._waiting
            self._waiting = []

    def _bounded(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        watched = self._work.watched(documents)
        if not self._bounds.high or self._collection.natural:
            for self._last_document in watched:
                yield self._last_document
            return
        ends = self._bounds.ends_before
        for self._last_document in watched:
            if ends(sort_key(raw.id_of(self._last_document))):
                return
            yield self._last_document

    def pause(self) -> None:
        """Let go of what is read ahead, if reading can go on later from the ``_id`` of the last document."""
        documents = self._documents
        if documents is None or self._collection.natural or not (last := raw.id_of(self._last_document)):
            return
        key = sort_key(last)
        with suppress(DedupstoreError):  # who reads on meets it again
            for document in documents:  # a plain dump may hold one twice
                if sort_key(raw.id_of(document)) != key:
                    break
                self._waiting.append(document)
        self._last = last
        self._documents = None
        close_iterator(documents)

    def close(self) -> None:
        """End it."""
        if self._documents is not None:
            close_iterator(self._documents)


def close_iterator(documents: Iterator[bytes]) -> None:
    """End an iterator that may be a generator, so that what it holds goes at once."""
    close: Callable[[], None] | None = getattr(documents, "close", None)
    if close is not None:
        close()


def looked_up(collection: CollectionView, ids: Sequence[Value], work: Work) -> Iterator[bytes]:
    """Yield the documents with these ``_id`` values."""
    for identity in ids:
        work.check()
        document = collection.get(identity)
        if document is not None:
            yield document
