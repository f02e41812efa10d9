"""Collections in snapshots: of a server, of a dump folder, of an archive; one document costs one leaf."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.reading import documents_in
from dedupstore.documents.stored import StoredCollection, StoredDump
from dedupstore.errors import NotFoundError, SourceError, UsageError
from dedupstore.format.config import RepoConfig
from dedupstore.model import Data
from dedupstore.objectstore.base import ObjectKey
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW, CollectionInfo, file_name, metadata_json, prelude_json
from dedupstore.sources.bson.source import DumpSource
from dedupstore.sources.files.scan import FilesSource
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.span import Span
from tests.support.repos import create, run, small_config
from tests.unit.documents.dump_samples import ServerSource, Tables

MOMENT = Span(Position(Ts(5, 1), 1), Position(Ts(5, 1), 1))
UUID = bytes(range(16))
CAPPED = raw.document([(b"capped", raw.BOOL, b"\1"), (b"size", raw.INT32, raw.int32(1 << 20))])


class CountingStore(MemoryStore):
    """Counts what is read of packs."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.read += sum(size for _, size in ranges)
        return super().get_ranges(key, ranges)


def numbered(number: int, size: int = 80) -> bytes:
    fields = [(b"_id", raw.INT32, raw.int32(number)), (b"x", raw.BINARY, raw.binary(os.urandom(size)))]
    return raw.document(fields)


def named(name: bytes, size: int = 80) -> bytes:
    fields = [(b"_id", raw.STRING, raw.string(name)), (b"x", raw.BINARY, raw.binary(os.urandom(size)))]
    return raw.document(fields)


def stored(repo: Repository, tables: Tables) -> StoredDump:
    assert not run(repo, ServerSource(repo, tables, MOMENT)).findings
    return StoredDump(repo, repo.snapshots()[-1][1], at=MOMENT.end.ts)


def only(repo: Repository, documents: list[bytes], options: bytes = raw.EMPTY) -> StoredCollection:
    found = stored(repo, [(CollectionInfo("shop", "orders", uuid=UUID, options=options), documents)])
    collection = found.find("shop", "orders")
    assert collection is not None
    return collection


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def repo(tmp_path: Path, store: CountingStore) -> Iterator[Repository]:
    with create(store, tmp_path / "cache", config=large_records()) as made:
        yield made


def large_records() -> RepoConfig:
    return small_config(record_size=16 << 10)


def test_all_documents_come_in_order_and_are_counted(repo: Repository) -> None:
    documents = [numbered(n) for n in range(5000)]
    found = only(repo, documents)
    assert list(found.documents()) == documents
    assert found.count == 5000
    assert found.size == sum(map(len, documents))
    assert not found.natural
    assert found.info.namespace == "shop.orders"


def test_one_document_costs_one_leaf(repo: Repository, store: CountingStore) -> None:
    documents = [numbered(n) for n in range(20_000)]
    found = only(repo, documents)
    assert len(list(found.leaves())) > 50
    for number in (0, 1, 777, 19_999):
        before = store.read
        assert found.get(b"\x10" + raw.int32(number)) == documents[number]
        assert store.read - before <= 40_000
    before = store.read
    assert found.get(b"\x10" + raw.int32(-1)) is None
    assert found.get(b"\x10" + raw.int32(20_000)) is None
    assert store.read - before <= 80_000


def test_numbers_are_found_whatever_their_type(repo: Repository) -> None:
    documents = [numbered(n) for n in range(500)]
    found = only(repo, documents)
    assert found.get(b"\x12" + raw.int64(77)) == documents[77]
    assert found.get(b"\x01" + raw.double(77.0)) == documents[77]
    assert found.get(b"\x01" + raw.double(77.5)) is None


def test_what_comes_after_a_place_in_the_order(repo: Repository) -> None:
    documents = [numbered(n) for n in range(0, 6000, 2)]
    found = only(repo, documents)
    for number in (-5, 0, 1, 2, 2999, 3000, 5997, 5998, 9000):
        expected = [document for n, document in zip(range(0, 6000, 2), documents, strict=True) if n > number]
        assert list(found.documents(b"\x10" + raw.int32(number))) == expected


