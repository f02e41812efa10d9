"""Open packs of one kind, and when to close them.

Records go at random to one of `OPEN_PACKS` open packs, so that the size of a stored pack says nothing
about neighbouring files (the mitigation of restic's ``packer_manager`` against fingerprinting by chunk
sizes). A pack closes when the next record does not fit, or earlier where padding costs next to nothing.
"""

import mmap
import threading
from collections.abc import Callable

from dedupstore.clock import Clock
from dedupstore.errors import StoreError
from dedupstore.format.crypto import Cipher
from dedupstore.format.keys import EpochKeys
from dedupstore.format.pack import PackBuilder
from dedupstore.ids import ChunkId, PackId, SessionId
from dedupstore.model import ChunkKind, Data, Members, Record
from dedupstore.repository.buffers import BufferPool

OPEN_PACKS = 2


class Packer:
    """Turns compressed records into full packs and hands those on.

    Threads: `add` from any. ``full`` is called with a builder whose every record is sealed, by whichever
    thread sealed last. Memory: `OPEN_PACKS` buffers of the pool.
    """

    def __init__(
        self,
        *,
        kind: ChunkKind,
        keys: EpochKeys,
        repo_id: bytes,
        cipher: Cipher,
        session: SessionId,
        buffers: BufferPool,
        clock: Clock,
        full: Callable[[PackBuilder], None],
    ) -> None:
        self._kind = kind
        self._keys = keys
        self._repo_id = repo_id
        self._cipher = cipher
        self._session = session
        self._buffers = buffers
        self._clock = clock
        self._full = full
        self._lock = threading.Lock()
        self._open: list[PackBuilder | None] = [None] * OPEN_PACKS
        self._closed: set[PackId] = set()
        self._dice = b""
        self._scratch = threading.local()

    def add(
        self,
        codec: int,
        data: Data,
        plain_length: int,
        members: Members,
        base: ChunkId | None = None,
    ) -> None:
        """Seal one compressed record into an open pack. May wait for a buffer; may call ``full``."""
        builder, record = self._reserve(codec, data, plain_length, members, base)
        builder.seal(record, data, self._scratch_for(len(data)))
        with self._lock:
            builder.unsealed -= 1
            last = builder.unsealed == 0 and builder.name in self._closed
            if last:
                self._closed.discard(builder.name)
        if last:
            self._full(builder)

    def _reserve(
        self, codec: int, data: Data, plain_length: int, members: Members, base: ChunkId | None
    ) -> tuple[PackBuilder, Record]:
        """Find room for a record. Never waits for a buffer, nor hands on a pack, under the lock."""
        slot: int | None = None
        spare: mmap.mmap | None = None
        while True:
            ready: list[PackBuilder] = []
            found: tuple[PackBuilder, Record] | None = None
            with self._lock:
                slot = self._throw() if slot is None else slot
                builder = self._open[slot]
                if builder is not None and not builder.fits(len(data), len(members)):
                    self._close(slot, ready)
                    builder = None
                if builder is None and spare is not None:
                    builder = self._open[slot] = self._new_builder(spare)
                    spare = None
                    if not builder.fits(len(data), len(members)):
                        raise StoreError(
                            f"a record of {len(data)} bytes does not fit in a pack: use larger packs"
                        )
                if builder is not None:
                    found = builder, builder.reserve(len(data), codec, plain_length, members, base)
                    builder.unsealed += 1
                    if builder.good_end():
                        self._close(slot, ready)
            for done in ready:
                self._full(done)
            if found is not None:
                if spare is not None:
                    self._buffers.give(spare)  # another thread opened a pack there meanwhile
                return found
            spare = self._buffers.take()

    def close(self) -> None:
        """Hand on what is left. No `add` may be under way or follow."""
        ready: list[PackBuilder] = []
        with self._lock:
            for slot in range(OPEN_PACKS):
                self._close(slot, ready)
        for done in ready:
            self._full(done)

    def _throw(self) -> int:
        """Pick a slot at random; a batch of random bytes serves many throws."""
        if not self._dice:
            self._dice = self._clock.random(256)
        face, self._dice = self._dice[-1], self._dice[:-1]
        return face % OPEN_PACKS

    def _close(self, slot: int, ready: list[PackBuilder]) -> None:
        builder, self._open[slot] = self._open[slot], None
        if builder is None:
            return
        if builder.unsealed:
            self._closed.add(builder.name)  # whoever seals its last record hands it on
        else:
            ready.append(builder)

    def _new_builder(self, buffer: mmap.mmap) -> PackBuilder:
        return PackBuilder(
            buffer,
            name=PackId(self._session + self._clock.random(16)),
            kind=self._kind,
            keys=self._keys,
            repo_id=self._repo_id,
            cipher=self._cipher,
            salt=self._clock.random(32),
        )

    def _scratch_for(self, size: int) -> bytearray:
        scratch: bytearray | None = getattr(self._scratch, "buffer", None)
        if scratch is None or len(scratch) < size:
            scratch = self._scratch.buffer = bytearray(max(size, 1 << 20) * 5 // 4)
        return scratch
