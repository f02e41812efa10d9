"""Generated histories of a server in a repository: scanned as snapshots, their log as slices.

A scan becomes a snapshot by way of an archive, so that leaves and metadata are cut as for any other source.
"""

import io
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from dedupstore.documents.cutting import Cut, SliceSource
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.slices import heads, slices_in
from dedupstore.ids import SnapshotId
from dedupstore.model import SourceSpec
from dedupstore.ops.backup.archiver import BackupOptions
from dedupstore.ops.export.archive import ArchiveOutlet
from dedupstore.ops.export.export import export
from dedupstore.ops.export.names import Renaming, Selection
from dedupstore.progress import NullReporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import VIEW, CollectionInfo
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.bson.source import ArchiveSource
from dedupstore.sources.oplog.position import Position, header_of
from dedupstore.testing.oplog.fuzzy import Base
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.model import VIEWS
from tests.support.repos import OPTIONS, run
from tests.unit.export.views import Listed, ListedView

SERVER = {"uri": "mongodb://one:27017,two:27017/?replicaSet=rs", "set": "rs"}


class Posed:
    """A source that says it is another one: an archive as a read of a server."""

    def __init__(
        self, source: ArchiveSource, spec: SourceSpec, ends: tuple[Position, Position] | None
    ) -> None:
        self._source = source
        self.spec = spec
        self.key = os.urandom(16)
        self._ends = ends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def position(self) -> bytes | None:
        if self._ends is None:
            return None
        start, end = self._ends
        return start.pack() if start == end else start.pack() + end.pack()

    def instant(self) -> datetime | None:
        return None if self._ends is None else datetime.fromtimestamp(self._ends[1].ts.seconds, UTC)


def put_collections(
    repo: Repository,
    folder: Path,
    collections: Sequence[Listed],
    *,
    ends: tuple[Position, Position] | None = None,
    options: Mapping[str, str] = SERVER,
    backup: BackupOptions = OPTIONS,
) -> SnapshotId:
    """Store collections as a snapshot of a server; ``ends``: where its log stood."""
    out = io.BytesIO()
    export(
        ListedView(collections),
        ArchiveOutlet(out, "7.0.0", "test"),
        Selection(),
        Renaming(),
        NullReporter(),
        repo.clock,
    )
    path = folder / "collections.archive"
    path.write_bytes(out.getvalue())
    archive = ArchiveSource(
        os.fsencode(path), lambda: os.open(path, os.O_RDONLY), leaves_of(repo), temporary=folder
    )
    source = Posed(archive, SourceSpec("mongo", (b"/",), dict(options)), ends)
    result = run(repo, source, backup)
    assert not result.findings
    assert result.snapshot_id is not None
    return result.snapshot_id


def put_base(repo: Repository, folder: Path, history: History, base: Base) -> SnapshotId:
    """Store what a reader of a history saw."""
    collections = []
    for meta, documents in base.collections:
        if meta.name != VIEWS:
            kept = {id_of(document): document for document in documents}
            info = CollectionInfo(
                meta.db, meta.name, uuid=meta.uuid, options=meta.options, indexes=meta.indexes
            )
            collections.append(Listed(info, list(kept.values())))
    for (db, name), options in base.views.items():
        collections.append(Listed(CollectionInfo(db, name, VIEW, options=options)))
    end = place(history, base.end)
    first = end if base.start == base.end < base.replay else place(history, base.replay)
    return put_collections(repo, folder, collections, ends=(first, end))


def put_slices(
    repo: Repository,
    history: History,
    first: int,
    last: int,
    *,
    number: int = 1,
    proven: bool = True,
    options: Mapping[str, str] = SERVER,
) -> None:
    """Store the log from entry ``first`` to ``last`` as so many slices that join.

    ``proven``: the first begins with what an earlier call ended with.
    """
    fences = [first + (last - first) * i // number for i in range(number + 1)]
    for low, high in pairwise(fences):
        known = slices_in(repo, repo.snapshots())
        after = place(history, low) if (proven and known) or low != first else None
        with Cut(after) as cut:
            for entry in history.entries[low : high + 1]:
                cut.add(entry)
            earlier = repo.snapshots()
            ours = [entry for entry in earlier if dict(entry[1].source.options) == dict(options)]
            nodes = [one.node for one in slices_in(repo, ours)]
            adopts = [snapshot.root for _, snapshot in heads(ours)]
            source = SliceSource(cut, nodes, adopts, options=dict(options))
            assert not run(repo, source, OPTIONS).findings


def place(history: History, index: int) -> Position:
    """Return the place of an entry."""
    return header_of(history.entries[index])[0]


def settled(history: History, index: int) -> int:
    """Return the first entry from ``index`` on behind which no transaction is open."""
    return next(i for i in range(index, len(history.entries)) if history.replay_start(i) == i + 1)
