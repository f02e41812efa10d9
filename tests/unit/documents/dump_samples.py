"""Snapshots of imagined servers: what a reader of a `History` would have stored."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.given import Below, Entry, GivenFolder, Opened, Written, folder_node
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.parts import Origin
from dedupstore.documents.stored import StoredDump
from dedupstore.ids import SnapshotId, TreeId
from dedupstore.model import Node, NodeKind, Snapshot, SourceSpec
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.attempt import Attempt
from dedupstore.sources.bson.collection import VIEW, CollectionInfo, file_name, metadata_json, prelude_json
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.span import Span
from dedupstore.testing.oplog.fuzzy import Base
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.model import VIEWS, State
from tests.support.repos import OPTIONS, run
from tests.unit.documents.log_samples import SERVER

Tables = Sequence[tuple[CollectionInfo, list[bytes]]]
"""Collections and views with their documents, in the order in which they are stored."""


class ServerSource:
    """A server at one moment, or between two, as a source."""

    all_or_nothing = True
    absent = ()
    adopts: Sequence[TreeId] = ()

    def __init__(self, repo: Repository, tables: Tables, span: Span, *, last: Snapshot | None = None) -> None:
        self.spec = SourceSpec("mongo", (b"/",), SERVER)
        self.key = hashlib.blake2b(b"server", digest_size=16).digest()
        self._leaves = leaves_of(repo, None if last is None else StoredDump(repo, last))
        self._tables = tables
        self._span = span

    def top(self) -> GivenFolder:
        prelude = prelude_json("8.0.0", "dstore")
        entries: list[Entry] = [Written(self._node(b"prelude.json"), prelude)]
        databases: dict[str, list[Entry]] = {}
        for info, documents in self._tables:
            files = databases.setdefault(info.db, [])
            stem = file_name(info.name)
            files.append(Written(self._node(stem + b".metadata.json"), metadata_json(info)))
            if info.kind != VIEW:
                files.append(self._opened(self._node(stem + b".bson"), info, documents))
        for db, files in databases.items():
            entries.append(Below(folder_node(db.encode(), 0, 0, 0), files))
        return GivenFolder(b"/", entries, SYSTEM_CLOCK)

    def _node(self, name: bytes) -> Node:
        return Node(name, int(NodeKind.STREAM), 0o600)

    def _opened(self, node: Node, info: CollectionInfo, documents: list[bytes]) -> Opened:
        attempt = Attempt(info.namespace, info, self._leaves)

        def opened() -> DocumentStream:
            return DocumentStream(
                Origin(node, iter(documents)), attempt, packed=False, name=node.name, folder=None
            )

        return Opened(node, opened)

    def position(self) -> bytes:
        return self._span.pack()

    def instant(self) -> datetime:
        return datetime.fromtimestamp(self._span.end.ts.seconds, UTC)

    def user_name(self, uid: int) -> bytes | None:
        return None

    def group_name(self, gid: int) -> bytes | None:
        return None

    def close(self) -> None:
        pass


def ts_of(history: History, index: int) -> Ts:
    return Ts(*history.moments[index])


def span_in(history: History, base: Base) -> Span:
    begun = Position(ts_of(history, base.replay)) if base.replay <= base.start else None
    return Span(Position(ts_of(history, base.start)), Position(ts_of(history, base.end)), begun)


def tables_of(base: Base) -> Tables:
    found = [
        (CollectionInfo(m.db, m.name, "collection", m.uuid, m.options, m.indexes), documents)
        for m, documents in base.collections
        if m.name != VIEWS
    ]
    views = [(CollectionInfo(db, n, VIEW, b"", options), []) for (db, n), options in base.views.items()]
    return found + views


def store_base(
    repo: Repository, history: History, base: Base, *, last: Snapshot | None = None
) -> tuple[SnapshotId, Snapshot]:
    """Store what a reader had between two entries."""
    source = ServerSource(repo, tables_of(base), span_in(history, base), last=last)
    result = run(repo, source, OPTIONS)
    assert not result.findings
    assert result.snapshot_id is not None
    return result.snapshot_id, result.snapshot


def described(state: State) -> dict[tuple[str, str], tuple[CollectionInfo, list[bytes]]]:
    """What a server holds, as a reader of a view sees it."""
    found = {}
    for (db, name), one in state.described().items():
        if name == VIEWS:
            continue
        info = CollectionInfo(db, name, one.kind, one.uuid, one.options, one.indexes)
        found[db, name] = info, list(one.documents.values())
    return found


def in_natural_order(info: CollectionInfo) -> bool:
    return b"capped" in info.options


def raw_documents(views: Iterator[bytes]) -> list[bytes]:
    return list(views)
