"""What restore, get and serve see of a deployment at one moment: collections, and their documents.

A view never changes. Behind it lies a snapshot alone (`stored.StoredDump`) or a snapshot with the log
replayed onto it (`replay.ReplayedView`); who reads it can not tell them apart.

An ``id`` is what `dedupstore.sources.bson.raw.id_of` gives: the type byte of ``_id`` and its raw value.
Documents are raw BSON, byte for byte as they were at the source.

Threads: a view and its collections may be used from any thread, and several at once; each iterator
belongs to one. Errors: `ChunkDamaged` and `ObjectNotFound` where the repository has lost something,
`SourceError` where what is stored is no BSON.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.position import Ts


class CollectionView(Protocol):
    """One collection, view or time series at one moment."""

    @property
    def info(self) -> CollectionInfo:
        """Its names, kind, options and indexes. A ``view`` has no documents, a ``timeseries`` has buckets."""
        ...

    @property
    def count(self) -> int | None:
        """How many documents it has; ``None`` if only reading all of them would tell."""
        ...

    @property
    def size(self) -> int | None:
        """How many bytes they are together; ``None`` as for `count`."""
        ...

    @property
    def natural(self) -> bool:
        """Whether documents come in the order of insertion (capped) and not in that of ``_id``."""
        ...

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the documents in stored order; with ``after`` only those whose ``_id`` sorts behind it.

        Needs not exist, ``after``: it is a place in the order. Lazy: reads about 8 MiB ahead. Raises
        `UsageError` for ``after`` where the order is natural.
        """
        ...

    def get(self, id: bytes) -> bytes | None:  # noqa: A002 - the word that everybody uses for it
        """Return the document with that ``_id`` or ``None``.

        Reads one leaf; the whole collection where it is natural, or was stored without an order.
        """
        ...


class View(Protocol):
    """All that is there at one moment. Close it when done: it may own temporary files."""

    @property
    def at(self) -> Ts | None:
        """The last operation that is in it; ``None`` if that is not known (a plain dump)."""
        ...

    def collections(self) -> Sequence[CollectionView]:
        """Return everything in order of database and name."""
        ...

    def find(self, db: str, name: str) -> CollectionView | None:
        """Return one collection by its names."""
        ...

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        ...
