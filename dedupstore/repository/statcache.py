"""The stat cache: what each folder of a source looked like, so that an unchanged one costs no decode.

For every folder it keeps the listing that the last run saw (names, sizes, times, inode numbers: bytes
that only the source understands), the id of the tree that was stored for it, and the names of its
sub-folders. A run that finds the same listing takes the tree's id and neither reads nor decodes a page.

**Why an entry may be trusted.** Each run gets a number, never given twice, and stamps what it writes.
A run's entries count only once that run has committed its snapshot; the header with the number and the
entries' last part are one transaction, made after the snapshot is durable. So an entry of run r is valid
iff all of these hold:

1. r is at most the header's run and at least the first that the header knows of, and r is not among
   the runs that ended without a commit (the header lists them). Then some snapshot did hold this folder
   with this tree.
2. The folder was reached through a valid parent whose listing named it, up to the source's root. Then
   the *header's* snapshot holds it: an unchanged folder is not written again, so an entry may be older
   than the header, and one that no chain reaches may be of a folder that later snapshots do not have.
3. The header's snapshot still exists, so that collection keeps everything under its root.

This module checks 1; the caller checks 2, by walking down from the root, and 3, once, before it begins.
A folder that could not be read in full must not be put; `discard` it, lest an old entry stand for it.

Threads: one, for one object. Processes: one writes for a source at a time (`begin` says who); others
read. Memory: the entries not yet written, 4 MiB or 2 000 of them, and one that is larger by itself.
Durability: that of the index; lost, everything is read once more.
"""

import fcntl
import os
import struct
from collections.abc import Sequence

import lmdb
import msgspec

from dedupstore.errors import UsageError
from dedupstore.ids import SnapshotId
from dedupstore.model import Data, Summary
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.indexrows import damaged, take_number

KEY_SIZE = 16
"""Bytes of a source's and of a folder's key."""

_ENTRY = struct.Struct("<QII")
"""Run, bytes of the head that follows, segments. One segment follows the head; of more, each has a key."""
_SEGMENT = struct.Struct(">I")
_RUN = struct.Struct("<Q")
_BUFFER_BYTES = 4 << 20
_BUFFER_ENTRIES = 2000
_VOID_RUNS_KEPT = 64
_NEXT_RUN = b"next-run"


class StatHeader(msgspec.Struct, frozen=True, array_like=True):
    """Where a source stands: the last run that committed, its snapshot, and runs that never did."""

    run: int = 0
    snapshot: bytes | None = None
    begun: int = 0
    """The last run that began."""
    void: frozenset[int] = frozenset()
    """Runs before ``begun`` that ended without a commit and may have left entries."""
    first: int = 0
    """The run that made this header: older ones are from before the cache was emptied under a writer."""

    def holds(self, run: int) -> bool:
        """Return whether entries of this run count."""
        return self.first <= run <= self.run and run not in self.void


