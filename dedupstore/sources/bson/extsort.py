"""Documents that come in any order, in order of ``_id``: an external merge sort of raw BSON.

Blocks of documents are sorted in memory and written to a temporary file as runs; a block that begins behind
the last run's end goes on with it, so what is nearly in order makes few runs. Up to `RUNS_MAX` runs are
merged at a time, as often as it takes. What fits in one block is never written.

Disk: the documents once, twice while runs are merged into longer ones. Memory: about `MEMORY` bytes, or six
of the largest documents if that is more. One thread.
"""

from collections.abc import Iterator
from pathlib import Path

from dedupstore.sources.bson import buffers, raw
from dedupstore.sources.bson.feed import Fill
from dedupstore.sources.bson.runs import READ_LEAST, RunFile, merged

MEMORY = 64 * 1024 * 1024
BLOCK_DOCUMENTS = 1 << 17
"""Most documents in a block: each costs memory beside its own bytes."""
RUNS_MAX = 64


class SortedFeed:
    """The documents that ``fill`` brings, in order of their keys; equal ones as they came.

    ``folder`` takes the temporary files; ``memory`` bounds what is held, in bytes. The first `fill` reads all
    there is. Close it in every case.
    """

    def __init__(self, fill: Fill, folder: Path | None = None, *, memory: int = MEMORY) -> None:
        self._fill = fill
        self._folder = folder
        self._block = max(memory // 4, READ_LEAST)
        self._largest = 1
        self._file: RunFile | None = None
        self._blocks: Iterator[memoryview] | None = None
        self._out = memoryview(b"")

    def fill(self, view: memoryview) -> int:
        """Put the next bytes at the start of ``view``; returns how many, 0 at the end.

        Raises `SourceError` for what is no BSON (with its offset) and as ``fill`` does, `StoreFull` if there
        is no room for the temporary file.
        """
        if self._blocks is None:
            self._blocks = self._begin()
        while not self._out:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._out = block
        size = min(len(view), len(self._out))
        view[:size] = self._out[:size]
        self._out = self._out[size:]
        return size

    def close(self) -> None:
        """Give the memory and the temporary file back; a second call does nothing."""
        self._blocks, self._out = iter(()), memoryview(b"")
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self) -> Iterator[memoryview]:
        """Read everything; return the sorted blocks."""
        alone = self._sort_blocks()
        if alone is not None:
            return iter((alone,))
        while self._file is not None and len(self._file.runs) > (fan := self._fan()):
            self._lengthen(self._file, fan)
        return merged(self._file, self._file.runs, self._block) if self._file is not None else iter(())

    def _sort_blocks(self) -> memoryview | None:
        """Write sorted runs; what fits in one block is returned instead."""
        data = bytearray(self._block)
        out = bytearray(self._block)
        used = offset = 0
        ended = False
        while not ended or used:
            used, ended = self._fill_up(data, used, ended=ended)
            found = buffers.whole(memoryview(data)[:used], BLOCK_DOCUMENTS)
            if not found.end and used:
                if ended or len(data) >= raw.DOCUMENT_MAX:
                    raise raw.damaged(offset, "does not go on with a whole document")
                data = data + bytes(min(len(data), raw.DOCUMENT_MAX - len(data)))
                continue
            if len(out) < found.end:
                out = bytearray(found.end)
            buffers.merge([memoryview(data)[: found.end]], None, memoryview(out))
            sorted_block = memoryview(out)[: found.end]
            if ended and found.end == used and self._file is None:
                return sorted_block
            if self._file is None:
                self._file = RunFile(self._folder)
            if found.end:
                self._file.write(sorted_block)
            self._largest = max(self._largest, found.largest)
            data[: used - found.end] = data[found.end : used]
            used, offset = used - found.end, offset + found.end
        return None

    def _fill_up(self, data: bytearray, used: int, *, ended: bool) -> tuple[int, bool]:
        view = memoryview(data)
        while used < len(data) and not ended:
            size = self._fill(view[used:])
            used, ended = used + size, not size
        return used, ended

    def _fan(self) -> int:
        """Return how many runs can be merged at a time: each needs room for the largest document."""
        return min(RUNS_MAX, max(2, self._block // max(self._largest, READ_LEAST)))

    def _lengthen(self, before: RunFile, fan: int) -> None:
        """Merge each ``fan`` runs into one, in another file."""
        after = RunFile(self._folder)
        try:
            for first in range(0, len(before.runs), fan):
                after.write_merged(merged(before, before.runs[first : first + fan], self._block))
        except BaseException:
            after.close()
            raise
        self._file = after
        before.close()
