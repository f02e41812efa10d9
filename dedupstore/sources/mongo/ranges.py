"""How a collection is read: in which order, in how many ranges of ``_id``, how much a reply.

A collection of some size is cut at quantiles of a random sample of its ``_id``. A range is asked for by index
bounds (``min``, ``max`` and ``hint``), since a filter like ``{_id: {$gte: x}}`` sees one type only and passes
over the others. Whether a server obeys bounds is tried first: some accept them and return everything.
"""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dedupstore.errors import DedupstoreError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.mongo.catalog import Listed
from dedupstore.sources.mongo.client import Node, document, value_of
from dedupstore.sources.mongo.cursor import Cursor
from dedupstore.sources.mongo.failures import is_transient

RANGE_TARGET = 16 << 20
"""Bytes of a range: what is not larger than two of them is read in one."""
RANGES_MAX = 4096
SAMPLES_PER_RANGE = 16
SAMPLES_MAX = 1 << 16
SAMPLE_SHARE = 25
"""One document in so many may be sampled: of more a server reads the whole collection instead."""
REPLY_TARGET = 2 << 20
"""Bytes of a reply; the server ends one at 16 MiB whatever is asked."""
REPLY_DOCUMENTS = 1 << 20
_GUESSED_MEAN = 512

BOUNDS, SORTED, NATURAL = "bounds", "sorted", "natural"

_NUMBERS = frozenset((raw.INT32, raw.INT64, raw.DOUBLE, raw.DECIMAL128))
_TEXTLESS = (_NUMBERS, {raw.OBJECT_ID}, {raw.BINARY}, {raw.DATE}, {raw.TIMESTAMP}, {raw.BOOL})
"""Types whose order no collation changes, each beside those that it is compared with."""


class Range(NamedTuple):
    """A part of a collection; identities (type byte, raw value), ``b""`` where it is open."""

    low: bytes = b""
    """The first ``_id`` that is in it."""
    high: bytes = b""
    """The first that is not."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How one collection is read."""

    order: str
    """`BOUNDS` and `SORTED`: by ``_id``, with and without index bounds. `NATURAL`: as it was inserted."""
    documents: int
    """Documents a reply."""
    ranges: tuple[Range, ...] = (Range(),)
    by_bytes: bool = True
    """Whether that order is the one that `order.sort_key` gives: not where a collation says otherwise."""
    raw: bool = False
    """See `Listed`."""
    hint: bool = True
    """Whether there is an index on ``_id`` to point the server to: not all find it by themselves."""

    def body(self, name: str, part: Range, concern: dict[str, Any] | None) -> dict[str, Any]:
        """Return the command that reads a range of the collection ``name``."""
        body: dict[str, Any] = {"find": name}
        if self.order != NATURAL:
            body["sort"] = {"_id": 1}
        if self.order == BOUNDS or (self.order == SORTED and self.hint):
            body["hint"] = {"_id": 1}
        if self.order == BOUNDS:
            if part.low:
                body["min"] = _bound(part.low)
            if part.high:
                body["max"] = _bound(part.high)
        elif self.order == SORTED:
            body["allowDiskUse"] = True
            if part.low:
                body["filter"] = {"_id": document(raw.document([(b"$gte", part.low[0], part.low[1:])]))}
        if self.raw:
            body["rawData"] = True
        if concern:
            body["readConcern"] = concern
        return body


