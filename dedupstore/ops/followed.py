"""What a server must offer so that its log can be followed; made for MongoDB in `dedupstore.ops.taillog`.

Threads: one uses a server and its logs at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from dedupstore.sources.oplog.position import Position, Ts


class Broken(Protocol):
    """Why a log can not be followed from an entry."""

    @property
    def rolled_back(self) -> bool:
        """Whether another history has taken the entry's place; else the log no longer reaches back to it."""
        ...

    @property
    def wanted(self) -> Position:
        """The entry that is not there."""
        ...

    @property
    def oldest(self) -> Position | None:
        """The first entry that is."""
        ...


class Log(Protocol):
    """A server's log, followed from some entry on. Close it."""

    @property
    def broken(self) -> Broken | None:
        """Set once it can not be followed any further."""
        ...

    def poll(self, wait: float) -> list[bytes]:
        """Return the next raw entries; none if none came within ``wait`` seconds, or when it is broken."""
        ...

    def close(self) -> None:
        """Stop following."""
        ...


class LogServer(Protocol):
    """Whose log is followed. Errors: `SourceError` and its kin, with the data attribute ``transient``."""

    @property
    def options(self) -> dict[str, str]:
        """What snapshots of it say of themselves: ``uri`` without credentials, ``set``."""
        ...

    def follow(self, start: Position, *, exact: bool) -> Log:
        """Begin at an entry; without ``exact`` at the first one that is not before it."""
        ...

    def oldest(self) -> Position | None:
        """Return the first entry that the log has."""
        ...

    def newest(self) -> Position:
        """Return how far the log goes that can not be taken back."""
        ...

    def has_entries(self, after: Ts, until: Ts) -> bool:
        """Say whether the log has entries behind one place, up to and with another."""
        ...

    def common(self, known: Sequence[Position]) -> Position | None:
        """Return the last of these entries that the log has; ``known`` in order."""
        ...
