"""Of which moment a read is: of one cluster time, or of a stretch of time with the log that makes it exact.

Three ways, of which `begin` takes the best that the server offers:

* *snapshot*: every collection is read at one cluster time. Servers keep that for 300 s only (unless
  ``minSnapshotHistoryWindowInSeconds`` says more), capped collections can not be read so, and the catalog
  is always that of now. If any of that gets in the way the read becomes one of the second kind, as it goes.
* *fuzzy*: collections are read as they are when they are read. The log of that time is kept, and with it
  the read is exact from its end on.
* *none*: a server without a log. Every collection is read as it is at that moment; nothing is promised.

The left edge is how far a majority of the set had come before anything was read, or where the oldest
transaction under way began, if that is earlier. The right edge is how far it had come after everything was.
"""

import threading
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from bson.timestamp import Timestamp

from dedupstore.errors import DedupstoreError, SourceError, UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.client import REPLICA_SET, WIRE_5_0, Deployment, Node, value_of
from dedupstore.sources.mongo.cursor import Cursor
from dedupstore.sources.mongo.logkeeper import Kept, LogKeeper
from dedupstore.sources.mongo.oplog import MAJORITY, Dialect, check_reached, majority_point
from dedupstore.sources.oplog.position import NO_TERM, Position, Ts
from dedupstore.sources.oplog.span import Span


class Consistency(Enum):
    """What is wanted."""

    AUTO = "auto"
    """The best that there is."""
    SNAPSHOT = "snapshot"
    FUZZY = "fuzzy"
    NONE = "none"
    """Without the log, though there is one: for a user who may not read it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a read turned out to be of, once everything was read."""

    start: Position
    """Everything up to here is in it, but for transactions that were under way."""
    end: Position
    """Nothing after this is in it, once the log has been replayed."""
    log: Kept
    """What is kept of the log between the two, from `begun` on; no entries if none are needed."""
    begun: Position | None = None
    """Where the oldest transaction began that was under way at `start`; None: there was none."""

    @property
    def span(self) -> Span:
        """The same as a snapshot keeps it."""
        return Span(self.start, self.end, self.begun)


