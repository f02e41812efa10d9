"""Bytes of files → chunks → records: one thread reads, all of them hash, compress and seal.

There are as many threads as processors, the reading one among them: when it is so far ahead that no
buffer is free, it does a worker's work. With one thread more than processors, a thread that
is put to sleep while it holds the interpreter lock stops all the others.

The reader fills large buffers, many small files or part of one big file in each, and cuts them. A worker
takes a whole buffer at a time, so threads meet once per 4 MiB and not once per chunk. Chunks that the
repository lacks are compressed together up to the record size, in path order.

Where chunks end is decided by the repository's chunker, or by the stream's own cutter, whose labels go on to
the content list. A patched file's known chunks are not read: they go to that list between the new ones.

Memory: `BUFFERS_PER_WORKER` buffers of `BUFFER` bytes (or two largest chunks) a worker, and two; and at most
`KNOWN_MAX` entries (and one part) of the patch in hand that wait behind new chunks. Nothing grows with a
file's size, since its content list is built as its chunks become known.
"""

import mmap
import queue
import stat
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from dedupstore.chunker.base import Chunker
from dedupstore.errors import Interrupted, ObjectNotFound, SourceError, UsageError
from dedupstore.format import chunkids
from dedupstore.format.codec import Compression, Compressor
from dedupstore.ids import HOLE, ChunkId, short
from dedupstore.model import Data, Members, Node
from dedupstore.ops.backup.pace import Pace
from dedupstore.ops.backup.parts import Batch, Parts, fold, is_done
from dedupstore.repository.buffers import BufferPool
from dedupstore.sources.base import Cutter, Folder, Item, Known, Patch, ReadsRuns, Stream
from dedupstore.tree.build import ContentBuilder

BUFFER = 4 * 1024 * 1024
BUFFERS_PER_WORKER = 5
RECORD_MEMBERS = 4096
"""Most chunks in one record: a pack's directory must fit in the pack."""
KNOWN_MAX = 16_384
"""Known entries of a patch that may wait for new chunks before them; then those are waited for."""
WHOLE_MAX = 1024 * 1024
"""Files up to this size are read in one call into what room a buffer has left."""
RUN_BYTES = 512 * 1024
RUN_FILES = 256
"""Small files that are read in one call: so many bytes, and so many files, at most."""


