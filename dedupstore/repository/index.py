"""The local index: where each chunk lies, and copies of the small objects every command needs.

It is a cache: built from what the repository holds, thrown away whole when in doubt, never asked for
something that could not be had again. It owns chunk places, packs, which index segments have been read,
sealed tree records and stored snapshot objects; the stat cache shares its environment.

Threads: any, also at once; each call is one transaction, or a few for the calls that say so.
Processes: any number may read and write the same cache at once. Durability: see `flush`.
Memory: bounded by the arguments and results, and a table of the packs that were asked for.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import lmdb

from dedupstore.errors import NotFoundError, ReadOnlyError
from dedupstore.ids import ChunkId, PackId, SnapshotId
from dedupstore.model import ChunkKind, Location, PackContents, Record
from dedupstore.repository.indexenv import CacheEnvironment
from dedupstore.repository.indexopen import DEFAULT_MAP_SIZE, acquire, release
from dedupstore.repository.indexrows import (
    NUMBER,
    TREE_KEY,
    CacheSizes,
    PackRow,
    Place,
    Rows,
    measure,
    parse_pack,
    parse_place,
    place_key,
)

__all__ = ["CacheSizes", "LocalIndex", "PackRow", "Place"]

T = TypeVar("T")
_PAGE = 4096
"""Rows per transaction of an iteration."""
_BATCH = 1 << 16
"""Chunks per write transaction: some 20 MB of dirty pages."""
_PACKS_KEPT = 1 << 16
_PLACES = (b"packs", b"packids", b"chunks", b"trees", b"segments")
_EVERYTHING = (*_PLACES, b"snapshots", b"stat", b"runs")


class LocalIndex:
    """One repository's local cache, open. Made by `open`; a context manager that closes."""

    def __init__(self, environment: CacheEnvironment, *, readonly: bool, fresh: bool) -> None:
        self.environment = environment
        """Shared with the stat cache."""
        self.fresh = fresh
        """Whether opening made it, or made it anew: everything is to be read from the repository."""
        self.path = environment.folder.path
        self._rows = Rows(environment.tables)
        self.readonly = readonly
        self._packs: dict[int, PackRow] = {}
        self._open = True

    @classmethod
    def open(
        cls,
        path: Path,
        repository_id: bytes,
        *,
        map_size: int = DEFAULT_MAP_SIZE,
        readonly: bool = False,
    ) -> Self:
        """Open the cache of the repository (16-byte id) in the folder ``path``, or begin an empty one.

        A cache that is damaged, of another format or repository, or that was not forced to the disk
        before the machine stopped, is thrown away: then `fresh` is set. With ``readonly`` it raises
        `NotFoundError` instead, and every writing call raises `ReadOnlyError`.
        ``map_size`` is the address space to begin with, in bytes; less is taken where less is allowed,
        and it grows by itself. Raises `UsageError` on a network file system, `RepositoryBusy` if another
        process uses a cache that had to be thrown away, `StoreFull`, `StoreError`.
        """
        environment = acquire(path, repository_id, map_size=map_size, readonly=readonly)
        first = environment.users == 1
        return cls(environment, readonly=readonly, fresh=environment.fresh and first)

    def close(self) -> None:
        """Give the environment back; the last user in the process flushes and closes it. Idempotent."""
        if self._open:
            self._open = False
            release(self.environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self) -> None:
        """Force everything to the disk. Without it, and `close`, a power cut costs a rebuild."""
        self.environment.flush()

    def contains(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Return, for each id, whether the index has a place for it. One transaction, 0.6 µs an id."""
        table = self._rows.chunks

        def look(txn: "lmdb.Transaction[memoryview]") -> list[bool]:
            # Measured: seeking with one cursor beats get, getmulti, and sorting first, at any batch size.
            with txn.cursor(db=table) as cursor:
                return list(map(cursor.set_key, ids))

        return self.environment.peek(look)

    def missing(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Return, for each id, whether the index has no place for it."""
        return [not known for known in self.contains(ids)]

    def rows(self, ids: Sequence[ChunkId]) -> list[Place | None]:
        """Return the place of each chunk as a plain tuple, for callers that handle very many."""
        table = self._rows.chunks

        def look(txn: "lmdb.Transaction[bytes]") -> list[Place | None]:
            get = txn.get
            return [
                None if value is None else parse_place(value) for value in (get(i, db=table) for i in ids)
            ]

        return self.environment.read(look)

    def find(self, ids: Sequence[ChunkId]) -> list[Location | None]:
        """Return the location of each chunk. Chunks of one record share its `Record`, if adjacent."""
        locate = self._locator()
        return [None if place is None else locate(place) for place in self.rows(ids)]

    def iterate(self) -> Iterator[tuple[ChunkId, Location]]:
        """Yield every chunk in order of ids. Not one state: others' changes show while it runs."""
        locate = self._locator()
        for page in self._pages(self._rows.chunks, _PAGE):
            for key, value in page:
                location = locate(parse_place(value))
                if location is not None:
                    yield ChunkId(key), location

    def count(self) -> int:
        """Return the number of chunks."""
        return self._entries(self._rows.chunks)

    def add(self, pack: PackContents, *, segment: str | None = None, replace: bool = False) -> int | None:
        """Add one pack, like `add_all`; return its number if none of its chunks had a place before."""
        return self.add_all((pack,), segment=segment, replace=replace).get(pack.id)

    def add_all(
        self,
        packs: Iterable[PackContents],
        *,
        segment: str | None = None,
        replace: bool = False,
        sole: Mapping[PackId, int] = MappingProxyType({}),
    ) -> dict[PackId, int]:
        """Add packs, in a transaction for every 65 536 chunks or so; each pack is in whole or not.

        A pack that is known is added again without harm. A chunk that has a place in a live pack keeps
        it, unless ``replace``. With ``segment`` the packs are listed in it by the last transaction, so
        a segment counts as read only once all of it is in. Returns the numbers of packs whose chunks had no
        place before: as ``sole`` they spare the next call each chunk, unless the index was emptied since.
        """
        batch: list[PackContents] = []
        added: list[tuple[PackId, int, bool]] = []
        chunks = 0
        for pack in packs:
            batch.append(pack)
            chunks += sum(len(members) for _, members in pack.records)
            if chunks >= _BATCH:
                added += self._add_batch(batch, replace, sole, None, ())
                batch, chunks = [], 0
        if batch or segment is not None:
            added += self._add_batch(batch, replace, sole, segment, [number for _, number, _ in added])
        return {pack: number for pack, number, new in added if new}

    def forget(self, packs: Iterable[PackId]) -> None:
        """Remove packs, the places of chunks in them, and their tree records.

        Reads through the whole chunk table, so forget many packs at once; several transactions, memory
        for one page of ids. Interrupted, it leaves packs listed with some chunks gone: call it again.
        """
        wanted = list(packs)
        numbers = self.environment.read(lambda txn: [self._rows.number(txn, pack) for pack in wanted])
        doomed = frozenset(place_key(number) for number in numbers if number is not None)
        if doomed:
            self._drop_chunks_of(doomed)

        def remove(txn: "lmdb.Transaction[bytes]") -> None:
            for pack in wanted:
                self._rows.forget_pack(txn, pack)

        self.write(remove)
        self._packs.clear()

    def pack(self, number: int) -> PackRow:
        """Return the pack that a place names; raises `NotFoundError` if it was forgotten since."""
        row = self._pack(number)
        if row is None:
            raise NotFoundError(f"pack number {number} is no longer in the index: look its chunks up again")
        return row

    def pack_named(self, pack: PackId) -> PackRow | None:
        """Return what the index keeps of a pack; ``None`` if it does not know it."""

        def look(txn: "lmdb.Transaction[bytes]") -> PackRow | None:
            number = self._rows.number(txn, pack)
            return None if number is None else self._rows.pack(txn, number)

        return self.environment.read(look)

    def has_pack(self, pack: PackId) -> bool:
        """Return whether the index knows a pack."""
        return self.environment.read(lambda txn: self._rows.number(txn, pack)) is not None

    def packs(self) -> Iterator[tuple[PackId, ChunkKind, int, bool]]:
        """Yield every pack: id, kind, size in bytes, and whether an index segment lists it."""
        for page in self._pages(self._rows.packs, _PAGE):
            for _, value in page:
                row, segmented = parse_pack(value)
                yield row.id, row.kind, row.size, segmented

    def unsegmented(self) -> list[PackId]:
        """Return the packs that no index segment lists."""
        return [pack for pack, _, _, segmented in self.packs() if not segmented]

    def mark_segment(self, name: str, packs: Iterable[PackId]) -> None:
        """Note that an index segment exists and lists these packs; those the index lacks are left out."""
        ids = list(packs)

        def mark(txn: "lmdb.Transaction[bytes]") -> None:
            numbers = [self._rows.number(txn, pack) for pack in ids]
            self._rows.list_in_segment(txn, name.encode(), [n for n in numbers if n is not None])

        self.write(mark)

    def segments(self) -> set[str]:
        """Return the names of the index segments that have been read or marked."""
        return {key.decode() for page in self._pages(self._rows.segments, _PAGE) for key, _ in page}

    def forget_segment(self, name: str) -> None:
        """Note that an index segment is gone; its packs stay."""
        self.write(lambda txn: self._rows.forget_segment(txn, name.encode()))

    def put_tree_records(self, pack: PackId, records: Iterable[tuple[int, bytes]]) -> None:
        """Keep sealed records of a tree pack, each with its offset; raises `NotFoundError` if unknown."""
        items = sorted(records)

        def put(txn: "lmdb.Transaction[bytes]") -> None:
            number = self._rows.number(txn, pack)
            if number is None:
                raise NotFoundError(f"pack {pack.hex()} is not in the index: add it before its records")
            for offset, sealed in items:
                txn.put(TREE_KEY.pack(number, offset), sealed, db=self._rows.trees)

        self.write(put)

    def tree_record(self, pack_number: int, offset: int) -> bytes | None:
        """Return the sealed record at an offset of a pack, if it is kept here."""
        key = TREE_KEY.pack(pack_number, offset)
        return self.environment.read(lambda txn: txn.get(key, db=self._rows.trees))

    def snapshots(self) -> Iterator[tuple[SnapshotId, bytes]]:
        """Yield the stored bytes of every snapshot object kept here, in order of ids."""
        for page in self._pages(self._rows.snapshots, 256):
            for key, value in page:
                yield SnapshotId(key), value

    def put_snapshots(self, snapshots: Iterable[tuple[SnapshotId, bytes]]) -> None:
        """Keep snapshot objects as they are stored."""
        items = sorted(snapshots)

        def put(txn: "lmdb.Transaction[bytes]") -> None:
            for key, value in items:
                txn.put(key, value, db=self._rows.snapshots)

        self.write(put)

    def drop_snapshots(self, ids: Iterable[SnapshotId]) -> None:
        """Drop snapshot objects; those not here are left out."""
        gone = list(ids)

        def drop(txn: "lmdb.Transaction[bytes]") -> None:
            for key in gone:
                txn.delete(key, db=self._rows.snapshots)

        self.write(drop)

    def clear(self) -> None:
        """Empty the cache, the stat cache with it, in one transaction. Numbers given are not reused."""
        self._empty(_EVERYTHING)

    def clear_packs(self) -> None:
        """Forget all packs, places, tree records and segments; snapshots and the stat cache stay."""
        self._empty(_PLACES)

    def sizes(self) -> CacheSizes:
        """Return what lies in the cache."""
        environment = self.environment
        file_bytes = environment.folder.size_on_disk()
        return environment.read(lambda txn: measure(txn, environment.tables, file_bytes))

    def write(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        """Run ``work`` in a write transaction; for the stat cache. Raises `ReadOnlyError`, `StoreFull`."""
        if self.readonly:
            raise ReadOnlyError(f"the cache in {self.path} was opened for reading: open it for writing")
        return self.environment.write(work)

    def _empty(self, names: Iterable[bytes]) -> None:
        def empty(txn: "lmdb.Transaction[bytes]") -> None:
            for name in names:
                txn.drop(self.environment.tables[name], delete=False)

        self.write(empty)
        self._packs.clear()

    def _add_batch(
        self,
        batch: Sequence[PackContents],
        replace: bool,
        sole: Mapping[PackId, int],
        segment: str | None,
        before: Sequence[int],
    ) -> list[tuple[PackId, int, bool]]:
        def add(txn: "lmdb.Transaction[bytes]") -> list[tuple[PackId, int, bool]]:
            added = [(p.id, *self._rows.add(txn, p, replace=replace, sole=sole.get(p.id))) for p in batch]
            if segment is not None:
                self._rows.list_in_segment(txn, segment.encode(), [*before, *[n for _, n, _ in added]])
            return added

        return self.write(add)

    def _drop_chunks_of(self, doomed: frozenset[bytes]) -> None:
        size = NUMBER.size
        chunks: list[bytes] = []

        def drop(txn: "lmdb.Transaction[bytes]") -> None:
            self._rows.drop_chunks(txn, chunks, doomed)

        for page in self._pages(self._rows.chunks, 4 * _PAGE):
            chunks = [key for key, value in page if value[:size] in doomed]
            if chunks:
                self.write(drop)

    def _pages(self, table: "lmdb._Database", rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield a table's rows in order of keys, so many at a time, each page in its own transaction."""
        after = b""

        def turn(txn: "lmdb.Transaction[bytes]") -> list[tuple[bytes, bytes]]:
            with txn.cursor(db=table) as cursor:
                return list(islice(cursor, rows)) if cursor.set_range(after) else []

        while page := self.environment.read(turn):
            yield page
            after = page[-1][0] + b"\0"

    def _entries(self, table: "lmdb._Database") -> int:
        return self.environment.read(lambda txn: txn.stat(table)["entries"])

    def _pack(self, number: int) -> PackRow | None:
        row = self._packs.get(number)
        if row is None:
            row = self.environment.read(lambda txn: self._rows.pack(txn, number))
            if row is not None:
                if len(self._packs) >= _PACKS_KEPT:
                    self._packs.clear()
                self._packs[number] = row
        return row

    def _locator(self) -> Callable[[Place], Location | None]:
        """Return a function from places to locations that makes one `Record` for a run of its chunks."""
        last: tuple[int, int] | None = None
        record: Record | None = None

        def locate(place: Place) -> Location | None:
            nonlocal last, record
            number, index, offset, length, codec, plain_length, start, size, base = place
            if (number, index) != last:
                row = self._pack(number)
                if row is None:
                    return None
                record = Record(
                    row.id,
                    index,
                    offset,
                    length,
                    codec,
                    plain_length,
                    None if base is None else ChunkId(base),
                )
                last = number, index
            assert record is not None
            return Location(record, start, size)

        return locate