class CachedHead(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an unchanged folder needs."""

    subtree: bytes
    """Id of the folder's top page."""
    summary: Summary
    folders: tuple[bytes, ...]
    """Names of sub-folders, in order."""


class CachedFolder(msgspec.Struct, frozen=True, gc=False):
    """All that is known of a folder."""

    run: int
    subtree: bytes
    summary: Summary
    folders: tuple[bytes, ...]
    listing: tuple[bytes, ...]
    """The listing, in the segments in which it was put."""


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(CachedHead).decode
_decode_header = msgspec.msgpack.Decoder(StatHeader).decode


class StatCache:
    """The stat cache of one source (16-byte key: the source's kind, paths and options) in an index."""

    def __init__(self, index: LocalIndex, source_key: bytes) -> None:
        _check_key(source_key)
        self._index = index
        self._environment = index.environment
        self._table = self._environment.tables[b"stat"]
        self._runs = self._environment.tables[b"runs"]
        self._meta = self._environment.tables[b"meta"]
        self._source = source_key
        self._lock: int | None = None
        self._run = 0
        self._buffer: dict[bytes, tuple[bytes, tuple[bytes, ...]] | None] = {}
        self._buffered = 0
        self._header = self.header()

    @property
    def writing(self) -> bool:
        """Whether `begin` succeeded and the run has not ended."""
        return self._lock is not None

    def header(self) -> StatHeader:
        """Read the header again and return it; `get` and `same` go by it."""
        stored = self._environment.read(lambda txn: txn.get(self._source, db=self._runs))
        self._header = _parse_header(stored)
        return self._header

    def begin(self) -> bool:
        """Begin a run that may write; ``False`` if another process, or object, is in one for this source.

        Also ``False`` for an index that was opened for reading. Without a run, `put`, `discard` and
        `commit` do nothing. A process that dies ends its run.
        """
        if self._lock is not None:
            raise UsageError("a run of this source has begun already: commit or abort it first")
        lock = None if self._index.readonly else self._take_lock()
        if lock is None:
            return False
        try:
            self._run = self._index.write(self._number_run)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        self.header()
        return True

    def same(self, folder_key: bytes, listing: Sequence[bytes]) -> CachedHead | None:
        """Return a folder's tree if a valid entry has exactly this listing, in these segments.

        Compares inside the map, without a copy; some 3 µs for a small folder.
        """
        key = self._source + folder_key
        table = self._table

        def compare(txn: "lmdb.Transaction[memoryview]") -> CachedHead | None:
            value = txn.get(key, db=table)
            if value is None:
                return None
            run, length, segments = _ENTRY.unpack_from(value)
            if segments != len(listing) or not self._header.holds(run):
                return None
            end = _ENTRY.size + length
            if segments == 1:
                if not _equal(value[end:], listing[0]):
                    return None
            else:
                for number, segment in enumerate(listing):
                    stored = txn.get(key + _SEGMENT.pack(number), db=table)
                    if stored is None or not _equal(stored, segment):
                        return None
            return _decode_head(value[_ENTRY.size : end])

        try:
            return self._environment.peek(compare)
        except (msgspec.MsgspecError, struct.error) as error:
            raise damaged("a folder") from error

    def get(self, folder_key: bytes) -> CachedFolder | None:
        """Return a folder's valid entry, its listing copied out."""
        key = self._source + folder_key

        def load(txn: "lmdb.Transaction[memoryview]") -> CachedFolder | None:
            value = txn.get(key, db=self._table)
            if value is None:
                return None
            run, length, segments = _ENTRY.unpack_from(value)
            if not self._header.holds(run):
                return None
            end = _ENTRY.size + length
            head = _decode_head(value[_ENTRY.size : end])
            if segments == 1:
                listing: tuple[bytes, ...] = (bytes(value[end:]),)
            else:
                keys = (key + _SEGMENT.pack(number) for number in range(segments))
                listing = tuple(bytes(txn.get(k, b"", db=self._table)) for k in keys)
            return CachedFolder(run, head.subtree, head.summary, head.folders, listing)

        try:
            return self._environment.peek(load)
        except (msgspec.MsgspecError, struct.error) as error:
            raise damaged("a folder") from error

    def put(
        self,
        folder_key: bytes,
        subtree: bytes,
        summary: Summary,
        folders: Sequence[bytes],
        listing: Sequence[Data],
    ) -> None:
        """Remember a folder as this run saw it. Buffered; counts once the run commits.

        Split a long listing into segments (some 64 KiB each): one value in the map stays small then.
        """
        if self._lock is None:
            return
        _check_key(folder_key)
        head = _encode(CachedHead(subtree, summary, tuple(folders)))
        value = _ENTRY.pack(self._run, len(head), len(listing)) + head
        more: tuple[bytes, ...] = ()
        if len(listing) == 1:
            value += listing[0]
        else:
            more = tuple(bytes(segment) for segment in listing)
        self._buffer[self._source + folder_key] = value, more
        self._buffered += len(value) + sum(map(len, more))
        if self._buffered >= _BUFFER_BYTES or len(self._buffer) >= _BUFFER_ENTRIES:
            self._flush()

    def discard(self, folder_key: bytes) -> None:
        """Drop a folder's entry, of whatever run. Buffered like `put`; it may stay dropped after `abort`."""
        if self._lock is None:
            return
        _check_key(folder_key)
        self._buffer[self._source + folder_key] = None

    def commit(self, snapshot: SnapshotId) -> None:
        """End the run: its entries count from now on, with this snapshot, which must be durable."""
        if self._lock is None:
            return
        run = self._run

        def finish(txn: "lmdb.Transaction[bytes]") -> None:
            self._store(txn)
            before = _parse_header(txn.get(self._source, db=self._runs))
            header = StatHeader(run, snapshot, run, before.void, before.first or run)
            txn.put(self._source, _encode(header), db=self._runs)

        self._index.write(finish)
        self.abort()
        self.header()

    def abort(self) -> None:
        """End the run; what it wrote never counts. Without a run: nothing."""
        self._buffer.clear()
        self._buffered = 0
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> int | None:
        folder = self._environment.folder
        try:
            # The file stays for ever: removing a lock file lets two hold "the" lock.
            lock = os.open(
                folder.path / f"stat-{self._source.hex()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise folder.trouble(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError as error:
            os.close(lock)
            raise folder.trouble(error) from error
        return lock

    def _number_run(self, txn: "lmdb.Transaction[bytes]") -> int:
        """Take the next run's number; the run before it is void if it did not commit."""
        before = _parse_header(txn.get(self._source, db=self._runs))
        void = before.void
        if before.begun > before.run:
            void |= {before.begun}
        if len(void) > _VOID_RUNS_KEPT:
            self._remove_void(txn, StatHeader(before.run, void=void, first=before.first))
            void = frozenset()
        run = take_number(txn, self._meta, _NEXT_RUN)
        header = StatHeader(before.run, before.snapshot, run, void, before.first or run)
        txn.put(self._source, _encode(header), db=self._runs)
        return run

    def _remove_void(self, txn: "lmdb.Transaction[bytes]", header: StatHeader) -> None:
        """Remove the entries that do not count, so that their runs need not be remembered."""
        doomed = []
        with txn.cursor(db=self._table) as cursor:
            found = cursor.set_range(self._source)
            while found and cursor.key().startswith(self._source):
                key = cursor.key()
                if len(key) == 2 * KEY_SIZE and not header.holds(_RUN.unpack_from(cursor.value())[0]):
                    doomed.append(key)
                found = cursor.next()
        for key in doomed:
            self._remove(txn, key)

    def _flush(self) -> None:
        self._index.write(self._store)
        self._buffer.clear()
        self._buffered = 0

    def _store(self, txn: "lmdb.Transaction[bytes]") -> None:
        for key in sorted(self._buffer):
            self._remove(txn, key)
            item = self._buffer[key]
            if item is None:
                continue
            value, more = item
            txn.put(key, value, db=self._table)
            for number, segment in enumerate(more):
                txn.put(key + _SEGMENT.pack(number), segment, db=self._table)

    def _remove(self, txn: "lmdb.Transaction[bytes]", key: bytes) -> None:
        old = txn.pop(key, db=self._table)
        segments = _ENTRY.unpack_from(old)[2] if old is not None else 0
        for number in range(segments if segments > 1 else 0):
            txn.delete(key + _SEGMENT.pack(number), db=self._table)


def _equal(stored: memoryview, segment: bytes) -> bool:
    # memoryview's own comparison goes byte by byte through Python's number parsing; this is a memcmp.
    return len(stored) == len(segment) and segment.startswith(stored)


def _parse_header(stored: bytes | None) -> StatHeader:
    if stored is None:
        return StatHeader()
    try:
        return _decode_header(stored)
    except msgspec.MsgspecError as error:
        raise damaged("a source") from error


def _check_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise UsageError(f"a key of the stat cache has {KEY_SIZE} bytes, not {len(key)}")
