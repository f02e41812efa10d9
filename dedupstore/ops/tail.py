"""The verb: follow a server's log and store it, slice by slice, until asked to stop.

::

    last archived entry ── follow the log from it ── entries into a cut ── cut is old or large ── a snapshot
             ▲                                                                                        │
             └────────────────────────────────────────────────────────────────────────────────────────┘

Each slice begins with the entry that the one before ended with, so that nothing can be missing unseen.
Where the log can not be followed on, the slice is stored as far as it came and the next one says why it does
not join: the server had thrown away what was between (a hole), or it has taken back what was archived (a
rollback; then the next slice begins at the last entry that both histories have).

A lost connection, to the server or to the store, is waited out, and what was not stored is read again.
`Tail.finish` has it read up to where the log goes by then before it ends, `Tail.stop` ends it with what was
read. One thread; those two from any. Memory: that of the log's replies and of `Cut`; disk: a slice.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dedupstore.clock import Clock
from dedupstore.documents.cutting import Cut, SliceSource
from dedupstore.documents.slices import KIND, SliceFacts, entries_in, heads, slices_in
from dedupstore.documents.timeline import Base, Timeline, lineage
from dedupstore.errors import DedupstoreError, Interrupted
from dedupstore.model import SourceSpec
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult, back_up
from dedupstore.ops.followed import Broken, Log, LogServer
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import ZERO, Position, Ts, header_of
from dedupstore.tree.select import Entry

EVERY = 600.0
"""Seconds that a slice covers at most, unless said otherwise."""
MAX_SIZE = 64 << 20
"""Bytes of entries in a slice, about, unless said otherwise."""
POLL = 1.0
"""Seconds that one look at the log takes when nothing is new."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds to wait after one failure, the next, and so on."""
PAUSE = 0.1
"""Seconds to wait after a hole."""
LAST = 10.0
"""Seconds that the last reading takes at most, once it was asked to finish."""


