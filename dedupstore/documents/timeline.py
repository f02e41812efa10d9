"""What can be restored to: snapshots of one source as starting points, and the log between and behind them.

A snapshot read while the source was written to is of no single moment (see `span`); with the log from its
start it is exact from its end on. So an instant can be had if a snapshot ended by then and the log has no
hole from that snapshot's start to the instant. Nothing is guessed: what no slice proves is not offered.

Built once from a list of snapshots; safe from any thread afterwards. Memory: 300 bytes a slice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from dedupstore.documents.moments import Moment, iso, time_of
from dedupstore.documents.runs import Run, entries_of_run, runs_of
from dedupstore.documents.slices import KIND, Slice, entries_in, own_log, slices_in
from dedupstore.errors import NotFoundError, ObjectDamaged
from dedupstore.ids import SnapshotId, short
from dedupstore.model import Snapshot, SourceSpec
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import Position, Ts, header_of
from dedupstore.sources.oplog.span import Span

Entry = tuple[SnapshotId, Snapshot]
_LAST = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Base:
    """A snapshot to start from."""

    id: SnapshotId
    snapshot: Snapshot
    span: Span

    @property
    def end(self) -> Ts:
        """Nothing after this is in it; with the log it is exact from here on."""
        return self.span.end.ts


@dataclass(frozen=True, slots=True)
class Interval:
    """Instants that can be had, both ends included."""

    start: Ts
    end: Ts
    bases: tuple[SnapshotId, ...]
    """What they start from, oldest first."""
    why_ends: str
    notes: tuple[str, ...] = ()
    """What else is known of the log in it (rollbacks)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How one instant is had: a snapshot, and the operations to replay onto it."""

    base: Base
    until: Ts
    """The last operation that counts (there need not be one of exactly that timestamp)."""
    entries: Callable[[], Iterator[bytes]]
    """Yields raw log entries in order, some of before `after` among them; each call begins anew."""

    @property
    def after(self) -> Ts:
        """What took effect up to here is in the snapshot; such entries are for open transactions only."""
        return self.base.span.start.ts

    @property
    def fuzzy_until(self) -> Ts | None:
        """Up to where operations may be in the snapshot already; ``None``: none is."""
        return None if self.base.span.exact else self.base.end


def lineage(spec: SourceSpec) -> str:
    """Return what snapshots and slices of one server have in common, and those of no other."""
    options = spec.options
    if "set" not in options:
        return options.get("uri", "")
    return f"{options['set']} {options['id']}" if "id" in options else options["set"]


def span(snapshot: Snapshot) -> Span | None:
    """Return between which places of the log a snapshot was read; ``None`` if it does not say so."""
    if snapshot.position is None or snapshot.source.kind == KIND:
        return None
    try:
        return Span.unpack(snapshot.position)
    except ValueError as error:
        raise ObjectDamaged(
            "a snapshot does not say properly where the log stood: run a verify of the repository"
        ) from error


def timelines(repo: Repository, snapshots: Sequence[Entry]) -> dict[str, "Timeline"]:
    """Return a timeline for each server that has snapshots with a position or slices, by `lineage`."""
    found: dict[str, list[Entry]] = {}
    for entry in snapshots:
        if entry[1].source.kind == KIND or span(entry[1]) is not None:
            found.setdefault(lineage(entry[1].source), []).append(entry)
    return {name: Timeline(repo, entries) for name, entries in sorted(found.items())}


class Timeline:
    """The snapshots and the log of one source."""

    def __init__(self, repo: Repository, snapshots: Iterable[Entry]) -> None:
        """``snapshots`` in order of commits, all of one source; those without a position do not count."""
        self._repo = repo
        listed = list(snapshots)
        self.bases: list[Base] = sorted(
            (
                Base(identifier, snapshot, ends)
                for identifier, snapshot in listed
                if (ends := span(snapshot)) is not None
            ),
            key=lambda base: (base.end, base.snapshot.sequence),
        )
        self.slices: list[Slice] = slices_in(repo, listed)
        self._own = [
            log
            for base in self.bases
            if not base.span.exact or base.span.begun is not None
            if (log := own_log(repo, base.snapshot, base.span)) is not None
        ]

    @cached_property
    def runs(self) -> list[Run]:
        """The unbroken stretches of the log, in order."""
        return runs_of([*self.slices, *self._own])

    @property
    def last(self) -> Position | None:
        """The last archived entry, after which a tail goes on; ``None`` if there is none."""
        ends = [one.facts.end for one in self.slices]
        return max(ends, key=lambda end: (end.term, end.ts), default=None)

    def ranges(self) -> list[Interval]:
        """Return what can be restored to, in order of time, as few intervals as there are."""
        found: list[Interval] = []
        for number, run in enumerate(self.runs):
            bases = [base for base in self.bases if serves(base, run)]
            if bases:
                why = self._why_ends(number)
                ids = tuple(base.id for base in bases)
                found.append(Interval(bases[0].end, run.end.ts, ids, why, tuple(run.notes)))
        for base in self.bases:
            if base.span.exact and not any(one.start <= base.end <= one.end for one in found):
                why = (
                    "nothing of the log behind it is stored: the next `dstore snapshot --mongo` stores it, "
                    "and so does `dstore mongo tail`"
                )
                found.append(Interval(base.end, base.end, (base.id,), why))
        return sorted(found, key=lambda one: (one.start, one.end))

    def _why_ends(self, number: int) -> str:
        if number + 1 == len(self.runs):
            return "nothing after it is archived yet"
        return self.runs[number + 1].why_begins or "what follows does not join it"

    def choose(self, moment: Moment, *, covers: Callable[[Snapshot], bool] = lambda _: True) -> Choice:
        """Return how a moment is had, from the newest snapshot that serves.

        ``covers`` says which snapshots hold what is wanted (one of another database does not).
        Raises `NotFoundError`: before everything, naming the earliest instant; in a hole, naming both its
        ends; after everything, naming the last. Data: ``earliest``, ``before``, ``after`` (`Ts` or absent).
        """
        bases = [base for base in self.bases if covers(base.snapshot)]
        for run in self.runs:
            until = self._until(moment, run)
            if until is None:
                continue
            fitting = [base for base in bases if serves(base, run) and base.end <= until]
            if fitting:
                base = fitting[-1]
                return Choice(base, until, partial(self.entries_in, run, base.span.first.ts, until))
        named = moment.ts
        for base in bases:
            if base.span.exact and base.end == named and not moment.exclusive:
                return Choice(base, base.end, partial(iter, ()))
        raise self._not_there(moment, bases)

    def entries(self, after: Ts, until: Ts) -> Iterator[bytes]:
        """Yield the raw log entries behind ``after`` up to and with ``until``, each once.

        Raises `NotFoundError` naming both ends of the hole if no stretch of the log has all of them.
        """
        for run in self.runs:
            if run.start.ts <= after and until <= run.end.ts:
                return self.entries_in(run, _after(after), until)
        known = ", ".join(f"{run.start.ts} to {run.end.ts}" for run in self.runs) or "nothing"
        raise NotFoundError(
            f"the log from {after} to {until} is not archived without a hole (archived: {known}); "
            "`dstore mongo ranges` shows what can be had",
            after=after,
            until=until,
        )

    def entries_in(self, run: Run, first: Ts, last: Ts) -> Iterator[bytes]:
        """Yield the raw entries of one of `runs` from ``first`` to ``last``, both included."""
        return entries_of_run(lambda one: entries_in(self._repo, one.node), run, first, last)

    def _until(self, moment: Moment, run: Run) -> Ts | None:
        """Return the last timestamp that counts, if the run shows all that happened by the moment."""
        named = moment.ts
        if named is not None:
            if not run.start.ts <= named <= run.end.ts:
                return None
            return _before(named) if moment.exclusive else named
        if moment.seconds < run.start.ts.seconds:
            return None
        if moment.millis is None:
            return Ts(moment.seconds, _LAST) if moment.seconds < run.end.ts.seconds else None
        return self._until_wall(moment, run)

    def _until_wall(self, moment: Moment, run: Run) -> Ts | None:
        """Find the first entry of a run that is later than a time of day; count what lies before it."""
        last: Ts | None = None
        for piece in run.pieces:
            facts = piece.slice.facts
            if facts.wall and moment.includes(facts.end.ts, facts.wall):
                last = facts.end.ts if piece.upto is None else min(facts.end.ts, piece.upto.ts)
                continue
            for entry in entries_in(self._repo, piece.slice.node):
                position, wall = header_of(entry)
                if piece.upto is not None and position.ts >= piece.upto.ts:
                    break
                if not moment.includes(position.ts, wall):
                    return last
                last = position.ts
        wall = run.pieces[-1].slice.facts.wall
        reached = moment.seconds < run.end.ts.seconds or wall >= moment.seconds * 1000 + (moment.millis or 0)
        return last if reached else None

    def _not_there(self, moment: Moment, bases: Sequence[Base]) -> NotFoundError:
        ranges = [one for one in self.ranges() if set(one.bases) & {base.id for base in bases}]
        if not ranges:
            return NotFoundError(
                "no snapshot of it says where the log stood: take one with `dstore snapshot --mongo URI`"
            )
        before = [one for one in ranges if _ended(one, moment)]
        after = [one for one in ranges if not _ended(one, moment)]
        if not before:
            first = after[0]
            return NotFoundError(
                f"nothing can be had of {moment}: the earliest instant is {_named(first.start)}, that of "
                f"snapshot {short(first.bases[0])}; ask for it or a later one",
                earliest=first.start,
            )
        if not after:
            end = before[-1]
            return NotFoundError(
                f"{moment} can not be had: the log is known until {_named(end.end)} and {end.why_ends}; "
                "ask for that operation or an earlier one",
                before=end.end,
            )
        return NotFoundError(
            f"{moment} lies in a hole: what was before can be had until {_named(before[-1].end)} "
            f"({before[-1].why_ends}), what came after from {_named(after[0].start)} on; ask for one of them",
            before=before[-1].end,
            after=after[0].start,
        )


def serves(base: Base, run: Run) -> bool:
    """Say whether a run has everything that a snapshot needs to be exact and to go on."""
    return run.start.ts <= base.span.first.ts and base.end <= run.end.ts


def _ended(one: Interval, moment: Moment) -> bool:
    """Say whether an interval lies before a moment (which is in none)."""
    named = moment.ts
    return one.end < named if named is not None else one.end.seconds <= moment.seconds


def _after(ts: Ts) -> Ts:
    return Ts(ts.seconds, ts.increment + 1) if ts.increment < _LAST else Ts(ts.seconds + 1, 0)


def _before(ts: Ts) -> Ts:
    return Ts(ts.seconds, ts.increment - 1) if ts.increment else Ts(ts.seconds - 1, _LAST)


def _named(ts: Ts) -> str:
    return f"{ts} ({iso(time_of(ts))})"