def plan_of(node: Node, listed: Listed, concern: dict[str, Any] | None, *, split: bool | None = None) -> Plan:
    """Decide how a collection is read. One request for a small one, some more for others.

    ``split``: whether large ones are read in ranges; None: where the server is MongoDB's own. Others may read
    the whole collection for each range.
    Raises what a lost connection raises; what a server does not know or allow is done without.
    """
    if split is None:
        split = node.facts.mongod
    size, count = _measure(node, listed) if split else (0, 0)  # others count by reading everything
    mean = max(size // count, 1) if count else _GUESSED_MEAN
    documents = max(1, min(REPLY_TARGET // mean, REPLY_DOCUMENTS))
    if listed.capped or not (listed.id_index or listed.clustered):
        return Plan(NATURAL, documents, raw=listed.raw)
    by_bytes = not listed.collation or _collation_does_not_matter(node, listed)
    plan = Plan(
        SORTED, documents, by_bytes=by_bytes, raw=listed.raw, hint=listed.id_index and not listed.clustered
    )
    # Where a collation orders text the fences of ranges would not be in order.
    if split and by_bytes and size > 2 * RANGE_TARGET and _obeys_bounds(node, plan, listed, concern):
        return replace(plan, order=BOUNDS, ranges=_ranges(node, listed, size, count))
    return plan


def plan_after(node: Node, listed: Listed, plan: Plan, concern: dict[str, Any] | None) -> Plan | None:
    """Return how to go on from some ``_id`` of a range that broke off, or None if the server has no way.

    The range that is asked for then begins with that ``_id``, if it is still there.
    """
    if plan.order == BOUNDS:
        return plan
    if plan.order == NATURAL:
        return None
    if _obeys_bounds(node, plan, listed, concern):
        return replace(plan, order=BOUNDS)
    return plan if _is_of_one_type(node, listed) else None


def ranges_between(samples: Sequence[bytes], wanted: int) -> tuple[Range, ...]:
    """Return at most ``wanted`` ranges with fences among ``samples`` (identities in any order)."""
    by_key = {sort_key(sample): sample for sample in samples if sample}
    keys = sorted(by_key)
    wanted = min(wanted, len(keys) + 1)
    fences = sorted({keys[number * len(keys) // wanted] for number in range(1, wanted)})
    identities = [b"", *(by_key[key] for key in fences), b""]
    return tuple(Range(low, high) for low, high in itertools.pairwise(identities))


def _bound(identity: bytes) -> object:
    return document(raw.document([(b"_id", identity[0], identity[1:])]))


def _measure(node: Node, listed: Listed) -> tuple[int, int]:
    """Return bytes and number of documents as the server estimates them; 0 where it does not tell."""
    db, name = listed.info.db, listed.data
    try:
        reply = node.command(db, {"collStats": name}, f"measuring {db}.{name}")
        return _number(reply, b"size"), _number(reply, b"count")
    except DedupstoreError as error:
        if is_transient(error):
            raise
    try:
        count = _number(node.command(db, {"count": name}, f"counting {db}.{name}"), b"n")
    except DedupstoreError as error:
        if is_transient(error):
            raise
        count = 0
    return count * _GUESSED_MEAN, count


def _number(reply: bytes, name: bytes) -> int:
    found = value_of(reply, name)
    if found is None:
        return 0
    kind, value = found
    if kind == raw.DOUBLE:
        return int(struct.unpack("<d", value)[0])
    return raw.int_of(kind, value) if kind in {raw.INT32, raw.INT64} else 0


def _obeys_bounds(node: Node, plan: Plan, listed: Listed, concern: dict[str, Any] | None) -> bool:
    """Ask for a range in which nothing can lie, of a collection that has something."""
    info = listed.info
    nowhere = bytes((raw.INT32,)) + raw.int32(0)
    bounded = replace(plan, order=BOUNDS)
    body = bounded.body(listed.data, Range(nowhere, nowhere), concern) | {"limit": 1}
    try:
        with Cursor(node, info.db, body, f"reading {info.namespace}") as cursor:
            return cursor.batch().number == 0
    except DedupstoreError as error:
        if is_transient(error):
            raise
        return False


def _ranges(node: Node, listed: Listed, size: int, count: int) -> tuple[Range, ...]:
    wanted = min(RANGES_MAX, -(-size // RANGE_TARGET))
    number = min(SAMPLES_MAX, wanted * SAMPLES_PER_RANGE, count // SAMPLE_SHARE)
    wanted = min(wanted, number // 4)
    if wanted < 2:
        return (Range(),)
    info = listed.info
    body = {"aggregate": listed.data, "pipeline": [{"$sample": {"size": number}}, {"$project": {"_id": 1}}]}
    try:
        with (
            node.session() as session,
            Cursor(node, info.db, body, f"sampling {info.namespace}", session=session) as cursor,
        ):
            samples = [raw.id_of(sample) for sample in cursor.documents()]
    except DedupstoreError as error:
        if is_transient(error):
            raise
        return (Range(),)
    return ranges_between(samples, wanted)


def _collation_does_not_matter(node: Node, listed: Listed) -> bool:
    """Say whether every ``_id`` is of a type that is compared alike whatever the collation."""
    ends = _types_at_ends(node, listed)
    return any(ends <= types for types in _TEXTLESS)


def _is_of_one_type(node: Node, listed: Listed) -> bool:
    """Say whether all ``_id`` are of types that a filter compares with each other."""
    ends = _types_at_ends(node, listed)
    return len(ends) <= 1 or ends <= _NUMBERS


def _types_at_ends(node: Node, listed: Listed) -> set[int]:
    """Return the types of the first and the last ``_id``: what lies between is of these or between them."""
    info, ends = listed.info, set()
    for direction in (1, -1):
        body = {"find": listed.data, "sort": {"_id": direction}, "limit": 1, "projection": {"_id": 1}}
        with Cursor(node, info.db, body, f"reading {info.namespace}") as cursor:
            ends |= {raw.id_of(found)[0] for found in cursor.documents()}
    return ends
