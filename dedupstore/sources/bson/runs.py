"""Runs: stretches of documents in order, in a temporary file, and the merging of several into one.

One thread.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dedupstore.sources.bson import buffers, raw
from dedupstore.sources.bson.spill import Spill

READ_LEAST = 64 * 1024
"""Bytes of a run that are read at a time, at least."""


class Run(NamedTuple):
    """Where a run lies in its file."""

    start: int
    end: int


class RunFile:
    """A temporary file of runs, in ``folder`` or where the system has such files. Close it in every case.

    Raises `StoreFull` where there is no room, `SourceError` for other trouble with the file.
    """

    def __init__(self, folder: Path | None) -> None:
        self._spill = Spill(folder)
        self.runs: list[Run] = []
        self._last = b""

    def write(self, block: memoryview) -> None:
        """Append documents that are in order: a run of their own, unless they go on with the last one."""
        found = buffers.whole(block)
        first = buffers.key_of(bytes(block[: buffers.whole(block, 1).end]))
        start = self.runs.pop().start if self.runs and self._last <= first else self._spill.size
        self._last = buffers.key_of(bytes(block[found.last : found.end]))
        self._spill.append(block)
        self.runs.append(Run(start, self._spill.size))

    def write_merged(self, blocks: Iterator[memoryview]) -> None:
        """Append a run that comes in blocks."""
        start = self._spill.size
        for block in blocks:
            self._spill.append(block)
        self.runs.append(Run(start, self._spill.size))

    def read(self, start: int, view: memoryview) -> None:
        """Fill ``view`` with what lies at ``start``."""
        self._spill.read(start, view)

    def close(self) -> None:
        """Give the file and its room back; a second call does nothing."""
        self._spill.close()


class _Cursor:
    """A run being read: ``data[at:end]`` are whole documents, ``data[end:used]`` the front of another."""

    def __init__(self, file: RunFile, run: Run, room: int) -> None:
        self._file = file
        self._next, self._stop = run
        self._data = bytearray(min(room, run.end - run.start))
        self._at = self._end = self._used = 0
        self.first = self.last = b""
        """Keys of the first and last whole document."""

    @property
    def more(self) -> bool:
        """Whether something comes behind the whole documents that are here."""
        return self._next < self._stop or self._end < self._used

    @property
    def documents(self) -> memoryview:
        """The whole documents that are here."""
        return memoryview(self._data)[self._at : self._end]

    def drop(self, size: int) -> None:
        """Forget the documents in the first ``size`` bytes."""
        self._at += size

    def refill(self) -> bool:
        """Read on if there is room; return whether any document is left."""
        if self._at or not self._used:
            rest = self._used - self._at
            self._data[:rest] = self._data[self._at : self._used]
            self._at, self._used = 0, rest
            self._read()
            self._look()
        return self._end > 0

    def _read(self) -> None:
        size = min(len(self._data) - self._used, self._stop - self._next)
        self._file.read(self._next, memoryview(self._data)[self._used : self._used + size])
        self._next += size
        self._used += size

    def _look(self) -> None:
        found = buffers.whole(memoryview(self._data)[: self._used])
        while not found.end and self._next < self._stop:  # one document is larger than the room
            self._data = self._data + bytes(min(len(self._data), self._stop - self._next))
            self._read()
            found = buffers.whole(memoryview(self._data)[: self._used])
        if not found.end and self._used:
            raise raw.damaged(self._next - self._used, "was altered in the temporary file")
        self._end = found.end
        if found.end:
            first = buffers.whole(memoryview(self._data)[: self._used], 1)
            self.first = buffers.key_of(bytes(self._data[: first.end]))
            self.last = buffers.key_of(bytes(self._data[found.last : found.end]))


def merged(file: RunFile, runs: Sequence[Run], memory: int) -> Iterator[memoryview]:
    """Yield the documents of some runs in order, in blocks of whole documents; equal ones in order of runs.

    A block is valid until the next is asked for. Memory: about twice ``memory`` bytes, shared by all runs.
    """
    room = max(memory // max(len(runs), 1), READ_LEAST)
    cursors = [_Cursor(file, run, room) for run in runs]
    out = bytearray()
    while cursors := [cursor for cursor in cursors if cursor.refill()]:
        # Nothing above the last key that is here of a run may go: the run may have something before it.
        bound = min((cursor.last for cursor in cursors if cursor.more), default=None)
        ready = [cursor for cursor in cursors if bound is None or cursor.first <= bound]
        parts = [cursor.documents for cursor in ready]
        if len(parts) == 1 and (bound is None or ready[0].last <= bound):
            yield parts[0]
            ready[0].drop(len(parts[0]))
        else:
            size = sum(map(len, parts))
            if len(out) < size:
                out = bytearray(size)
            done = buffers.merge(parts, bound, memoryview(out))
            yield memoryview(out)[: done.size]
            for cursor, taken in zip(ready, done.consumed, strict=True):
                cursor.drop(taken)
        del parts
