"""What the last snapshot of the same source knew, and how far that can be relied on.

The stat cache says what each folder looked like when it was last backed up. It counts only while the snapshot
that it was learnt with still exists in the repository: then everything it names is reachable, so no
collection can have taken it. Below that, a folder's entry counts only if it was reached through parents
whose entries count and name it; the walk sees to that.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

from dedupstore.errors import IntegrityError, ObjectNotFound
from dedupstore.ids import ChunkId, SnapshotId, TreeId
from dedupstore.model import Node, NodeKind, Snapshot, Summary
from dedupstore.repository.repository import Repository
from dedupstore.repository.statcache import CachedFolder, CachedHead, StatCache
from dedupstore.sources.base import Item, Listing, Source
from dedupstore.sources.segments import unpack_segment
from dedupstore.tree.walk import nodes_of

_Old: TypeAlias = tuple[bytes, bytes, Node]
"""Name, stat record, node."""

RACY = 20_000_000
"""Nanoseconds: a file that changed so shortly before a run began may change again without its times showing
it, since file systems take them from a clock that ticks every 1 to 10 ms. It is read again next time."""
RACY_COARSE = 2_000_000_000 + RACY
"""The same where times come in whole seconds (ext3, HFS+, ext4 with small inodes; FAT: every second one)."""
_SECOND = 1_000_000_000


class RacyTimes:
    """Tells which changes are so fresh, seen from when a run began, that the next one may look the same."""

    def __init__(self, began: datetime) -> None:
        now = int(began.timestamp() * _SECOND)
        self.earliest = now - RACY_COARSE
        """What changed before this (nanoseconds) is settled, whatever the file system."""
        self._fine = now - RACY

    def holds(self, ctime: int) -> bool:
        """Say so for one time of change."""
        return ctime >= self._fine or (ctime >= self.earliest and not ctime % _SECOND)


class Previous:
    """One folder as it was: its old entries beside its new items, both in order of names."""

    def __init__(
        self, known: tuple[TreeId, Summary] | None, folders: Sequence[bytes], old: Iterator[_Old]
    ) -> None:
        self.known = known
        self.folders = frozenset(folders)
        self._old = old
        self._next = next(old, None)

    def find(self, item: Item) -> tuple[Node | None, Node | None]:
        """Return the old node if the entry is unchanged, and the old node of that name in any case.

        Items must be asked for in order of names.
        """
        name = item.name
        while self._next is not None and self._next[0] < name:
            self._next = next(self._old, None)
        if self._next is None or self._next[0] != name:
            return None, None
        _, record, node = self._next
        return (node if record == item.record and node.kind != NodeKind.DIR else None), node


class Past:
    """The remembered state of one source. One thread."""

    def __init__(
        self, repo: Repository, source: Source, snapshots: Sequence[tuple[SnapshotId, Snapshot]], *, host: str
    ) -> None:
        self._repo = repo
        self._cache = StatCache(repo.index, source.key)
        learnt = self._cache.header().snapshot
        by_id = dict(snapshots)
        self.valid = learnt is not None and SnapshotId(learnt) in by_id
        """Whether what is remembered may be used."""
        self.parent: SnapshotId | None = None
        """The snapshot that this run follows."""
        if learnt is not None and self.valid:
            self.parent = SnapshotId(learnt)
        else:
            kind, paths = source.spec.kind, source.spec.paths
            same = ((i, s) for i, s in snapshots if (s.source.kind, s.source.paths) == (kind, paths))
            alike = [i for i, s in same if s.host == host]
            self.parent = alike[-1] if alike else None
        self.snapshot = by_id[self.parent] if self.parent is not None else None

    def distrust(self) -> None:
        """Use nothing of what is remembered: everything is read again."""
        self.valid = False

    def begin(self) -> None:
        """Start remembering; if another process does so for this source, this run remembers nothing."""
        self._cache.begin()

    def same(self, key: bytes, listing: Listing) -> CachedHead | None:
        """Return a folder's old tree if its listing is what it was."""
        return self._cache.same(key, listing)

    def previous(self, key: bytes) -> Previous:
        """Return a folder as it was; `NOTHING` if it is not remembered."""
        cached = self._cache.get(key)
        if cached is None:
            return NOTHING
        top = TreeId(ChunkId(cached.subtree))
        return Previous((top, cached.summary), cached.folders, self._old_entries(cached, top))

    def discard(self, key: bytes) -> None:
        """Forget a folder that could not be seen: what is remembered of it may hang under no snapshot now."""
        self._cache.discard(key)

    def put(
        self, key: bytes, top: TreeId, summary: Summary, folders: Sequence[bytes], listing: Listing
    ) -> None:
        """Remember a folder; counts once the run commits."""
        self._cache.put(key, top, summary, folders, listing)

    def commit(self, snapshot: SnapshotId) -> None:
        """What was put counts from now on."""
        self._cache.commit(snapshot)

    def abort(self) -> None:
        """Forget what was put, unless it was committed."""
        self._cache.abort()

    def _old_entries(self, cached: CachedFolder, top: TreeId) -> Iterator[_Old]:
        """Join the old listing with the old nodes; what was left out or failed has no node.

        Nor has what lies behind a damaged page: it is read again.
        """
        nodes = _sound(nodes_of(self._repo.load_page, top))
        node = next(nodes, None)
        for segment in cached.listing:
            for item in unpack_segment(segment, 0):
                while node is not None and node.name < item.name:
                    node = next(nodes, None)
                if node is None:
                    return
                if node.name == item.name:
                    yield item.name, item.record, node


def _sound(nodes: Iterator[Node]) -> Iterator[Node]:
    """Yield nodes up to the first that can not be had."""
    with suppress(IntegrityError, ObjectNotFound):
        yield from nodes


NOTHING = Previous(None, (), iter(()))