class Listener(Protocol):
    """Hears what happens."""

    def began(self, start: Position, *, exact: bool) -> None:
        """The log is followed from here."""
        ...

    def stored(self, facts: SliceFacts, size: int, result: BackupResult) -> None:
        """A slice of so many bytes was stored."""
        ...

    def broke(self, sentence: str) -> None:
        """The log does not go on where it ended."""
        ...

    def waits(self, error: DedupstoreError, seconds: float) -> None:
        """Something failed and is tried again after so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class TailOptions:
    """How a log is followed."""

    backup: BackupOptions
    every: float = EVERY
    max_size: int = MAX_SIZE
    once: bool = False
    """Store what there is by now and end."""
    temporary: Path | None = None


@dataclass(slots=True)
class TailResult:
    """What was stored."""

    slices: int = 0
    entries: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    until: Position | None = None
    """The last archived entry, also if nothing was added."""
    seconds: float = 0.0


class Tail:
    """One run. Make it, `run` it, once."""

    def __init__(
        self,
        repo: Repository,
        server: LogServer,
        options: TailOptions,
        listener: Listener,
        report: Reporter,
        clock: Clock,
    ) -> None:
        self._repo = repo
        self._server = server
        self._options = options
        self._listener = listener
        self._report = report
        self._clock = clock
        self._lineage = lineage(SourceSpec(KIND, (b"/",), server.options))
        self._stopped = False
        self._finishing = False
        self._woken = threading.Event()
        """Set by both: nothing is waited for any more."""
        self._result = TailResult()
        self._cut: Cut | None = None
        self._place = Position(ZERO), False
        """Where to follow the log from while the cut is empty, and whether that very entry must be there."""
        self._shared: list[bytes] = []
        """The entries at the end of the cut: the next slice begins with them."""
        self._known: Ts | None = None
        """Entries up to here come once more, since the log was opened anew at the end of the cut."""
        self._failures = 0
        self._goal: Ts | None = None
        """Where to end; nowhere yet if there is none."""
        self._until: float | None = None
        """When to end, by the clock, however far it has come."""
        self._over = False

    def stop(self) -> None:
        """Ask it to store what it has read and end; from any thread, and from a signal's handler."""
        self._stopped = True
        self._woken.set()

    def finish(self) -> None:
        """Ask it to read what the server has by now, for `LAST` seconds at most, to store that and end.

        From any thread, and from a signal's handler. Where the server does not answer that is `stop`.
        """
        self._finishing = True
        self._woken.set()

    def run(self) -> TailResult:
        """Follow until `stop` or `finish`, or with `TailOptions.once` until what there is now is stored.

        Raises what can not be waited out, after storing what was read.
        """
        ticks = self._clock.monotonic()
        try:
            self._repo.sync()
            self._result.until = self._timeline().last
            if self._options.once:
                self._goal = self._server.newest().ts
            while not (self._stopped or self._over):
                self._patiently()
        finally:
            try:
                self._store()
            finally:
                self._drop()
                self._result.seconds = self._clock.monotonic() - ticks
        return self._result

    def _patiently(self) -> None:
        """Follow the log; wait after what may go away by itself."""
        try:
            self._follow()
        except DedupstoreError as error:
            if self._woken.is_set() and isinstance(error, Interrupted):
                self._over = True
                return
            passing = error.retryable or error.data.get("transient") is True
            if passing and self._finishing and not self._stopped:
                self._over = True  # there is no time to wait for anybody
                return
            if not passing or self._options.once or self._stopped:
                raise
            seconds = PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            self._listener.waits(error, seconds)
            self._woken.wait(seconds)

    def _follow(self) -> None:
        """Follow the log and store slices as they are due, until it breaks or it is time to end."""
        if self._cut is None:
            self._begin()
        log = self._open()
        due = self._clock.monotonic() + self._options.every
        try:
            while not self._stopped:
                if self._finishing and self._until is None:
                    self._until = self._clock.monotonic() + LAST
                    self._goal = self._server.newest().ts
                entries = log.poll(POLL)
                if log.broken is not None:
                    self._store()
                    self._rejoin(log.broken)
                    return
                self._failures = 0
                self._add(entries)
                now = self._clock.monotonic()
                if (self._until is not None and now >= self._until) or self._reached(idle=not entries):
                    self._over = True
                    return
                if now >= due or self._filling.size >= self._options.max_size:
                    self._store()
                    due = now + self._options.every
        finally:
            log.close()

    def _reached(self, *, idle: bool) -> bool:
        """Say whether the log was read up to the goal; ``idle``: the last look brought nothing."""
        if self._goal is None:
            return False
        end = self._filling.end
        if end is not None and end.ts >= self._goal:
            return True
        # Some servers count on without an entry, so the goal itself may never come.
        return idle and not self._server.has_entries((end or self._place[0]).ts, self._goal)

    @property
    def _filling(self) -> Cut:
        assert self._cut is not None
        return self._cut

    def _begin(self) -> None:
        """Go on from the last archived entry; where there is none, from the first snapshot within reach."""
        timeline = self._timeline()
        last = timeline.last
        start = last or self._first(timeline.bases)
        self._fill(last, start, exact=last is not None)
        if last is None and timeline.bases and start.ts > timeline.bases[-1].end:
            self._listener.broke(
                "it no longer reaches back to a snapshot: what is stored from now on can be replayed onto "
                "the next one, so take that soon"
            )

    def _first(self, bases: Sequence[Base]) -> Position:
        """Return the place from which on the log is of use to a snapshot; if it is to none, its end."""
        oldest = self._server.oldest()
        if oldest is not None:
            for base in bases:
                if base.span.first.ts >= oldest.ts:
                    return base.span.first
        return self._server.newest()

    def _fill(self, after: Position | None, start: Position, *, exact: bool, note: str = "") -> None:
        """Begin an empty cut, to be filled from ``start`` on."""
        self._drop()
        since = None if exact else start
        self._cut = Cut(after, since=since, note=note, folder=self._options.temporary)
        self._place = start, exact

    def _open(self) -> Log:
        end = self._filling.end
        start, exact = self._place if end is None else (end, True)
        self._known = None if end is None else end.ts
        self._listener.began(start, exact=exact)
        return self._server.follow(start, exact=exact)

    def _add(self, entries: Sequence[bytes]) -> None:
        cut = self._filling
        for entry in entries:
            ts = header_of(entry)[0].ts
            if self._known is not None and ts <= self._known:
                continue
            if cut.end is None or ts > cut.end.ts:
                self._shared.clear()
            cut.add(entry)
            self._shared.append(entry)

    def _rejoin(self, broken: Broken) -> None:
        """Find where to go on after the log has proved not to have the entry that it was asked for."""
        timeline = self._timeline()
        last = timeline.last
        common = self._common(timeline) if broken.rolled_back else None
        if common is not None:
            note = f"the server took back what it had written after {common.ts}, up to {last}"
            self._fill(common, common, exact=True, note=note)
            self._listener.broke(f"{note}; the log goes on from there")
            return
        self._fill(last, self._first(timeline.bases), exact=False)
        self._woken.wait(PAUSE)  # where a log is thrown away that fast, not to ask without end
        self._listener.broke(
            f"there is a hole in the log: {broken.wanted.ts} is no longer there"
            + (f", it begins at {broken.oldest.ts}" if broken.oldest is not None else "")
            + "; what comes after it can be restored from the next snapshot on"
        )

    def _common(self, timeline: Timeline) -> Position | None:
        """Return the last archived entry that the server still has."""
        for one in reversed(timeline.slices):
            known = [header_of(entry)[0] for entry in entries_in(self._repo, one.node)]
            common = self._server.common(known)
            if common is not None:
                return common
        return None

    def _store(self) -> None:
        """Store what is in the cut, if there is any news in it, and begin the next one with its end.

        If that fails the entries are dropped: the server still has them.
        """
        cut = self._cut
        if cut is None or not cut.news:
            return
        ours = self._ours()
        known = [one.node for one in slices_in(self._repo, ours)]
        adopts = [snapshot.root for _, snapshot in heads(ours)]
        source = SliceSource(cut, known, adopts, options=self._server.options, clock=self._clock)
        self._cut = None  # the source closes it
        result = back_up(self._repo, source, self._options.backup, self._report, self._clock)
        facts = source.facts
        self._result.slices += 1
        self._result.entries += facts.entries
        self._result.bytes += cut.size
        self._result.stored_bytes += result.snapshot.statistics.stored_bytes
        self._result.until = facts.end
        self._listener.stored(facts, cut.size, result)
        self._cut = Cut(facts.end, folder=self._options.temporary)
        for entry in self._shared:
            self._cut.add(entry)

    def _drop(self) -> None:
        if self._cut is not None:
            self._cut.close()
        self._cut = None
        self._shared = []

    def _timeline(self) -> Timeline:
        return Timeline(self._repo, self._ours())

    def _ours(self) -> list[Entry]:
        return [entry for entry in self._repo.snapshots() if lineage(entry[1].source) == self._lineage]
