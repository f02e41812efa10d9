"""Slices put together: the unbroken stretches of a log, and where one slice gives way to the next.

A stretch (`Run`) has every operation from its first to its last one. Slices join where one begins with an
entry that the other has. Where the server took operations back (a rollback) the slice of the
later term wins from the common entry on; what the older one has behind that never came to be.

Pure functions over facts; `entries_of_run` reads. Memory: one slice is read at a time, see `reading`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dedupstore.documents.slices import Slice
from dedupstore.errors import IntegrityError
from dedupstore.findings import printable
from dedupstore.sources.oplog.position import Position, Ts, header_of

ReadSlice = Callable[[Slice], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Piece:
    """What counts of one slice: everything before ``upto``."""

    slice: Slice
    upto: Position | None
    """Where the next slice takes over; ``None``: nowhere."""
    shared: bool = False
    """Whether there is an entry at that place, which both slices have."""

    @property
    def end(self) -> Ts:
        """Up to where it counts."""
        return (self.slice.facts.ends if self.upto is None else self.upto).ts


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a log without a hole. Not empty."""

    pieces: tuple[Piece, ...]

    @property
    def start(self) -> Position:
        """From where on nothing is missing: its first entry, or a place before that."""
        return self.pieces[0].slice.facts.begins

    @property
    def end(self) -> Position:
        """Up to where nothing is missing: its last entry, or a place behind that."""
        return self.pieces[-1].slice.facts.ends

    @property
    def why_begins(self) -> str:
        """Why nothing before its first entry belongs to it."""
        return self.pieces[0].slice.facts.why

    @property
    def notes(self) -> list[str]:
        """What was said of slices inside it (rollbacks)."""
        inside = [piece.slice.facts for piece in self.pieces[1:]]
        return [facts.why for facts in inside if facts.why and facts.proven]


def runs_of(slices: Iterable[Slice]) -> list[Run]:
    """Put slices together; return the stretches in order of where they begin."""
    runs: list[Run] = []
    # Terms never fall along a log: what comes last here is what the server stands by.
    for one in sorted(slices, key=lambda s: (s.facts.end.term, s.facts.ends.ts, s.facts.begins.ts)):
        joined = [run for run in runs if _joins(one, run)]
        if any(one.facts.ends.ts <= run.end.ts and one.facts.end.term <= run.end.term for run in joined):
            continue  # a run has all of it already
        base = joined[-1] if joined else None
        run = Run((*_cut(base, one), Piece(one, None)) if base is not None else (Piece(one, None),))
        runs = [other for other in runs if other is not base and not _swallows(run, other)]
        runs.append(run)
    return sorted(runs, key=lambda run: (run.start.ts, run.end.ts))


def _joins(one: Slice, run: Run) -> bool:
    """Say whether a slice begins with an entry that a run has, or at a place in it.

    Both are without holes and the slice's first entry stands where the run is. So the run has it, unless it
    is of a later term than the run's end: then only the tail that cut the slice can have seen it.
    """
    facts = one.facts
    known = (
        facts.proven or facts.start.term <= run.end.term or facts.begins.ts == run.end.ts != facts.start.ts
    )
    return known and run.start.ts <= facts.begins.ts <= run.end.ts


def _swallows(run: Run, other: Run) -> bool:
    """Say whether a longer run of the same term makes another one superfluous."""
    same = run.start.term == run.end.term == other.start.term == other.end.term
    return same and run.start.ts <= other.start.ts and other.end.ts <= run.end.ts


def _cut(run: Run, one: Slice) -> tuple[Piece, ...]:
    """Return the pieces of a run before a slice; of one that begins where that does nothing is left."""
    begins = one.facts.begins
    kept = [piece for piece in run.pieces if piece.slice.facts.begins.ts < begins.ts]
    return (*kept[:-1], Piece(kept[-1].slice, begins, shared=one.facts.since is None)) if kept else ()


def entries_of_run(read: ReadSlice, run: Run, first: Ts, last: Ts) -> Iterator[bytes]:
    """Yield the raw entries of a run from ``first`` to ``last``, both included, each once.

    Raises `IntegrityError` where two slices do not meet in an entry although they said so, and what ``read``
    raises. Entries in the middle of a slice are not looked into.
    """
    shared: list[bytes] = []  # entries of the slice before that the next one begins with
    for number, piece in enumerate(run.pieces):
        facts, end = piece.slice.facts, piece.end
        if end < first:
            continue
        if facts.begins.ts > last:
            return
        entries = read(piece.slice)
        if shared:
            entries = _without(entries, shared, piece, run.pieces[number - 1])
            shared = []
        if facts.start.ts < first:
            entries = _from(entries, first)
        if end > last or end < facts.end.ts or (piece.upto is not None and not piece.shared):
            entries = _until(entries, end, last, open_end=piece.upto is not None and not piece.shared)
        if not piece.shared or end > last:
            yield from entries
            continue
        mark = end.raw()
        for entry in entries:
            if mark in entry and header_of(entry)[0] == piece.upto:
                shared.append(entry)
            yield entry
        if not shared:
            raise _no_joint(piece, run.pieces[number + 1])


def _from(entries: Iterator[bytes], first: Ts) -> Iterator[bytes]:
    for entry in entries:
        if header_of(entry)[0].ts >= first:
            yield entry
            break
    yield from entries


def _until(entries: Iterator[bytes], end: Ts, last: Ts, *, open_end: bool) -> Iterator[bytes]:
    """Yield what is not behind ``end`` and ``last``; with ``open_end`` the entry at ``end`` is not meant."""
    for entry in entries:
        ts = header_of(entry)[0].ts
        if ts > min(end, last) or (open_end and ts == end):
            return
        yield entry


def _without(
    entries: Iterator[bytes], shared: Sequence[bytes], piece: Piece, before: Piece
) -> Iterator[bytes]:
    """Leave out the entries at the front that the slice before has given."""
    start = piece.slice.facts.start
    known = set(shared)
    met = False
    for entry in entries:
        if header_of(entry)[0] != start:
            yield entry
            break
        if entry in known:
            met = True
        else:
            yield entry
    if not met:
        raise _no_joint(before, piece)
    yield from entries


def _no_joint(before: Piece, after: Piece) -> IntegrityError:
    names = f"{printable(before.slice.node.name)} and {printable(after.slice.node.name)}"
    return IntegrityError(
        f"the slices {names} of the log do not meet in operation {after.slice.facts.start.ts}: "
        "run `dstore verify --data`, and see `dstore mongo ranges`"
    )