def test_ids_that_differ_far_behind_are_told_apart(repo: Repository) -> None:
    """Labels are cut short: many leaves have the same one."""
    names = [b"p" * 150 + b"%05d" % n for n in range(0, 3000, 2)]
    documents = [named(name) for name in names]
    found = only(repo, documents)
    assert len({label for _, _, label in found.leaves()}) == 1
    for place in (0, 1, 700, 1499):
        assert found.get(raw.id_of(documents[place])) == documents[place]
        assert list(found.documents(raw.id_of(documents[place]))) == documents[place + 1 :]
    assert found.get(raw.id_of(named(b"p" * 150 + b"00001"))) is None
    assert found.get(raw.id_of(named(b"q"))) is None
    assert found.get(raw.id_of(named(b"p" * 100))) is None


def test_a_document_longer_than_a_leaf_is_one_document(repo: Repository) -> None:
    documents = [numbered(n, 200_000 if n in {0, 7, 8, 19} else 500) for n in range(20)]
    found = only(repo, documents)
    assert list(found.documents()) == documents
    for number, document in enumerate(documents):
        assert found.get(b"\x10" + raw.int32(number)) == document
        assert list(found.documents(b"\x10" + raw.int32(number))) == documents[number + 1 :]
    assert found.get(b"\x10" + raw.int32(-1)) is None


def test_capped_collections_keep_their_order(repo: Repository) -> None:
    documents = [numbered(n) for n in (5, 3, 9, 1, 7)]
    found = only(repo, documents, CAPPED)
    assert found.natural
    assert list(found.documents()) == documents
    assert found.get(b"\x10" + raw.int32(1)) == documents[3]
    assert found.get(b"\x10" + raw.int32(2)) is None
    with pytest.raises(UsageError, match="order"):
        list(found.documents(b"\x10" + raw.int32(3)))


def test_an_empty_collection_has_nothing(repo: Repository) -> None:
    found = only(repo, [])
    assert list(found.documents()) == []
    assert list(found.documents(b"\x0a")) == []
    assert found.get(b"\x0a") is None
    assert (found.count, found.size) == (0, 0)


def test_a_dump_lists_what_is_in_it_by_name(repo: Repository) -> None:
    infos = [
        CollectionInfo("shop", "z", uuid=UUID),
        CollectionInfo("Über", "a b/c", uuid=bytes(16)),
        CollectionInfo("shop", "y" * 250, uuid=UUID[::-1]),
        CollectionInfo("shop", "v", VIEW, options=raw.document([(b"viewOn", raw.STRING, raw.string("z"))])),
    ]
    dump = stored(repo, [(info, [] if info.kind == VIEW else [numbered(1)]) for info in infos])
    assert [one.info for one in dump.collections()] == sorted(infos, key=lambda info: (info.db, info.name))
    for info in infos:
        found = dump.find(info.db, info.name)
        assert found is not None
        assert found.info == info
        assert len(list(found.documents())) == (info.kind != VIEW)
    assert dump.find("shop", "a") is None
    assert dump.find("nowhere", "z") is None
    assert dump.at == Ts(5, 1)


def test_a_server_without_collections_is_an_empty_dump(repo: Repository) -> None:
    assert stored(repo, []).collections() == []


def write_dump(root: Path, tables: Tables, *, metadata: bool = True) -> None:
    for info, documents in tables:
        folder = root / info.db
        folder.mkdir(parents=True, exist_ok=True)
        stem = file_name(info.name).decode()
        (folder / f"{stem}.bson").write_bytes(b"".join(documents))
        if metadata:
            (folder / f"{stem}.metadata.json").write_bytes(metadata_json(info))
    (root / "prelude.json").write_bytes(prelude_json("8.0.0", "100"))


def dump_in(repo: Repository, path: Path) -> StoredDump:
    run(repo, DumpSource([os.fsencode(path)], leaves_of(repo)))
    return StoredDump(repo, repo.snapshots()[-1][1])


