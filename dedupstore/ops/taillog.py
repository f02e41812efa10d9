"""A live server as `tail` sees it: its log, and who it is."""

from collections.abc import Callable, Sequence

from dedupstore.errors import UsageError
from dedupstore.sources.mongo.catalog import Catalog, Selection, described, read_catalog
from dedupstore.sources.mongo.client import Deployment
from dedupstore.sources.mongo.oplog import (
    Break,
    Dialect,
    OplogTail,
    Why,
    common_point,
    has_entries,
    majority_point,
    oldest_entry,
)
from dedupstore.sources.oplog.position import Position, Ts


class Broken:
    """See `followed.Broken`."""

    def __init__(self, found: Break) -> None:
        self.rolled_back = found.why is Why.ROLLED_BACK
        self.wanted = found.wanted
        self.oldest = found.oldest


class FollowedLog:
    """See `followed.Log`."""

    def __init__(self, tail: OplogTail) -> None:
        self._tail = tail

    @property
    def broken(self) -> Broken | None:
        """Why it can not be followed any further."""
        return None if self._tail.broken is None else Broken(self._tail.broken)

    def poll(self, wait: float) -> list[bytes]:
        """Return the next entries."""
        return self._tail.poll(wait)

    def close(self) -> None:
        """Close the cursor."""
        self._tail.close()


class MongoLogServer:
    """A deployment; see `followed.LogServer`. The deployment stays the caller's."""

    def __init__(self, deployment: Deployment, dialect: Callable[[Catalog], Dialect] | None = None) -> None:
        """``dialect``: see `dedupstore.sources.mongo.oplog.Dialect`. Connects."""
        self._deployment = deployment
        self._dialect = dialect
        self.options = described(deployment)

    def follow(self, start: Position, *, exact: bool) -> FollowedLog:
        """Begin at an entry."""
        dialect = None
        if self._dialect is not None:
            dialect = self._dialect(read_catalog(self._deployment.node(), Selection()))
        return FollowedLog(OplogTail(self._deployment, start, exact=exact, dialect=dialect))

    def oldest(self) -> Position | None:
        """Return the first entry."""
        return oldest_entry(self._deployment.node())

    def newest(self) -> Position:
        """Return how far a majority has come. Raises `UsageError` where there is no log."""
        node = self._deployment.node()
        point = majority_point(node)
        if point is None:
            raise UsageError(
                f"{node.facts.host} is a {node.facts.kind} and keeps no log that could be followed: name a "
                "replica set, and of a cluster each of its shards"
            )
        return point

    def has_entries(self, after: Ts, until: Ts) -> bool:
        """Say whether the log has entries behind one place, up to and with another."""
        return has_entries(self._deployment.node(), after, until)

    def common(self, known: Sequence[Position]) -> Position | None:
        """Return the last of these entries that the log has."""
        return common_point(self._deployment, known)
