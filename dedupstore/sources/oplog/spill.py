"""Records by key, in sorted runs in temporary files: written in rounds, read as one.

A round is a run. Up to `FAN` runs of one level become one of the next as soon as they are there, with
what they say of the same key put together; so there are never more than `FAN` times as many runs as
levels, and with a round of 64 MiB the fourth level begins at 256 GiB.

Every run has an index in memory, one key for `BLOCK` bytes: reading begins at any key.

The files have no name, so they are gone with the process. Writing belongs to one thread; then any number
may read at once. Memory: the indexes, and `BLOCK` bytes a run for each reader.
"""

import bisect
import errno
import heapq
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, TypeAlias

from dedupstore.errors import SourceError, StoreFull

FAN = 16
BLOCK = 64 * 1024
_HEAD = struct.Struct(">II")
_WRITE = 1 << 20

Record: TypeAlias = tuple[bytes, bytes]
"""Key and payload."""
Combine: TypeAlias = Callable[[bytes, Sequence[bytes]], bytes]
"""Makes one payload of those that one key has, oldest first."""


class _Run:
    """One sorted file."""

    def __init__(self, records: Iterable[Record], folder: Path, level: int) -> None:
        """Write sorted records. Raises `StoreFull` if there is no room, `SourceError` for other trouble."""
        self.level = level
        self._keys: list[bytes] = []
        self._offsets: list[int] = []
        try:
            with tempfile.TemporaryFile(buffering=_WRITE, dir=folder) as file:
                self._fill(file, records)
                file.flush()
                self._number = os.dup(file.fileno())  # the file object would keep its buffer
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise StoreFull(
                    "the temporary folder is full while the log is collapsed: make room, or set TMPDIR"
                ) from error
            raise SourceError(
                f"the log can not be collapsed in the temporary folder ({error.strerror}): set TMPDIR"
            ) from error

    def _fill(self, file: IO[bytes], records: Iterable[Record]) -> None:
        block, size = -1, 0
        for key, payload in records:
            if size // BLOCK != block:
                block = size // BLOCK
                self._keys.append(key)
                self._offsets.append(size)
            file.write(_HEAD.pack(len(key), len(payload)))
            file.write(key)
            file.write(payload)
            size += _HEAD.size + len(key) + len(payload)

    def scan(self, low: bytes, high: bytes) -> Iterator[Record]:
        """Yield the records with ``low <= key < high``."""
        first = max(bisect.bisect_right(self._keys, low) - 1, 0)
        if not self._offsets:
            return
        number, at, buffer = self._number, self._offsets[first], b""
        start = 0
        while True:
            if len(buffer) - start < _HEAD.size:
                buffer, start, at = self._more(number, buffer[start:], at, _HEAD.size)
                if not buffer:
                    return
            key_length, length = _HEAD.unpack_from(buffer, start)
            size = _HEAD.size + key_length + length
            if len(buffer) - start < size:
                buffer, start, at = self._more(number, buffer[start:], at, size)
            key = buffer[start + _HEAD.size : start + _HEAD.size + key_length]
            if key >= high:
                return
            if key >= low:
                yield key, buffer[start + size - length : start + size]
            start += size

    @staticmethod
    def _more(number: int, rest: bytes, at: int, wanted: int) -> tuple[bytes, int, int]:
        """Read on from offset ``at``; return what is in hand, where it starts, where the next read does."""
        parts, have = [rest], len(rest)
        while have < wanted:
            part = os.pread(number, max(BLOCK, wanted - have), at)
            if not part:
                break
            parts.append(part)
            have += len(part)
            at += len(part)
        return b"".join(parts), 0, at

    def close(self) -> None:
        os.close(self._number)


class Runs:
    """All runs of one sort. Close it in every case."""

    def __init__(self, folder: Path, combine: Combine) -> None:
        """``folder`` is for the temporary files."""
        self.folder = folder
        self._combine = combine
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        """Return how many files there are."""
        return len(self._runs)

    def add(self, records: Iterable[Record]) -> None:
        """Add a round: records in order of their keys, each key once.

        Raises `StoreFull`, `SourceError`, and what combining raises.
        """
        self._runs.append(_Run(records, self.folder, 0))
        while True:
            level = self._runs[-1].level
            same = [run for run in self._runs if run.level == level]
            if len(same) < FAN:
                return
            merged = _Run(self._combined(_merged(same, b"", None)), self.folder, level + 1)
            for run in same:
                run.close()
            self._runs[-len(same) :] = [merged]

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """Yield keys from ``low`` to before ``high`` in order, each with its payloads, oldest first."""
        for key, group in groupby(_merged(self._runs, low, high), key=itemgetter(0)):
            yield key, [payload for _, payload in group]

    def _combined(self, records: Iterator[Record]) -> Iterator[Record]:
        for key, group in groupby(records, key=itemgetter(0)):
            payloads = [payload for _, payload in group]
            yield key, payloads[0] if len(payloads) == 1 else self._combine(key, payloads)

    def close(self) -> None:
        """Give the files back; a second call does nothing."""
        runs, self._runs = self._runs, []
        for run in runs:
            run.close()


_BEHIND = b"\xff" * 40


def _merged(runs: Sequence[_Run], low: bytes, high: bytes | None) -> Iterator[Record]:
    """Yield the records of several runs by key; those of one key in order of the runs."""
    scans = [run.scan(low, _BEHIND if high is None else high) for run in runs]
    return scans[0] if len(scans) == 1 else heapq.merge(*scans, key=itemgetter(0))
