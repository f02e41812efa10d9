"""A write session: chunks in, one snapshot out, safe against every other writer and a collector.

Order of every write: packs durable, then index segments, then the one swap that commits. What was
stored by a session that died is found by the next one (`adopt`) and not sent again.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dedupstore.clock import Clock
from dedupstore.errors import DedupstoreError, Interrupted, NotFoundError, SessionError, SessionFenced
from dedupstore.format import constants as c
from dedupstore.format.codec import Compression, Compressor
from dedupstore.format.pack import PackBuilder
from dedupstore.format.session import SessionState
from dedupstore.format.snapshot import encode_snapshot, snapshot_id
from dedupstore.ids import ChunkId, PackId, SessionId, SnapshotId, TreeId
from dedupstore.model import ChunkKind, Data, Member, Members, PackContents, Snapshot
from dedupstore.objectstore.base import ObjectWriter
from dedupstore.repository import segments
from dedupstore.repository.buffers import BufferPool
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.keychain import Keychain
from dedupstore.repository.ledger import FENCED, Ledger, OwnSession, publish
from dedupstore.repository.machine import Machine
from dedupstore.repository.packer import OPEN_PACKS, Packer
from dedupstore.repository.uploader import UPLOADS, Uploader

TREE_GROUP = 256 * 1024
"""Plaintext of tree pages sealed as one record: small enough to open one page, large enough to compress."""
TREE_COMPRESSION = Compression(c.CODEC_ZSTD, 3)


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a chunk."""

    id: ChunkId
    new: bool


@dataclass(slots=True)
class Counters:
    """What a session added so far. Sizes in bytes."""

    chunks_new: int = 0
    bytes_new: int = 0
    stored_bytes: int = 0


