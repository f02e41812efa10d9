"""A server's last snapshot moved forward to now by its log: slices that are stored, then the server's own.

Nothing is taken on trust: slices must be whole from the snapshot on, and the server must still have the entry
that the slices, or else the snapshot, end with. Memory: that of `replay`; what is more lies in temporary
files.
"""

from collections.abc import Iterator
from pathlib import Path

from dedupstore.documents.replay import covered_by, replay
from dedupstore.documents.replayed import ReplayedView
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Base, Timeline, serves
from dedupstore.errors import NotFoundError
from dedupstore.ops.tail import IDLE_LOOKS, Log, LogServer
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import Position, Ts, header_of

LOOK = 0.5
"""Seconds that one look at the log takes when nothing is new."""


def newest_base(timeline: Timeline, only: str) -> Base | None:
    """Return the last snapshot that says where the log stood and is of the same collections.

    ``only``: what such snapshots say of themselves, empty for all collections.
    """
    fitting = (base for base in timeline.bases if base.snapshot.source.options.get("only", "") == only)
    return max(fitting, key=lambda base: base.snapshot.sequence, default=None)


def caught_up(
    repo: Repository, timeline: Timeline, base: Base, server: LogServer, spill: Path | None = None
) -> ReplayedView:
    """Return a snapshot's collections as they are now at the server, by the log alone; close it.

    Raises `NotFoundError` saying why where the log is not whole, `SourceError` for what can not be replayed,
    and what asking the server raises.
    """
    return replay(
        StoredDump(repo, base.snapshot, at=base.end),
        _entries(timeline, base, server),
        after=base.span.start.ts,
        fuzzy_until=None if base.span.exact else base.end,
        covers=covered_by(base.snapshot),
        spill=spill,
    )


def _entries(timeline: Timeline, base: Base, server: LogServer) -> Iterator[bytes]:
    """Yield the log from a snapshot until now."""
    goal = server.newest().ts
    run = next((run for run in timeline.runs if serves(base, run)), None)
    span = base.span
    if run is not None:
        yield from timeline.entries_in(run, span.first.ts, run.end.ts)
        yield from _from_server(server.follow(run.end, exact=True), goal, known=run.end.ts)
    elif span.first.ts == span.end.ts:
        yield from _from_server(server.follow(span.end, exact=True), goal)
    else:
        yield from _from_server(server.follow(span.first, exact=False), goal, must_have=span.end)


def _from_server(
    log: Log, goal: Ts, *, known: Ts | None = None, must_have: Position | None = None
) -> Iterator[bytes]:
    """Yield entries behind ``known`` up to ``goal``; ``must_have`` must be among them, if it is given."""
    idle = 0
    last: Ts | None = None
    try:
        while idle < IDLE_LOOKS and (last is None or last < goal):
            entries = log.poll(LOOK)
            broken = log.broken
            if broken is not None:
                how = "has taken back" if broken.rolled_back else "no longer has"
                raise NotFoundError(f"the server's log {how} operation {broken.wanted.ts}")
            idle = 0 if entries else idle + 1
            for entry in entries:
                position = header_of(entry)[0]
                last = position.ts
                if must_have is not None and last >= must_have.ts:
                    if position != must_have:
                        raise NotFoundError(f"the server's log has taken back operation {must_have.ts}")
                    must_have = None
                if known is None or last > known:
                    yield entry
    finally:
        log.close()
    if must_have is not None:
        raise NotFoundError(f"the server's log does not have operation {must_have.ts}")