class ChunkSink(Protocol):
    """Where chunks go: a write session, or something that only counts."""

    def claim(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Say which of these the caller must add."""
        ...

    def rely(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Note that content consists of these without adding them; say which the repository has."""
        ...

    def add(self, codec: int, data: Data, plain_length: int, members: Members) -> None:
        """Store a record."""
        ...


class Pipeline:
    """Feeds files to the workers. `whole`, `stream`, `submit` and `close` belong to one thread."""

    def __init__(
        self,
        sink: ChunkSink,
        chunker: Chunker,
        id_key: bytes,
        compression: Compression,
        record_size: int,
        small_file: int,
        pace: Pace,
        workers: int,
    ) -> None:
        """``record_size`` and ``small_file`` as in `RepoConfig`; ``workers`` counts the calling thread."""
        self._sink = sink
        self._chunker = chunker
        self._max_size = chunker.params.max_size
        self._id_key = id_key
        self._compression = compression
        self._record_size = record_size
        self._pace = pace
        self._small_file = min(small_file, self._max_size)
        self._buffer_size = max(BUFFER, 2 * self._max_size)  # a full one always holds a cut
        self._pool = BufferPool(self._buffer_size, workers * BUFFERS_PER_WORKER + 2)
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._batch: Batch | None = None
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"chunks-{n}", daemon=True) for n in range(workers - 1)
        ]
        self._own_compressor = Compressor(compression)
        for thread in self._threads:
            thread.start()

    def runs(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Choose small files from a folder's items, and divide them into what `run` takes."""
        run: list[Item] = []
        total = 0
        for item in items:
            size = item.size
            if not 0 <= size <= self._small_file or not stat.S_ISREG(item.mode):
                continue
            if run and (total + size > RUN_BYTES or len(run) == RUN_FILES):
                yield run
                run, total = [], 0
            run.append(item)
            total += size
        if run:
            yield run

    def run(self, folder: ReadsRuns, items: Sequence[Item]) -> list[tuple[Node, Parts] | None]:
        """Read small files of a folder in one go; ``None`` for each that `whole` must be asked for."""
        total = sum([item.size for item in items])
        batch = self._room(total + 1)
        start = batch.used
        self._pace.begin()
        nodes = folder.read_run(items, batch.view[start : start + total])
        self._pace.end(len(items))
        batch.used = start + total
        done: list[tuple[Node, Parts] | None] = []
        for item, node in zip(items, nodes, strict=True):
            end = start + item.size
            done.append(None if node is None else (node, self._pieces(batch, start, end)))
            start = end
        return done

    def whole(self, folder: Folder, item: Item) -> tuple[Node, Parts] | None:
        """Read a small file in one go; ``None`` if it has outgrown that and must be streamed."""
        batch = self._room(item.size + 1)
        start = batch.used
        self._pace.begin()
        node, size = folder.read(item, batch.view[start:])
        self._pace.end()
        if size < 0:
            return None
        batch.used = start + size
        return node, self._pieces(batch, start, start + size)

    def _pieces(self, batch: Batch, start: int, end: int) -> Parts:
        """Note where the chunks of a whole file lie in a batch."""
        if start == end:
            return []
        first = len(batch.pieces)
        if end - start <= self._small_file:
            batch.pieces.append((start, end))
        else:
            self._cut(batch, start, end, final=True)
        return [(batch, first, len(batch.pieces))]

    def stream(self, stream: Stream, content: ContentBuilder) -> Parts:
        """Read a file of any size, piece by piece, holes told apart from data.

        What is known of a long file's content goes to ``content`` meanwhile, which comes first in the result.
        Raises `SourceError`, and `UsageError` for a cutter whose chunks are too large for the buffers.
        """
        parts: Parts = [content]
        self._read(stream, content, parts)
        return parts

    def patch(self, patch: Patch, content: ContentBuilder) -> Parts:
        """Read a patched file: its new parts as `stream` does, between what is known of it.

        Raises `ObjectNotFound` for a known chunk that the repository has not.
        """
        parts: Parts = [content]
        waiting = 0
        for part in patch.parts():
            if not isinstance(part, Known):
                try:
                    self._read(part, content, parts)
                finally:
                    part.close()
                continue
            self._rely(part)
            parts.append(part)
            waiting += len(part.entries)
            fold(content, parts)
            if waiting > KNOWN_MAX and len(parts) > 1:
                self.submit()
                self.wait(parts)
                fold(content, parts)
            if len(parts) == 1:
                waiting = 0
        return parts

    def submit(self) -> None:
        """Hand the buffer in hand to the workers, if there is anything in it."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if batch.pieces:
            self._queue.put(batch)
        else:
            self._pool.give(batch.buffer)

    def wait(self, parts: Parts) -> None:
        """Wait until ``parts`` are done; raises what went wrong in a worker."""
        while not is_done(parts) and self._error is None:
            if not self._help():
                with self._changed:
                    if not is_done(parts) and self._error is None:
                        self._changed.wait()
        self.check()

    def check(self) -> None:
        """Raise what went wrong in a worker, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Finish what was submitted and end the threads. Raises nothing: see `check`."""
        while self._help():
            pass
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _room(self, size: int) -> Batch:
        """Return a batch with that much room left."""
        if self._batch is not None and self._buffer_size - self._batch.used < size:
            self.submit()
        if self._batch is None:
            self.check()
            try:
                self._batch = Batch(self._buffer())
            except Interrupted:
                self.check()  # a worker that failed stopped the pool: say what was wrong with it
                raise
        return self._batch

    def _buffer(self) -> mmap.mmap:
        """Return a free buffer; work until there is one."""
        while (buffer := self._pool.take_now()) is None:
            if not self._help():
                return self._pool.take()  # the others have all of them in hand
        return buffer

    def _help(self) -> bool:
        """Do one batch that no worker has begun, in the reading thread; say whether there was one."""
        try:
            batch = self._queue.get_nowait()
        except queue.Empty:
            return False
        if batch is None:
            return False
        self._finish(batch, self._own_compressor)
        return True

    def _read(self, stream: Stream, content: ContentBuilder, parts: Parts) -> None:
        """Read a stream to its end, and append what it became to ``parts``, which begin with ``content``."""
        cutter = stream.cutter
        if cutter is not None and cutter.max_size > self._buffer_size // 2:
            raise UsageError(
                f"chunks of {cutter.max_size} bytes do not fit a buffer of {self._buffer_size}: report this"
            )
        batch = self._room(self._max_size if cutter is None else cutter.max_size)
        start = batch.used  # where the unfinished chunk begins
        while True:
            if batch.used == self._buffer_size:
                batch, start = self._turn(batch, start, parts, cutter)
                fold(content, parts)
            size = stream.read_next(batch.view[batch.used :])
            if size > 0:
                batch.used += size
                continue
            self._take(batch, start, parts, cutter, final=True)
            start = batch.used
            if size == 0:
                return
            if cutter is not None:
                raise SourceError("a stream that is cut by its content has a hole in it: report this")
            parts.append(-size)

    def _rely(self, known: Known) -> None:
        ids = [chunk for chunk, _, _ in known.entries if chunk != HOLE]
        there = self._sink.rely(ids)
        if not all(there):
            chunk = ids[there.index(False)]
            raise ObjectNotFound(
                f"no pack holds chunk {short(chunk)}, which was to be taken over from an earlier snapshot: "
                "take one that reads everything, and run `dstore verify` to see what older ones lack",
                chunk=chunk,
            )

    def _turn(self, batch: Batch, start: int, parts: Parts, cutter: Cutter | None) -> tuple[Batch, int]:
        """Cut a full buffer, pass it on, and begin the next one with the unfinished chunk."""
        end = self._take(batch, start, parts, cutter, final=False)
        if not end:
            raise SourceError("a stream's cutter found no end of a chunk in a whole buffer: report this")
        tail = bytes(batch.view[end : batch.used])
        batch.used = end
        self.submit()
        fresh = self._room(len(tail))
        fresh.view[: len(tail)] = tail
        fresh.used = len(tail)
        return fresh, 0

    def _take(self, batch: Batch, start: int, parts: Parts, cutter: Cutter | None, *, final: bool) -> int:
        """Cut ``[start, used)`` into pieces and note them; return where the last whole chunk ends."""
        first = len(batch.pieces)
        if cutter is not None:
            end = self._cut_by(cutter, batch, start, final=final)
        else:
            end = self._cut(batch, start, batch.used, final=final) if batch.used > start else start
        if len(batch.pieces) > first:
            parts.append((batch, first, len(batch.pieces)))
        return end

    def _cut(self, batch: Batch, start: int, end: int, *, final: bool) -> int:
        last = start
        for cut in self._chunker.cuts(batch.view[start:end], final):
            batch.pieces.append((last, start + cut))
            last = start + cut
        return last

    def _cut_by(self, cutter: Cutter, batch: Batch, start: int, *, final: bool) -> int:
        found = cutter.cuts(batch.view[start : batch.used], final=final)
        ends = [start + end for end, _ in found]
        if any(label for _, label in found):
            batch.labels.update(enumerate([label for _, label in found], len(batch.pieces)))
        batch.pieces.extend(pairwise([start, *ends]))
        last = ends[-1] if ends else start
        if final and last != batch.used:
            raise SourceError(f"a stream's cutter left {batch.used - last} bytes at its end: report this")
        return last

    def _work(self) -> None:
        compressor = Compressor(self._compression)
        while (batch := self._queue.get()) is not None:
            self._finish(batch, compressor)

    def _finish(self, batch: Batch, compressor: Compressor) -> None:
        """Do a batch, wake whoever waits for it, and give its buffer back."""
        try:
            if self._error is None:
                self._process(batch, compressor)
                batch.done = True
        except BaseException as error:  # noqa: BLE001 - handed to the reading thread
            self._error = self._error or error
            self._pool.stop()
        with self._changed:
            self._changed.notify_all()
        batch.view.release()
        self._pool.give(batch.buffer)

    def _process(self, batch: Batch, compressor: Compressor) -> None:
        batch.entries = chunkids.entries(self._id_key, batch.view, batch.pieces)
        group: list[int] = []
        size = 0
        for number, mine in enumerate(self._sink.claim(Members(batch.entries).ids)):
            if not mine:
                continue
            start, end = batch.pieces[number]
            if group and (size + end - start > self._record_size or len(group) == RECORD_MEMBERS):
                self._record(batch, group, size, compressor)
                group, size = [], 0
            group.append(number)
            size += end - start
        if group:
            self._record(batch, group, size, compressor)

    def _record(self, batch: Batch, group: list[int], size: int, compressor: Compressor) -> None:
        pieces = batch.pieces
        start, end = pieces[group[0]][0], pieces[group[-1]][1]
        if end - start == size:
            plain: Data = batch.view[start:end]
            members = Members(batch.entries_of(group[0], group[-1] + 1))
        else:  # known chunks lay between
            plain = b"".join([batch.view[pieces[n][0] : pieces[n][1]] for n in group])
            members = Members(b"".join([batch.entries_of(n, n + 1) for n in group]))
        codec, packed = compressor.compress(plain)
        self._sink.add(codec, packed, size, members)