class WriteSession:
    """Stores chunks that nobody had, and commits a snapshot of them.

    Threads: `claim`, `rely`, `add`, `put` and `save_page` from any; `commit` and `abort` from one, when the
    others are done. Memory: 2 * `OPEN_PACKS` + `UPLOADS` pack buffers for both kinds; one set entry for
    every chunk in a pack that is not yet durable.
    """

    def __init__(
        self,
        *,
        store: ObjectWriter,
        keychain: Keychain,
        index: LocalIndex,
        clock: Clock,
        machine: Machine,
        pack_size: int,
        compression: Compression,
    ) -> None:
        self.id = SessionId(clock.random(16))
        self.compression = compression
        self.counters = Counters()
        self.unsettled: DedupstoreError | None = None
        """What went wrong after the commit, which stands; the next run puts it right."""
        self._finished = False
        self.keychain = keychain
        self._store = store
        self._index = index
        self._clock = clock
        self._ledger = Ledger(store, keychain)
        self._machine = machine
        self._pending: set[ChunkId] = set()
        self._used: dict[int, PackId] = {}
        self._gone: set[PackId] = set()
        self._adopted_trees: list[TreeId] = []
        self._lock = threading.Lock()
        self._tree_lock = threading.Lock()
        self._tree_group: list[bytes] = []
        self._tree_members: list[Member] = []
        self._tree_bytes = 0
        self._tree_compressor = Compressor(TREE_COMPRESSION)
        self._own = self._declare()
        try:
            self._heed()
            self._dead = segments.adopt(store, keychain, index, self._ledger, self.id, machine, self._gone)
        except BaseException:
            with contextlib.suppress(DedupstoreError):
                self._own.end()
            raise
        self._buffers = BufferPool(pack_size, 2 * OPEN_PACKS + UPLOADS)
        self._segments = segments.SegmentWriter(store, keychain, index)
        self._uploader = Uploader(store, self._buffers, clock, self._durable)
        self._packers = {kind: self._packer(kind) for kind in ChunkKind}

    def _declare(self) -> OwnSession:
        """Put the session object."""
        generation = self._ledger.generation()
        state = SessionState(
            state="open",
            generation=generation,
            host=self._machine.host,
            pid=self._machine.pid,
            boot=self._machine.boot,
            started=self._clock.now(),
        )
        return OwnSession(self._store, self._ledger, self.id, state)

    def _heed(self) -> None:
        """See that no collection began before the session object was there; forget what it took."""
        while (now := self._ledger.generation()) != self._own.generation:
            self._own.bump(now)
        self._gone = self._ledger.absent(now)
        if self._gone:
            self._index.forget(self._gone)

    def _packer(self, kind: ChunkKind) -> Packer:
        return Packer(
            kind=kind,
            keys=self.keychain.current,
            repo_id=self.keychain.repo_id,
            cipher=self.keychain.cipher,
            session=self.id,
            buffers=self._buffers,
            clock=self._clock,
            full=self._full,
        )

    def claim(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Say for each id whether the caller must store it: nobody has it, and nobody else claimed it."""
        with self._lock:
            mine = [chunk not in self._pending for chunk in ids]
            fresh: list[ChunkId] = []
            for position, chunk in enumerate(ids):
                if mine[position]:
                    if chunk in self._pending:  # twice in this very batch
                        mine[position] = False
                    else:
                        self._pending.add(chunk)
                        fresh.append(chunk)
        # Looked up after claiming: a chunk leaves `_pending` only once the index has it.
        rows = self._index.rows(fresh)
        known = {
            chunk
            for chunk, row in zip(fresh, rows, strict=True)
            if row is not None and self._relies_on(row[0])
        }
        if known:
            with self._lock:
                self._pending -= known
            mine = [new and chunk not in known for new, chunk in zip(mine, ids, strict=True)]
        return mine

    def rely(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Note that the snapshot takes over chunks that nobody reads again; say for each if it is there.

        What was lost from the store is told by ``False`` (as far as the index knows: see
        `Repository.drop_lost_packs`); a collection that takes one of the others until the commit fences it.
        """
        with self._lock:
            stored = {chunk for chunk in ids if chunk in self._pending}
        # Looked up after that: a chunk leaves `_pending` only once the index has it.
        rows = self._index.rows(ids)
        return [
            (row is not None and self._relies_on(row[0])) or chunk in stored
            for chunk, row in zip(ids, rows, strict=True)
        ]

    def _relies_on(self, number: int) -> bool:
        """Note that the snapshot needs a pack; ``False`` if it can not be relied on."""
        if number not in self._used:
            try:
                pack = self._index.pack(number).id
            except NotFoundError:
                return False  # forgotten since its row was read
            if pack in self._gone:
                return False
            self._used[number] = pack
        return True

    def add(self, codec: int, data: Data, plain_length: int, members: Members) -> None:
        """Store a record of claimed data chunks, compressed by the caller. Raises `StoreError` kinds."""
        self._pack(ChunkKind.DATA, codec, data, plain_length, members)

    def put(self, data: Data, kind: ChunkKind = ChunkKind.DATA) -> Stored:
        """Store one chunk by itself: the simple way, for what is not in a hurry."""
        chunk = self.keychain.chunk_id(kind, data)
        if not data or not self.claim([chunk])[0]:
            return Stored(chunk, new=False)
        codec, packed = Compressor(self.compression).compress(data)
        members = Members.of(Member(chunk, len(data)))
        self._pack(kind, codec, packed, len(data), members)
        return Stored(chunk, new=True)

    def save_page(self, page: bytes) -> TreeId:
        """Store one encoded tree page or content list page, some time before the commit."""
        chunk = self.keychain.chunk_id(ChunkKind.TREE, page)
        with self._tree_lock:
            self._tree_group.append(page)
            self._tree_members.append(Member(chunk, len(page)))
            self._tree_bytes += len(page)
            if self._tree_bytes >= TREE_GROUP:
                self._flush_tree()
        return TreeId(chunk)

    def reuse(self, tree: TreeId) -> None:
        """Note that a whole subtree of an earlier snapshot is taken over unseen."""
        self._adopted_trees.append(tree)

    def commit(self, snapshot: Snapshot) -> SnapshotId:
        """Make everything durable, then decide. Raises `SessionFenced`, or what went wrong with a pack."""
        self.finish()
        self._segments.add_relied(
            self._used.values(), {entry.id for entry in self._dead}, reuses=bool(self._adopted_trees)
        )
        self._segments.flush()
        self._validate()
        stored = self.keychain.seal(c.OBJECT_SNAPSHOT, encode_snapshot(snapshot))
        self._own.commit(stored)
        identifier = snapshot_id(stored)
        try:
            self._settle(identifier, stored)
        except DedupstoreError as error:
            self.unsettled = error
        return identifier

    def _settle(self, identifier: SnapshotId, stored: bytes) -> None:
        """Tidy up after the decision, which nothing here can undo: readers find it in the session too."""
        publish(self._store, stored)
        self._own.end()
        for entry in self._dead:  # its packs are in our segments now
            segments.bury(self._store, entry)
        self._index.put_snapshots([(identifier, stored)])
        self._index.flush()

    @property
    def committed(self) -> bool:
        """Whether the snapshot is a promise."""
        return self._own.committed

    def abort(self) -> None:
        """Give up. Packs already durable are put in a segment, so that the next run finds them.

        If that fails too, the session object stays, and the next run finds them by it. After a commit
        there is nothing to give up.
        """
        if self.committed:
            return
        self._buffers.stop()
        self._uploader.stop()
        self._segments.flush()
        self._index.flush()
        self._own.end()

    def finish(self) -> None:
        """Close and store what is open; nothing more can be added. Raises what went wrong with a pack."""
        if not self._finished:
            self._finished = True
            self._close()
        self._uploader.check()
        if self._pending:
            raise SessionError("some chunks were announced and never stored; run it again", session=self.id)

    def _close(self) -> None:
        with self._tree_lock:
            self._flush_tree()
        for packer in self._packers.values():
            packer.close()
        self._uploader.drain()

    def _flush_tree(self) -> None:
        pages, members = self._tree_group, self._tree_members
        self._tree_group, self._tree_members, self._tree_bytes = [], [], 0
        # All at once: looking one page up costs as much as writing it.
        mine = self.claim([member.id for member in members])
        plain = b"".join([page for page, new in zip(pages, mine, strict=True) if new])
        members = [member for member, new in zip(members, mine, strict=True) if new]
        if not members:
            return
        codec, packed = self._tree_compressor.compress(plain)
        self._pack(ChunkKind.TREE, codec, packed, len(plain), Members.of(*members))

    def _pack(self, kind: ChunkKind, codec: int, data: Data, plain_length: int, members: Members) -> None:
        self._uploader.check()
        try:
            self._packers[kind].add(codec, data, plain_length, members)
        except Interrupted:
            self._uploader.check()  # a pack that failed stopped the others: say what was wrong with it
            raise
        with self._lock:
            self.counters.chunks_new += len(members)
            self.counters.bytes_new += plain_length

    def _full(self, builder: PackBuilder) -> None:
        self._uploader.submit(builder)

    def _durable(self, contents: PackContents, stored: memoryview) -> None:
        """The pack is in the store: tell the index, then stop holding its chunks as pending."""
        self._segments.add(contents, self._index.add(contents))
        if contents.kind is ChunkKind.TREE:
            rows = [(r.offset, bytes(stored[r.offset : r.offset + r.length])) for r, _ in contents.records]
            with contextlib.suppress(NotFoundError):  # the cache was emptied this instant
                self._index.put_tree_records(contents.id, rows)
        with self._lock:
            self.counters.stored_bytes += contents.size
            for _, members in contents.records:
                self._pending.difference_update(members.ids)

    def _validate(self) -> None:
        """See that no collection since the start took what this snapshot relies on."""
        while (now := self._ledger.generation()) != self._own.generation:
            taken: set[PackId] = set()
            for generation in range(self._own.generation + 1, now + 1):
                taken |= self._ledger.condemned(generation)
            if not taken.isdisjoint(self._used.values()) or (taken and self._adopted_trees):
                self._index.forget(taken)
                raise SessionFenced(FENCED, session=self.id)
            self._own.bump(now)