def test_a_dump_folder_is_found_wherever_it_lies(repo: Repository, tmp_path: Path) -> None:
    documents = [numbered(n) for n in range(3000)]
    table = CollectionInfo("shop", "orders", uuid=UUID), documents
    write_dump(tmp_path / "deep" / "dump", [table])
    dump = dump_in(repo, tmp_path / "deep" / "dump")
    found = dump.find("shop", "orders")
    assert found is not None
    assert found.info == table[0]
    assert list(found.documents()) == documents
    assert found.get(b"\x10" + raw.int32(1234)) == documents[1234]
    live = only(repo, documents)
    assert list(live.leaves()) == list(found.leaves())  # the same chunks as a read of the server


def test_one_database_of_a_dump_is_one_too(repo: Repository, tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", [(CollectionInfo("shop", "orders", uuid=UUID), [numbered(1)])])
    dump = dump_in(repo, tmp_path / "dump" / "shop")
    assert [one.info.namespace for one in dump.collections()] == ["shop.orders"]


def test_users_of_one_database_have_names_that_are_not_escaped(repo: Repository, tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", [(CollectionInfo("shop", "orders", uuid=UUID), [numbered(1)])])
    (tmp_path / "dump" / "shop" / "$admin.system.users.bson").write_bytes(numbered(7))
    found = dump_in(repo, tmp_path / "dump").find("shop", "$admin.system.users")
    assert found is not None
    assert [raw.id_of(one) for one in found.documents()] == [b"\x10" + raw.int32(7)]


def test_a_dump_among_plain_files_can_be_read(repo: Repository, tmp_path: Path) -> None:
    """Backed up as files: no leaves, no order that is known, but the documents are there."""
    documents = [numbered(n) for n in (4, 1, 3)]
    write_dump(tmp_path / "dump", [(CollectionInfo("shop", "orders", uuid=UUID), documents)])
    run(repo, FilesSource([os.fsencode(tmp_path / "dump")]))
    found = StoredDump(repo, repo.snapshots()[-1][1]).find("shop", "orders")
    assert found is not None
    assert found.natural
    assert found.count is None
    assert list(found.documents()) == documents
    assert found.get(b"\x10" + raw.int32(3)) == documents[2]


def test_files_without_a_dump_are_refused(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_text("x")
    run(repo, FilesSource([os.fsencode(tmp_path / "some")]))
    with pytest.raises(NotFoundError, match="no collection"):
        StoredDump(repo, repo.snapshots()[-1][1])


def test_what_is_no_bson_is_refused_by_name(repo: Repository, tmp_path: Path) -> None:
    write_dump(tmp_path / "dump", [(CollectionInfo("shop", "orders", uuid=UUID), [numbered(1)])])
    path = tmp_path / "dump" / "shop" / "orders.bson"
    for bad in (path.read_bytes()[:-3], b"\xff\xff\xff\x7f", path.read_bytes()[:-1] + b"\x01", b"\0\0\0\0\0"):
        path.write_bytes(bad)
        found = dump_in(repo, tmp_path / "dump").find("shop", "orders")
        assert found is not None
        with pytest.raises(SourceError, match=r"shop\.orders"):
            list(found.documents())


@given(st.lists(st.binary(max_size=300), max_size=20), st.lists(st.integers(1, 400), max_size=40))
def test_documents_are_the_same_however_their_bytes_are_cut(values: list[bytes], cuts: list[int]) -> None:
    documents = [raw.document([(b"v", raw.BINARY, raw.binary(value))]) for value in values]
    data = b"".join(documents)

    def parts() -> Iterable[Data]:
        at = 0
        for size in cuts:
            yield data[at : at + size]
            at += size
        yield memoryview(data)[at:]

    assert list(documents_in(parts(), "it")) == documents


@given(st.binary(max_size=200))
def test_any_bytes_are_documents_or_refused(data: bytes) -> None:
    try:
        found = list(documents_in([data], "it"))
    except SourceError:
        return
    assert b"".join(found) == data
