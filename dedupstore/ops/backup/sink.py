"""Where a run's chunks and pages go: a write session, or for a dry run something that only counts."""

import threading
from collections.abc import Sequence
from typing import Protocol

from dedupstore.format.codec import Compression
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import ChunkKind, Data, Member, Members
from dedupstore.ops.backup.pipeline import ChunkSink
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.keychain import Keychain
from dedupstore.repository.session import Counters


class Sink(ChunkSink, Protocol):
    """What the walk needs of a write session."""

    compression: Compression
    counters: Counters

    def save_page(self, page: bytes) -> TreeId:
        """Store a tree page or content list page."""
        ...

    def reuse(self, tree: TreeId) -> None:
        """Take over a subtree unseen."""
        ...


class DrySink:
    """Counts what a session would add. Threads: any. Memory: 100 bytes for each new chunk."""

    def __init__(self, index: LocalIndex, keychain: Keychain, compression: Compression) -> None:
        self.compression = compression
        self.counters = Counters()
        self._index = index
        self._keychain = keychain
        self._claimed: set[ChunkId] = set()
        self._lock = threading.Lock()

    def claim(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Say which are new to the repository and to this run."""
        known = self._index.contains(ids)
        mine = []
        with self._lock:
            for chunk, have in zip(ids, known, strict=True):
                mine.append(not have and chunk not in self._claimed)
                self._claimed.add(chunk)
        return mine

    def rely(self, ids: Sequence[ChunkId]) -> list[bool]:
        """Say which the repository has, or would have by now."""
        known = self._index.contains(ids)
        with self._lock:
            return [have or chunk in self._claimed for chunk, have in zip(ids, known, strict=True)]

    def add(self, codec: int, data: Data, plain_length: int, members: Members) -> None:  # noqa: ARG002
        """Count a record."""
        with self._lock:
            self.counters.chunks_new += len(members)
            self.counters.bytes_new += plain_length
            self.counters.stored_bytes += len(data)

    def save_page(self, page: bytes) -> TreeId:
        """Count a page."""
        chunk = self._keychain.chunk_id(ChunkKind.TREE, page)
        if self.claim([chunk])[0]:
            self.add(0, page, len(page), Members.of(Member(chunk, len(page))))
        return TreeId(chunk)

    def reuse(self, tree: TreeId) -> None:
        """Nothing to note: nothing is committed."""
