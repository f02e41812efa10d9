"""Following a replica set's log: entries as raw BSON, in order, each once, and proof that none is missing.

Entries are read with majority concern, so that what arrives was never rolled back; a server that gives more
than that is found out at the next overlap. A tail begins *at* an entry it is told of: that the log still has
that entry, of the same term, proves that nothing lies between. After a lost connection the same is asked of
the last entry that arrived, on whichever member answers. Where the proof fails the tail says which it is:
the log no longer reaches back that far, or another history has taken its place.
"""

import contextlib
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from bson.timestamp import Timestamp

from dedupstore.errors import DedupstoreError, SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.client import REPLICA_SET, Deployment, Node, value_of
from dedupstore.sources.mongo.cursor import Cursor
from dedupstore.sources.mongo.failures import CURSOR_NOT_FOUND, code_of, is_transient
from dedupstore.sources.oplog.position import NO_TERM, Position, Ts, header_of

DB, LOG = "local", "oplog.rs"
REPLY = 16 << 10
"""Entries a reply; the server ends one at 16 MiB whatever is asked."""
ATTEMPTS = 8
MAJORITY: dict[str, Any] = {"level": "majority"}
_DOING = "reading the log"
_WAIT_MIN = 0.005


class Why(Enum):
    """Why a log can not be followed from where it was asked for."""

    TOO_OLD = "the log no longer reaches back to it"
    """Or has no entry there for another reason; nothing shows that it was ever taken back."""
    ROLLED_BACK = "the log shows another history from there on: it was rolled back"


class Break(NamedTuple):
    """The place where following a log ended."""

    why: Why
    wanted: Position
    """The entry that is not there."""
    oldest: Position | None
    """The first entry that is."""


class Dialect(Protocol):
    """Makes entries of a server that writes its log in words of its own into mongod's."""

    def translated(self, entry: bytes) -> list[bytes]:
        """Return what an entry says. Raises `SourceError` for what can not be said."""
        ...


class OplogTail:
    """Follows the log of a deployment. One thread; close it in every case.

    ``start`` is the position to begin with. If ``exact`` there must be an entry of that timestamp and term,
    which is the first to be delivered; else the log must reach back that far, and delivery begins with the
    first entry not before it. ``dialect``: see there; entries of one timestamp then come together.
    Memory: one reply, 16 MiB at most.
    """

    def __init__(
        self, deployment: Deployment, start: Position, *, exact: bool = True, dialect: Dialect | None = None
    ) -> None:
        self._deployment = deployment
        self._start = start
        self._exact = exact
        self._dialect = dialect
        self._node: Node | None = None
        self._cursor: Cursor | None = None
        self._open_things = contextlib.ExitStack()
        self._waiting: deque[bytes] = (
            deque()
        )  # read, not delivered: entries that may not be all of a timestamp
        self._failed = 0
        self.position: Position | None = None
        """The last entry that was delivered; None before the first."""
        self.broken: Break | None = None
        """Set once the log can not be followed any further; then nothing more is delivered."""

    def poll(self, wait: float) -> list[bytes]:
        """Return the next entries in order; none if none came within about ``wait`` seconds, or when broken.

        Reconnects where a connection is lost (`Deployment.replace`). Raises `AccessError`, `SourceError`.
        """
        while self.broken is None:
            try:
                found = self._poll(wait)
            except DedupstoreError as error:
                self._recover(error)
                continue
            self._failed = 0
            return found
        return []

    def close(self) -> None:
        """Close the cursor; a second call does nothing."""
        self._cursor = None
        self._open_things.close()

    def _poll(self, wait: float) -> list[bytes]:
        fresh: list[bytes] = []
        if self._cursor is None:
            fresh = self._open()
        elif not self._cursor.alive:
            self.close()  # the server ended it: nothing is lost, the next one begins where this one stood
            self._deployment.pause(0)
            return []
        ready = self._delivered(fresh) if fresh else []
        while not ready and self._cursor is not None and self.broken is None:
            fresh = list(raw.documents(self._cursor.batch(max(wait, _WAIT_MIN)).data))
            ready = self._delivered(fresh)
            if not fresh:
                break
        return ready

    def _delivered(self, fresh: list[bytes]) -> list[bytes]:
        """Note where we are. With a dialect, hold back what may not be all of its timestamp."""
        if self._dialect is None:
            if fresh:
                self.position = header_of(fresh[-1])[0]
            return fresh
        self._waiting.extend(fresh)
        if not self._waiting:
            return []
        last = header_of(self._waiting[-1])[0].ts
        ready = []
        while self._waiting and (not fresh or header_of(self._waiting[0])[0].ts != last):
            entry = self._waiting.popleft()
            self.position = header_of(entry)[0]
            ready += self._dialect.translated(entry)
        return ready

    def _open(self) -> list[bytes]:
        """Open a cursor; check that it begins where it should; return what came behind that."""
        resumed = self.position is not None
        wanted = self.position or self._start
        self._waiting.clear()
        node = self._node = self._deployment.node()
        session = self._open_things.enter_context(node.session())
        opening = Cursor(node, DB, _follow(node, wanted.ts), _DOING, size=REPLY, session=session)
        cursor = self._open_things.enter_context(opening)
        entries = list(raw.documents(cursor.batch().data))
        if not self._begins(node, wanted, entries, exact=self._exact or resumed):
            self.close()
            return []
        self._cursor = cursor
        if not resumed:
            return entries
        while entries and header_of(entries[0])[0].ts == wanted.ts:
            del entries[0]
        return entries

    def _begins(self, node: Node, wanted: Position, entries: list[bytes], *, exact: bool) -> bool:
        first = header_of(entries[0])[0] if entries else None
        if exact and first is not None and is_same(first, wanted):
            return True
        oldest = oldest_entry(node)
        reaches = oldest is not None and oldest.ts <= wanted.ts
        if reaches and not exact:
            return True
        if reaches and first is None:
            check_reached(node, wanted.ts)
            first = first_from(node, wanted.ts)
            if first is not None and is_same(first, wanted):  # it has come between the two looks
                raise SourceError(f"{node.facts.host} has only just come to {wanted.ts}", transient=True)
        parted = reaches and first is not None and is_parted(first, wanted)
        self.broken = Break(Why.ROLLED_BACK if parted else Why.TOO_OLD, wanted, oldest)
        return False

    def _recover(self, error: DedupstoreError) -> None:
        self.close()
        if not is_transient(error):
            raise error
        self._failed += 1
        if self._failed > ATTEMPTS:
            raise error
        self._deployment.pause(self._failed - 1)
        if code_of(error) != CURSOR_NOT_FOUND and self._node is not None:
            self._deployment.replace(self._node)


