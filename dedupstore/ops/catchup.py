"""A server's last snapshot moved forward to now by its log: slices that are stored, then the server's own.

Nothing is taken on trust: slices must be whole from the snapshot on, and the server's log must reach back to
where the slices, or else the snapshot, end, and show no other history there. Memory: that of `replay`; what
is more lies in temporary files.
"""

from collections.abc import Iterator
from pathlib import Path

from dedupstore.documents.replay import covered_by, replay
from dedupstore.documents.replayed import ReplayedView
from dedupstore.documents.runs import Run
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Base, Timeline, serves
from dedupstore.errors import NotFoundError
from dedupstore.ops.followed import LogServer
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import NO_TERM, Position, Ts, header_of

LOOK = 0.5
"""Seconds that one look at the log takes when nothing is new."""


def newest_base(timeline: Timeline, only: str) -> Base | None:
    """Return the last snapshot that says where the log stood and is of the same collections.

    ``only``: what such snapshots say of themselves, empty for all collections.
    """
    fitting = (base for base in timeline.bases if base.snapshot.source.options.get("only", "") == only)
    return max(fitting, key=lambda base: base.snapshot.sequence, default=None)


def caught_up(
    repo: Repository, timeline: Timeline, base: Base, server: LogServer | None, spill: Path | None = None
) -> ReplayedView:
    """Return a snapshot's collections as they are now at the server, by the log alone; close it.

    ``server``: whose log goes on where what is stored ends; ``None``: as they are at that end.
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


def is_stored(timeline: Timeline, base: Base) -> bool:
    """Say whether the log is stored from a snapshot on, without a hole."""
    return _run(timeline, base) is not None


def _run(timeline: Timeline, base: Base) -> Run | None:
    return next((run for run in timeline.runs if serves(base, run)), None)


def _entries(timeline: Timeline, base: Base, server: LogServer | None) -> Iterator[bytes]:
    """Yield the log from a snapshot until now."""
    run, span = _run(timeline, base), base.span
    if run is not None:
        yield from timeline.entries_in(run, span.first.ts, run.end.ts)
    elif server is None:
        raise NotFoundError(f"the log behind it is not stored: it begins with operation {span.first.ts}")
    if server is not None:
        start, place = (span.first, span.end) if run is None else (run.end, run.end)
        yield from _from_server(server, start, place, known=None if run is None else run.end.ts)


def _from_server(server: LogServer, start: Position, place: Position, *, known: Ts | None) -> Iterator[bytes]:
    """Yield the entries of a server's log from ``start`` on, but for those up to ``known``.

    ``place`` is where it was seen to be once: nothing that it shows there may be of another history. There
    need be no entry of that place.
    """
    newest = server.newest()
    goal = newest.ts
    if goal == place.ts:
        _check(newest, place)
    if goal < place.ts:
        raise NotFoundError(f"the server's log goes to {goal} only and does not have operation {place.ts}")
    log = server.follow(start, exact=False)
    last = start.ts
    passed = False
    try:
        while last < goal:
            entries = log.poll(LOOK)
            if log.broken is not None:
                raise NotFoundError(f"the server's log no longer has operation {log.broken.wanted.ts}")
            for entry in entries:
                position = header_of(entry)[0]
                last = position.ts
                if last >= place.ts and not passed:
                    passed = True
                    _check(position, place)
                if known is None or last > known:
                    yield entry
            if not entries and not server.has_entries(last, goal):
                break
    finally:
        log.close()


def _check(first: Position, place: Position) -> None:
    """Raise `NotFoundError` if the first entry that is not before a place shows another history.

    What takes the place of entries is of a later term. That there is none of the place itself proves nothing:
    some servers count on without writing any.
    """
    if first.term != place.term and NO_TERM not in {first.term, place.term}:
        raise NotFoundError(f"the server's log has taken back operation {place.ts}")