class Window:
    """The time in which collections are read; a `reading.Moment`. Close it in every case.

    `begin` before the catalog is read, `finish` after the last collection; the rest from any thread.
    """

    def __init__(
        self,
        deployment: Deployment,
        wanted: Consistency = Consistency.AUTO,
        *,
        temporary: Path | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """``temporary``: the folder for what is kept of the log; None: where the system has it."""
        self._deployment = deployment
        self._wanted = wanted
        self._temporary = temporary
        self._dialect = dialect
        self._lock = threading.Lock()
        self._log: LogKeeper | None = None
        self._edge: Position | None = None
        self._at: Position | None = None
        self._snapshot = False
        self._mixed = False

    @property
    def logged(self) -> bool:
        """Whether the log is kept."""
        return self._log is not None

    @property
    def began(self) -> Position | None:
        """After `begin`: how far the set had come; None without a log."""
        return self._at

    def begin(self) -> None:
        """Fix the left edge and start keeping the log.

        Raises `UsageError` if what is wanted is not to be had from this server; `AccessError`, `SourceError`.
        """
        node = self._deployment.node()
        point = None if self._wanted is Consistency.NONE else majority_point(node)
        if point is None:
            if self._wanted in {Consistency.SNAPSHOT, Consistency.FUZZY}:
                raise UsageError(
                    f"{node.facts.host} is a {node.facts.kind} without a log, so its copy can not be "
                    f"{self._wanted.value}: back up a member of a replica set, or leave the wish out"
                )
            return
        edge = _oldest_transaction(node)
        self._at = point
        self._edge = Position(edge, NO_TERM) if edge is not None and edge < point.ts else point
        self._snapshot = self._wanted is Consistency.SNAPSHOT or (
            self._wanted is Consistency.AUTO and can_read_snapshots(node)
        )
        self._log = LogKeeper(
            self._deployment, self._edge, mark=point.ts, temporary=self._temporary, dialect=self._dialect
        )
        self._log.begin()

    @property
    def failure(self) -> DedupstoreError | None:
        """What went wrong with the log, so that reading on is for nothing."""
        return None if self._log is None else self._log.failure

    def concern_of(self, capped: bool) -> dict[str, Any] | None:
        """Return the read concern for a collection, as of now. Raises `failure`."""
        if self.failure is not None:
            raise self.failure
        with self._lock:
            if self._at is None:
                return None
            if self._snapshot and capped:
                self._mixed = True
            if not self._snapshot or capped:
                return dict(MAJORITY)
            ts = self._at.ts
            return {"level": "snapshot", "atClusterTime": Timestamp(ts.seconds, ts.increment)}

    def pass_over(self) -> bool:
        """The server has no longer what it was at the cluster time: read on as things are now."""
        with self._lock:
            if not self._snapshot or self._wanted is Consistency.SNAPSHOT:
                return False
            self._snapshot, self._mixed = False, True
            return True

    def check(self, node: Node) -> None:
        """Raise `SourceError` (transient) if a node that took over is not as far as the left edge."""
        if self._at is not None:
            check_reached(node, self._at.ts)

    def finish(self) -> Outcome | None:
        """Fix the right edge, wait for the log up to there, and say what the read is of; None: of nothing.

        Raises `SourceError` if the log has a hole; with `Consistency.SNAPSHOT`, if it is not of one moment.
        """
        if self._log is None or self._at is None or self._edge is None:
            return None
        end = majority_point(self._deployment.node()) or self._at
        kept = self._log.finish(end.ts)
        marked = self._log.up_to_mark()
        one_moment = self._snapshot and not self._mixed and not self._log.catalog_changed
        begun = self._edge if self._edge.ts < self._at.ts else None
        if one_moment or not self._log.written:
            return Outcome(self._at, self._at, marked if begun else Kept(0, 0, self._at, 0), begun)
        if self._wanted is Consistency.SNAPSHOT:
            raise SourceError(
                "the collections could not all be read at one cluster time: a capped one is among them, or "
                "collections or indexes were created or dropped meanwhile; let it choose by itself (auto)"
            )
        start = self._at if begun or not kept.entries else kept.start
        return Outcome(start, max(end, kept.end, key=_ts), kept, begun)

    def read_log(self, offset: int, view: memoryview) -> int:
        """Read what is kept of the log from ``offset`` (bytes) on."""
        return 0 if self._log is None else self._log.read_at(offset, view)

    def close(self) -> None:
        """Forget the log; a second call does nothing."""
        if self._log is not None:
            self._log.close()


def can_read_snapshots(node: Node) -> bool:
    """Say whether a server reads at a cluster time when it is asked to.

    Only MongoDB's own is believed: others take the request, answer as if they had obeyed, and give what is
    there now.
    """
    facts = node.facts
    return facts.mongod and facts.kind == REPLICA_SET and facts.wire >= WIRE_5_0


def _oldest_transaction(node: Node) -> Ts | None:
    """Return where the oldest transaction under way began, if there is one that has written."""
    body = {
        "find": "transactions",
        "filter": {"state": {"$in": ["prepared", "inProgress"]}},
        "projection": {"startOpTime": 1},
        "readConcern": {"level": "local"},
    }
    found: list[Ts] = []
    with (
        node.session() as session,
        Cursor(node, "config", body, "looking for transactions", session=session) as c,
    ):
        for row in c.documents():
            ts = value_of(row, b"startOpTime", b"ts")
            if ts is not None and ts[0] == raw.TIMESTAMP:
                found.append(Ts.of(ts[1]))
    return min(found, default=None)


def _ts(position: Position) -> Ts:
    return position.ts
