"""A collection of many leaves moved forward: what reading it all gives, and most of its list is not read."""

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.replay import replay
from dedupstore.documents.stored import StoredDump
from dedupstore.ids import TreeId
from dedupstore.model import Data, Snapshot, SourceSpec
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.export.archive import ArchiveOutlet
from dedupstore.ops.export.export import export
from dedupstore.ops.export.names import Renaming, Selection
from dedupstore.ops.verify.checker import verify
from dedupstore.progress import NullReporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.source import ArchiveSource
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.tree.listpages import list_pages_of
from tests.support.generated import SERVER, Posed
from tests.support.repos import create, run
from tests.unit.export.views import Listed, ListedView

INFO = CollectionInfo("shop", "orders", uuid=b"u" * 16)
COUNT = 24_000
AT = Position(Ts(1000, 1), 1)
PADDING = raw.binary(bytes(2100))
"""So that every document is a leaf."""


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path / "cache") as made:
        yield made


def identity(number: int) -> bytes:
    return number.to_bytes(12, "big")


def document(number: int, mark: int = 0) -> bytes:
    fields = [(b"_id", raw.OBJECT_ID, identity(number)), (b"v", raw.INT32, raw.int32(mark))]
    return raw.document([*fields, (b"p", raw.BINARY, PADDING)])


def entry(number: int, op: str, place: int) -> bytes:
    key = raw.document([(b"_id", raw.OBJECT_ID, identity(number))])
    fields = [
        (b"op", raw.STRING, raw.string(op)),
        (b"ns", raw.STRING, raw.string(INFO.namespace)),
        (b"ui", raw.BINARY, raw.binary(INFO.uuid, 4)),
        (b"o", raw.OBJECT, key if op == "d" else document(number, place)),
        (b"o2", raw.OBJECT, key),
        (b"ts", raw.TIMESTAMP, Ts(1001, place).raw()),
        (b"t", raw.INT64, raw.int64(1)),
        (b"v", raw.INT64, raw.int64(2)),
    ]
    return raw.document(fields)


def read(repo: Repository, folder: Path, documents: list[bytes], at: Position) -> Snapshot:
    """A snapshot that is made of all documents."""
    out = io.BytesIO()
    archive = ArchiveOutlet(out, "7.0.0", "test")
    view = ListedView([Listed(INFO, documents)])
    export(view, archive, Selection(), Renaming(), NullReporter(), repo.clock)
    path = folder / "archive"
    path.write_bytes(out.getvalue())
    rules = leaves_of(repo)
    leaves = Leaves(rules.key, rules.max_size, lambda _: 0)
    source = ArchiveSource(os.fsencode(path), lambda: os.open(path, os.O_RDONLY), leaves, temporary=folder)
    return run(repo, Posed(source, SourceSpec("mongo", (b"/",), dict(SERVER)), (at, at))).snapshot


def test_most_pages_are_taken_over_unread(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = read(repo, tmp_path, [document(2 * number) for number in range(COUNT)], AT)
    stored = StoredDump(repo, base).find("shop", "orders")
    assert stored is not None
    data = stored.files.data
    assert data is not None
    assert data.depth > 1
    pages = {page.id for page in list_pages_of(stored._list, data)}
    chance = random.Random(3)
    held = {2 * number: document(2 * number) for number in range(COUNT)}
    log = []
    for place, middle in enumerate([100, 24_001, 24_002], 1):
        op = chance.choice("iud") if middle % 2 == 0 else "i"
        log.append(entry(middle, op, place))
        if op == "d":
            del held[middle]
        else:
            held[middle] = document(middle, place)

    loaded: list[TreeId] = []
    load = repo.load_tree

    def counting(page: TreeId) -> Data:
        loaded.append(page)
        return load(page)

    with monkeypatch.context() as patched:
        patched.setattr(repo, "load_tree", counting)
        with replay(StoredDump(repo, base, at=AT.ts), log, after=AT.ts, spill=tmp_path) as view:
            result = run(repo, AdvancedSource(view))
    assert not result.findings
    assert len(pages & set(loaded)) <= 12  # of some 23, whatever the repository's key
    moved = StoredDump(repo, result.snapshot).find("shop", "orders")
    whole = read(repo, tmp_path, [held[number] for number in sorted(held)], Position(Ts(1001, 3), 1))
    wanted = StoredDump(repo, whole).find("shop", "orders")
    assert moved is not None
    assert wanted is not None
    assert moved.files.data is not None
    assert wanted.files.data is not None
    one, other = moved.files.data, wanted.files.data
    assert (one.content, one.depth, one.size) == (other.content, other.depth, other.size)
    assert moved.count == len(held)
    assert not verify(repo, data=True).findings
