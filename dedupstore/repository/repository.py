"""A repository: made, opened, read. It hands out sessions and gets no method for any feature.

Opening reads ``config`` and key slots only; the local index is opened, and brought up to date, when
something first needs it. Threads: any, after opening. Memory: `PAGE_CACHE` expanded tree records.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Self

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import ChunkDamaged, DedupstoreError, IntegrityError, NotFoundError, ObjectNotFound
from dedupstore.format import constants as c
from dedupstore.format.codec import Compression
from dedupstore.format.config import RepoConfig
from dedupstore.format.snapshot import decode_snapshot, snapshot_id
from dedupstore.format.tree import Page, decode_page
from dedupstore.ids import ChunkId, PackId, SnapshotId, TreeId, parse_id, short
from dedupstore.model import ChunkKind, Data, Record, Snapshot
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectStore
from dedupstore.progress import Reporter
from dedupstore.repository import segments
from dedupstore.repository.index import LocalIndex, Place
from dedupstore.repository.keychain import Keychain
from dedupstore.repository.ledger import Ledger
from dedupstore.repository.machine import Machine
from dedupstore.repository.reader import RecordReader
from dedupstore.repository.session import WriteSession

PAGE_CACHE = 48
"""Expanded tree records kept (each about 256 KiB)."""
PACKS_WANTED = 4096
"""Packs grow so that there are not many more of them than this (64 GiB in packs of 16 MiB)."""


class Repository:
    """An open repository. Made by `keyring.create` or `keyring.unlock`."""

    def __init__(
        self, store: ObjectStore, config: RepoConfig, cache: Path, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """``cache`` is the folder for this machine's caches of all repositories."""
        self.store = store
        self.config = config
        self.id = config.id
        self.clock = clock
        self.keychain = Keychain(config.id, config.cipher, config.epochs, clock)
        self.cache_path = cache / config.id.hex()
        self.damaged: list[tuple[str, DedupstoreError]] = []
        """Snapshot and session objects that did not open when last listed, by name."""
        self.reader = RecordReader(
            store, config.id, self.keychain.cipher, self.keychain.epoch, self._pack_row, self._chunk
        )
        self._index: LocalIndex | None = None
        self._records: OrderedDict[tuple[PackId, int], bytes] = OrderedDict()
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the local index and the store."""
        index, self._index = self._index, None
        try:
            if index is not None:
                index.close()
        finally:
            self.store.close()

    @property
    def index(self) -> LocalIndex:
        """The local index, opened on first use; `sync` brings it up to date."""
        with self._lock:
            if self._index is None:
                self._index = LocalIndex.open(self.cache_path, self.id)
            return self._index

    def sync(self, report: Reporter | None = None) -> None:
        """Bring the local index up to date with the store. Raises `ObjectDamaged` naming a bad segment."""
        segments.sync(self.store, self.keychain, self.index, report)

    def drop_lost_packs(self) -> list[PackId]:
        """Take packs that the store no longer has out of the index; return them.

        One listing of the packs. Whatever lay in them counts as unknown afterwards, so that a backup
        stores it again.
        """
        there = {info.key.name for info in self.store.listing(ObjectKind.PACK)}
        lost = [pack for pack, *_ in self.index.packs() if pack.hex() not in there and self._is_gone(pack)]
        if lost:
            self.index.forget(lost)
        return lost

    def _is_gone(self, pack: PackId) -> bool:
        try:
            self.store.stat(ObjectKey(ObjectKind.PACK, pack.hex()))
        except ObjectNotFound:
            return True
        return False

    def snapshots(self) -> list[tuple[SnapshotId, Snapshot]]:
        """Return every snapshot, in order of commits; those that do not open go to `damaged`.

        Snapshots are kept in the local cache once read; those of a session that committed and died before
        it could publish are among them.
        """
        # Sessions first: one that is published and removed in between is then found under its own name.
        ledger = Ledger(self.store, self.keychain)
        held = [entry.state.snapshot for entry in ledger.sessions()]
        unpublished = {snapshot_id(stored): stored for stored in held if stored is not None}
        cached = dict(self.index.snapshots())
        names = [info.key.name for info in self.store.listing(ObjectKind.SNAPSHOT)]
        listed = {SnapshotId(parse_id(name)) for name in names if len(name) == 2 * c.HASH_SIZE}
        self.damaged = ledger.damaged
        found: list[tuple[SnapshotId, Snapshot]] = []
        fresh: list[tuple[SnapshotId, bytes]] = []
        for identifier in listed | unpublished.keys():
            stored = cached.get(identifier) or unpublished.get(identifier)
            try:
                if stored is None or snapshot_id(stored) != identifier:
                    stored = self.store.get(ObjectKey(ObjectKind.SNAPSHOT, identifier.hex()))
                found.append((identifier, self._open_snapshot(identifier, stored)))
            except ObjectNotFound:
                continue  # forgotten between listing and reading
            except DedupstoreError as error:
                self.damaged.append((f"snapshots/{identifier.hex()}", error))
            else:
                if stored != cached.get(identifier):
                    fresh.append((identifier, stored))
        gone = [i for i in cached if i not in listed and i not in unpublished]
        if fresh:
            self.index.put_snapshots(fresh)
        if gone:
            self.index.drop_snapshots(gone)
        return sorted(found, key=lambda pair: (pair[1].sequence, pair[1].time, pair[0]))

    def _open_snapshot(self, identifier: SnapshotId, stored: bytes) -> Snapshot:
        if snapshot_id(stored) != identifier:
            raise IntegrityError(
                f"snapshot {short(identifier)} is not what its name says; run `dstore verify`"
            )
        return decode_snapshot(self.keychain.open(c.OBJECT_SNAPSHOT, stored))

    def load_page(self, tree: TreeId) -> Page:
        """Return a tree page; raises `ChunkDamaged`, or `ObjectNotFound` where no pack has it."""
        return decode_page(self.load_tree(tree))

    def load_tree(self, tree: TreeId) -> bytes:
        """Return the bytes of a TREE chunk (a tree page or a content list page), checked against its id."""
        (place,) = self.index.rows([tree])
        if place is None:
            raise ObjectNotFound(
                f"no pack holds tree page {short(tree)}; run `dstore cache rebuild --from-packs`, "
                "then `dstore verify`",
                chunk=tree,
            )
        number, position, offset, length, codec, plain_length, start, size, base = place
        pack = self.index.pack(number).id
        key = (pack, position)
        record = Record(
            pack, position, offset, length, codec, plain_length, None if base is None else ChunkId(base)
        )
        with self._lock:
            plain = self._records.get(key)
            if plain is not None:
                self._records.move_to_end(key)
        if plain is None:
            plain = self._tree_record(record, place)
            with self._lock:
                self._records[key] = plain
                while len(self._records) > PAGE_CACHE:
                    self._records.popitem(last=False)
        page = plain[start : start + size]
        self.check(tree, ChunkKind.TREE, page, record)
        return page

    def _tree_record(self, record: Record, place: Place) -> bytes:
        """Open a tree record from the local cache, or from the store if it is not there or is bad."""
        number, _, offset, length = place[:4]
        sealed = self.index.tree_record(number, offset)
        if sealed is not None and len(sealed) == length:
            try:
                return self.reader.open_record(record, sealed)
            except ChunkDamaged:
                sealed = None  # the cache is no authority: ask the store
        (sealed,) = self.store.get_ranges(ObjectKey(ObjectKind.PACK, record.pack.hex()), [(offset, length)])
        plain = self.reader.open_record(record, sealed)
        with suppress(NotFoundError):  # the pack was forgotten this instant
            self.index.put_tree_records(record.pack, [(offset, sealed)])
        return plain

    def check(self, chunk: ChunkId, kind: ChunkKind, data: Data, record: Record) -> None:
        """Raise `ChunkDamaged` unless ``data`` is the plaintext that ``chunk`` names."""
        if not self.keychain.names(kind, data, chunk):
            raise ChunkDamaged(
                f"chunk {short(chunk)} in pack {short(record.pack)} is not what its id says; "
                "run `dstore verify --data` to see what it hurts",
                pack=record.pack,
                offset=record.offset,
                chunk=chunk,
            )

    def read(
        self, ids: Sequence[ChunkId], kind: ChunkKind = ChunkKind.DATA
    ) -> Iterator[tuple[ChunkId, Data]]:
        """Yield chunks grouped by pack, each checked; raises `ChunkDamaged` or `ObjectNotFound`.

        Memory: one record. Each record is opened once for all of its chunks that are wanted.
        """
        wanted: dict[PackId, dict[int, tuple[Record, list[tuple[ChunkId, int, int]]]]] = {}
        for chunk, place in zip(ids, self.index.find(ids), strict=True):
            if place is None:
                raise ObjectNotFound(f"no pack holds chunk {short(chunk)}; run `dstore verify`", chunk=chunk)
            rows = wanted.setdefault(place.record.pack, {})
            rows.setdefault(place.record.number, (place.record, []))[1].append(
                (chunk, place.start, place.size)
            )
        for pack, rows in wanted.items():
            for record, plain in self.reader.records(pack, [record for record, _ in rows.values()]):
                if isinstance(plain, DedupstoreError):
                    raise plain
                with memoryview(plain) as view:
                    for chunk, start, size in rows[record.number][1]:
                        data = bytes(view[start : start + size])
                        self.check(chunk, kind, data, record)
                        yield chunk, data

    def _chunk(self, chunk: ChunkId, kind: ChunkKind) -> bytes:
        """Return one chunk's plaintext: the base of a delta record, which is never a delta itself."""
        (place,) = self.index.find([chunk])
        if place is not None and place.record.base is not None:
            raise ChunkDamaged(
                f"chunk {short(chunk)} is the base of a record and a delta itself; run `dstore verify`",
                chunk=chunk,
            )
        for _, data in self.read([chunk], kind):
            return bytes(data)
        raise ObjectNotFound(f"no pack holds chunk {short(chunk)}; run `dstore verify`", chunk=chunk)

    def _pack_row(self, pack: PackId) -> tuple[ChunkKind, int, bytes] | None:
        row = self.index.pack_named(pack)
        return None if row is None else (row.kind, row.epoch, row.salt)

    def _pack_size(self) -> int:
        """Return the capacity of new packs: doubled whenever the repository holds `PACKS_WANTED` of them."""
        stored = sum(size for _, _, size, _ in self.index.packs())
        size = self.config.pack_size
        while stored > PACKS_WANTED * size and 2 * size <= self.config.pack_size_max:
            size *= 2
        return size

    @contextmanager
    def writing(self, compression: Compression | None = None) -> Iterator[WriteSession]:
        """Hold a write session; leaving without `WriteSession.commit` gives it up."""
        self.sync()
        session = WriteSession(
            store=self.store,
            keychain=self.keychain,
            index=self.index,
            clock=self.clock,
            machine=Machine.here(),
            pack_size=self._pack_size(),
            compression=compression or Compression.parse(self.config.compression),
        )
        try:
            yield session
        except BaseException:
            with suppress(DedupstoreError):  # what went wrong first says more
                session.abort()
            raise
        session.abort()