def is_same(found: Position, wanted: Position) -> bool:
    """Say whether two positions are of one entry; a term that is not known is any."""
    return found.ts == wanted.ts and (found.term == wanted.term or NO_TERM in {found.term, wanted.term})


def is_parted(first: Position, wanted: Position) -> bool:
    """Say whether a log took back an entry, by the first one that it has from that place on instead.

    What takes the place of entries is written by a later primary, so it is of another term. Without terms
    it is enough that the entry is not there where others before and behind it are.
    """
    return first.term != wanted.term or first.term == NO_TERM


def oldest_entry(node: Node) -> Position | None:
    """Return the place of the first entry that the log still has; None if it has none."""
    return _one(node, {"find": LOG, "sort": {"$natural": 1}, "limit": 1})


def entry_at(node: Node, ts: Ts) -> Position | None:
    """Return the place of the entry of a timestamp, if the log has one."""
    return _one(node, {"find": LOG, "filter": {"ts": _timestamp(ts)}, "limit": 1})


def first_from(node: Node, ts: Ts) -> Position | None:
    """Return the place of the first entry that is not before a timestamp, if there is one."""
    return _one(node, {"find": LOG, "filter": {"ts": {"$gte": _timestamp(ts)}}, "limit": 1})


def has_entries(node: Node, after: Ts, until: Ts) -> bool:
    """Say whether the log has entries behind ``after`` up to and with ``until``."""
    stretch = {"ts": {"$gt": _timestamp(after), "$lte": _timestamp(until)}}
    return _one(node, {"find": LOG, "filter": stretch, "limit": 1}) is not None


def common_point(deployment: Deployment, known: Sequence[Position]) -> Position | None:
    """Return the last of ``known`` (in order of the log) that the log has, of the same term.

    That is where two histories part after a rollback. None if the log has none of them. Asks for some
    15 entries of a thousand.
    """
    node = deployment.node()
    oldest = oldest_entry(node)
    inside = [position for position in known if oldest is not None and position.ts >= oldest.ts]
    low, high = 0, len(inside)  # all before ``low`` are there, none from ``high`` on
    while low < high:
        middle = (low + high) // 2
        found = entry_at(node, inside[middle].ts)
        if found is not None and is_same(found, inside[middle]):
            low = middle + 1
        else:
            high = middle
    return inside[low - 1] if low else None


def majority_point(node: Node) -> Position | None:
    """Return how far a majority of the set has come, as this member knows; None for what is no replica set.

    No entry up to there can be rolled back, and none is still missing.
    """
    if node.facts.kind != REPLICA_SET:
        return None
    reply = node.command("admin", {"hello": 1}, "asking how far the set has come")
    ts = value_of(reply, b"lastWrite", b"majorityOpTime", b"ts")
    if ts is None or ts[0] != raw.TIMESTAMP:
        raise SourceError(
            f"{node.facts.host} does not say how far a majority of {node.facts.set_name} has come: "
            "wait until the set has a primary, then run it again"
        )
    term = value_of(reply, b"lastWrite", b"majorityOpTime", b"t")
    known = term is not None and term[0] in {raw.INT32, raw.INT64}
    return Position(Ts.of(ts[1]), raw.int_of(*term) if known and term is not None else NO_TERM)


def check_reached(node: Node, ts: Ts) -> None:
    """Raise `SourceError` (transient) unless a node knows that a majority of its set has come to ``ts``."""
    point = majority_point(node)
    if point is not None and point.ts < ts:
        raise SourceError(
            f"{node.facts.host} is only at {point.ts} and not yet at {ts}: wait until it has caught up",
            transient=True,
        )


def _one(node: Node, body: dict[str, Any]) -> Position | None:
    with Cursor(node, DB, body | {"readConcern": MAJORITY}, _DOING) as cursor:
        for entry in cursor.documents():
            return header_of(entry)[0]
    return None


def _follow(node: Node, start: Ts) -> dict[str, Any]:
    body: dict[str, Any] = {
        "find": LOG,
        "filter": {"ts": {"$gte": _timestamp(start)}},
        "tailable": True,
        "awaitData": True,
    }
    if node.facts.kind == REPLICA_SET:
        body["readConcern"] = MAJORITY
    return body


def _timestamp(ts: Ts) -> Timestamp:
    return Timestamp(ts.seconds, ts.increment)
