"""Sorting: by paths, in MongoDB's order of values, in memory that is counted.

A document's key is one string of bytes: the keys of its values one behind the other, those of descending
paths inverted, which works because no key begins another one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter

from dedupstore.query.failures import QueryError, bad_value, not_done
from dedupstore.query.paths import Path, position, split
from dedupstore.query.values import KIND, NUMBERS, Value, document_value, fields, number_of
from dedupstore.query.work import OVERHEAD, Work
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key

NATURAL = b"$natural"
MOST_PATHS = 32
_SPARE = 100
"""Documents that are held beyond twice a limit, so that not each one has the others sorted."""
_INVERTED = bytes(255 - byte for byte in range(256))
_NULL_KEY = sort_key(KIND[raw.NULL])
_NOTHING_KEY = sort_key(KIND[raw.UNDEFINED])
"""That of an empty array."""


@dataclass(frozen=True, slots=True)
class Order:
    """Paths, and whether each descends."""

    paths: tuple[tuple[Path, bool], ...]

    @property
    def only_id(self) -> bool:
        """Whether this is the order in which documents are stored."""
        return self.paths[0] == ((b"_id",), False)

    def key(self, doc: bytes) -> bytes:
        """Return what a document is sorted by. Raises `QueryError` where arrays leave no single key."""
        parts, arrays = [], 0
        for path, descending in self.paths:
            keys: list[bytes] = []
            arrays += _gather(doc, 0, path, 0, keys)
            if arrays > 1:
                raise not_done("a sort by several paths of which more than one leads through an array")
            parts.append(max(keys).translate(_INVERTED) if descending else min(keys))
        return b"".join(parts)


def _gather(doc: bytes, start: int, path: Path, at: int, keys: list[bytes]) -> bool:
    """Add the keys of all that a path leads to; tells whether it led through an array."""
    found = raw.seek(doc, path[at], start)
    if found is None:
        keys.append(_NULL_KEY)
        return False
    return _gather_value(doc, found, path, at + 1, keys)


def _gather_value(doc: bytes, found: tuple[int, int, int], path: Path, at: int, keys: list[bytes]) -> bool:
    kind, value, end = found
    if kind == raw.ARRAY:
        _gather_array(doc, value, path, at, keys)
        return True
    if at == len(path):
        keys.append(sort_key(KIND[kind] + doc[value:end]))
        return False
    if kind == raw.OBJECT:
        return _gather(doc, value, path, at, keys)
    keys.append(_NULL_KEY)
    return False


def _gather_array(doc: bytes, array: int, path: Path, at: int, keys: list[bytes]) -> None:
    elements = list(raw.elements(doc, array))
    last = at == len(path)
    if not elements:
        keys.append(_NOTHING_KEY if last else _NULL_KEY)
        return
    if last:
        keys += [sort_key(KIND[one.type] + doc[one.start : one.end]) for one in elements]
        return
    place = position(path[at])
    if place is not None and place < len(elements):
        _gather_value(doc, elements[place][1:], path, at + 1, keys)
        return
    for one in elements:
        if one.type == raw.OBJECT:
            _gather(doc, one.start, path, at, keys)
        else:
            keys.append(_NULL_KEY)


def parse_order(specification: bytes) -> Order | None:
    """Read a sort; None if it is empty. Raises `QueryError`."""
    paths: list[tuple[Path, bool]] = []
    for name, value in fields(document_value(specification)):
        if value[0] == raw.OBJECT:
            raise not_done("a sort by $meta")
        if name.startswith(b"$"):
            raise bad_value(
                f"FieldPath field names may not start with '$': {name.decode('utf-8', 'replace')}"
            )
        path = split(name)
        if b"" in path:
            raise bad_value("a path in a sort has an empty name")
        if path in [known for known, _ in paths]:
            raise bad_value("a path is in the sort twice")
        paths.append((path, direction(value) < 0))
    if len(paths) > MOST_PATHS:
        raise bad_value(f"too many compound keys: at most {MOST_PATHS}")
    return Order(tuple(paths)) if paths else None


def direction(value: Value) -> int:
    """Return 1 or -1, of whatever type. Raises `QueryError`."""
    number = number_of(value) if value[0] in NUMBERS else None
    if number == 1:
        return 1
    if number == -1:
        return -1
    raise _no_direction()


def _no_direction() -> QueryError:
    return bad_value("$sort key ordering must be 1 (for ascending) or -1 (for descending)")


def arranged(documents: Iterator[bytes], order: Order, limit: int | None, work: Work) -> Iterator[bytes]:
    """Yield documents in order, those that are equal as they came; only the first ``limit`` if that is given.

    Holds all, or twice the limit at most. Raises `QueryError` if that is too much.
    """
    held: list[tuple[bytes, bytes]] = []
    for document in documents:
        entry = (order.key(document), document)
        work.hold(len(entry[0]) + len(document) + OVERHEAD)
        held.append(entry)
        if limit is not None and len(held) >= 2 * limit + _SPARE:
            _cut(held, limit, work)
    held.sort(key=itemgetter(0))
    if limit is not None:
        del held[limit:]
    held.reverse()
    while held:
        key, document = held.pop()
        yield document
        work.free(len(key) + len(document) + OVERHEAD)


def backwards(documents: Iterator[bytes], limit: int | None, work: Work) -> Iterator[bytes]:
    """Yield documents from the last to the first; only so many if ``limit`` is given."""
    held: list[bytes] = []
    for document in documents:
        work.hold(len(document) + OVERHEAD)
        held.append(document)
        if limit is not None and len(held) >= 2 * limit + _SPARE:
            gone = held[:-limit]
            del held[:-limit]
            work.free(sum(map(len, gone)) + OVERHEAD * len(gone))
    for document in reversed(held if limit is None else held[-limit:]):
        yield document


def _cut(held: list[tuple[bytes, bytes]], limit: int, work: Work) -> None:
    held.sort(key=itemgetter(0))
    gone = held[limit:]
    del held[limit:]
    work.free(sum(len(key) + len(document) + OVERHEAD for key, document in gone))
