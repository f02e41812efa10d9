"""Collections of a snapshot joined with what a log comes to: see `replay`, which makes them.

Documents come from the two joined, and one document costs one leaf at most. Collections are followed by what
the server knows them by, so they keep their documents when they are renamed.

Threads: see `dedupstore.documents.view`. Memory: that of `Collapsed`.
"""

from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Self

from dedupstore.documents.reading import documents_in
from dedupstore.documents.stored import StoredCollection, StoredDump
from dedupstore.errors import UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW, CollectionInfo
from dedupstore.sources.bson.extsort import SortedFeed
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import Key
from dedupstore.sources.oplog.change import PATCH, Change
from dedupstore.sources.oplog.collapsed import Collapsed
from dedupstore.sources.oplog.merge import applied, merge
from dedupstore.sources.oplog.position import Ts

_PART = 1 << 20


class ReplayedCollection:
    """One collection at the end of the log; see `dedupstore.documents.view.CollectionView`."""

    def __init__(
        self, collapsed: Collapsed, key: Key | None, info: CollectionInfo, base: StoredCollection | None
    ) -> None:
        """``key`` is `Collapsed`'s, ``None`` for a view; ``base`` is what the snapshot has of it."""
        self.info = info
        self.key = key
        self.base = base
        self._collapsed = collapsed

    @property
    def touched(self) -> bool:
        """Whether the log changes any document, so that the base is not all there is to it."""
        return self.key is not None and self._collapsed.touched(self.key)

    @property
    def discarded(self) -> bool:
        """Whether nothing of what the base has in it counts any more."""
        return self.key is None or self._collapsed.discards(self.key)

    @property
    def natural(self) -> bool:
        """Whether documents come in the order of insertion."""
        return self.key is not None and self._collapsed.natural(self.key)

    @property
    def count(self) -> int | None:
        """Documents, if the log does not touch them."""
        if self.key is None:
            return 0
        return None if self.touched or self.base is None else self.base.count

    @property
    def size(self) -> int | None:
        """Bytes, if the log does not touch them."""
        if self.key is None:
            return 0
        return None if self.touched or self.base is None else self.base.size

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the documents in order; see `CollectionView.documents`."""
        if self.key is None:
            return iter(())
        if after is None:
            return self._collapsed.documents(self.key, self._base_documents)
        if self.natural:
            raise UsageError(
                f"{self.info.namespace} is in order of insertion: nothing comes after an _id, read all of it"
            )
        base = iter(()) if self.discarded else self._base_documents(after)
        return self.apply(base, self._collapsed.changes(self.key, after))

    def get(self, id: bytes) -> bytes | None:  # noqa: A002 - see `CollectionView.get`
        """Return one document; see `CollectionView.get`."""
        if self.key is None:
            return None
        if self.natural:  # its oldest documents may be gone without a word in the log
            key = sort_key(id)
            return next((one for one in self.documents() if sort_key(raw.id_of(one)) == key), None)
        collapsed = self._collapsed
        base = None if self.discarded else self.base
        change = collapsed.change(self.key, id)
        document = None
        if base is not None and (change is None or change.kind == PATCH):
            document = base.get(id)
        if change is None:
            return document
        return applied(change, document, self.info.namespace, fuzzy=collapsed.fuzzy)

    def changes(self) -> Iterator[Change]:
        """Yield what the log comes to, one change a document; see `Collapsed.changes`."""
        return iter(()) if self.key is None else self._collapsed.changes(self.key)

    def apply(self, documents: Iterator[bytes], changes: Iterator[Change]) -> Iterator[bytes]:
        """Join documents of the base, in order of ``_id``, with changes."""
        return merge(documents, changes, fuzzy=self._collapsed.fuzzy, where=self.info.namespace)

    def _base_documents(self, after: bytes | None = None) -> Iterator[bytes]:
        base = self.base
        if base is None:
            return iter(())
        if base.natural and not self.natural:  # a plain file: nobody has put its documents in order
            ordered = sorted_documents(base.documents())
            if after is None:
                return ordered
            key = sort_key(after)
            return dropwhile(lambda document: sort_key(raw.id_of(document)) <= key, ordered)
        return base.documents(after)


class ReplayedView:
    """Everything at the end of the log; see `dedupstore.documents.view.View`. Close it."""

    def __init__(self, base: StoredDump, collapsed: Collapsed, at: Ts | None) -> None:
        """Owns ``collapsed``; ``at`` is the last operation that counts."""
        self.base = base
        self.collapsed = collapsed
        self.at = at
        catalog = collapsed.catalog
        stored: dict[Key, StoredCollection] = {}
        for one in base.collections():
            key = None if one.info.kind == VIEW else catalog.key_of(one.info)
            if key is not None:
                stored[key] = one
        found = []
        for key in catalog.followed_keys():
            info = catalog.info(key)
            assert info is not None
            found.append(ReplayedCollection(collapsed, key, info, stored.get(key)))
        views = [info for info in catalog.collections() if info.kind == VIEW]
        found += [ReplayedCollection(collapsed, None, info, None) for info in views]
        self._collections = sorted(found, key=lambda one: (one.info.db, one.info.name))
        self._by_name = {(one.info.db, one.info.name): one for one in self._collections}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def collections(self) -> list[ReplayedCollection]:
        """Return everything, in order of database and name."""
        return self._collections

    def find(self, db: str, name: str) -> ReplayedCollection | None:
        """Return one collection."""
        return self._by_name.get((db, name))

    def close(self) -> None:
        """Drop temporary files; a second call does nothing."""
        self.collapsed.close()


def sorted_documents(documents: Iterator[bytes], folder: Path | None = None) -> Iterator[bytes]:
    """Yield documents in order of ``_id``; ``folder`` and memory as of `SortedFeed`."""
    rest = memoryview(b"")

    def fill(view: memoryview) -> int:
        nonlocal rest
        if not rest:
            rest = memoryview(next(documents, b""))
        size = min(len(rest), len(view))
        view[:size] = rest[:size]
        rest = rest[size:]
        return size

    feed = SortedFeed(fill, folder)
    try:
        yield from documents_in(_parts(feed), "a temporary file")
    finally:
        feed.close()


def _parts(feed: SortedFeed) -> Iterator[bytes]:
    buffer = memoryview(bytearray(_PART))
    while size := feed.fill(buffer):
        yield bytes(buffer[:size])
