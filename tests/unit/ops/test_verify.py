"""Verify, against a real repository in a memory store, damaged one object at a time."""

import gc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from dedupstore.errors import StoreError
from dedupstore.findings import Finding
from dedupstore.format import constants as c
from dedupstore.format.config import ChunkerConfig, Epoch, RepoConfig
from dedupstore.format.keys import KeyFile
from dedupstore.format.tree import PageSplitter
from dedupstore.ids import HOLE, ChunkId, SnapshotId, TreeId
from dedupstore.model import ChunkKind, Node, NodeKind, Snapshot, SourceSpec, Statistics
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectReader
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.objectstore.readonly import ReadOnlyStore
from dedupstore.ops.stats import statistics
from dedupstore.ops.verify.checker import VerifyResult, verify
from dedupstore.repository.keyring import create
from dedupstore.repository.repository import Repository
from dedupstore.repository.session import WriteSession
from dedupstore.tree.build import ContentBuilder, FolderBuilder

START = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)
FILE_SIZE = 3000


class BadSector(ReadOnlyStore):
    """A store one object of which can not be read, or none at all."""

    def __init__(self, reader: ObjectReader, bad: ObjectKey) -> None:
        super().__init__(reader)
        self.bad = bad
        self.all_bad = False

    def get(self, key: ObjectKey) -> bytes:
        self.check(key)
        return super().get(key)

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.check(key)
        return super().get_ranges(key, ranges)

    def check(self, key: ObjectKey) -> None:
        if self.all_bad or key == self.bad:
            raise StoreError("input/output error: check the disk", key=key)


class Fixture:
    """A repository with two snapshots that share most of what they hold."""

    def __init__(self, cache: Path) -> None:
        self.store = MemoryStore()
        self.rng = Random(7)
        config = RepoConfig(
            id=bytes(range(16)),
            cipher=c.CIPHER_AEGIS256,
            chunker=ChunkerConfig(1024, 2048, 8192, 1 << 20, 1 << 22),
            created=START,
            epochs=(Epoch(1, bytes(32)),),
            pack_size=c.PACK_SIZE_MIN,
        )
        key = KeyFile(bytes(32), config.id)
        self.repo, _ = create(self.store, key, config, bytes(32), cache=cache, label="test")
        names = [b"%02d" % n for n in range(8)]
        self.contents = {name: self.rng.randbytes(FILE_SIZE) for name in names}
        self.snapshots = [self.back_up(0)]
        self.contents[b"03"] = self.rng.randbytes(FILE_SIZE)
        self.snapshots.append(self.back_up(1))

    def back_up(self, number: int) -> SnapshotId:
        with self.repo.writing() as session:
            root = self._root(session)
            return session.commit(
                Snapshot(
                    root=root,
                    time=START + timedelta(days=number),
                    host="h",
                    user="u",
                    source=SourceSpec("files", (b"/srv",)),
                    parent=None,
                    tags=frozenset(),
                    sequence=number,
                    statistics=Statistics(bytes=self.logical),
                )
            )

    @property
    def logical(self) -> int:
        return sum(map(len, self.contents.values())) + 70 * 500 + 10

    def _root(self, session: WriteSession) -> TreeId:
        splitter = PageSplitter(self.repo.keychain.current.names)
        folder, root = FolderBuilder(session.save_page, splitter), FolderBuilder(session.save_page, splitter)
        for name, data in self.contents.items():
            folder.add(self._file(session, name, [data]))
        rng = Random(8)
        folder.add(self._file(session, b"long", [rng.randbytes(500) for _ in range(70)]))
        top, summary = folder.finish()
        root.add(Node(b"srv", NodeKind.DIR, subtree=top, summary=summary))
        root.add(Node(b"zero", NodeKind.FILE, size=10, content=c.LIST_ENTRY.pack(HOLE, 10)))
        return root.finish()[0]

    @staticmethod
    def _file(session: WriteSession, name: bytes, pieces: list[bytes]) -> Node:
        builder = ContentBuilder(session.save_page)
        for piece in pieces:
            builder.append(session.put(piece).id, len(piece))
        content, depth = builder.finish()
        return Node(name, NodeKind.FILE, size=builder.size, content=content, depth=depth)

    def keys(self, kind: ObjectKind) -> list[ObjectKey]:
        return sorted((info.key for info in self.store.listing(kind)), key=str)

    def packs(self, kind: ChunkKind) -> list[ObjectKey]:
        found = {pack for pack, of, _, _ in self.repo.index.packs() if of is kind}
        return [key for key in self.keys(ObjectKind.PACK) if bytes.fromhex(key.name) in found]

    def spoil(self, key: ObjectKey, place: int) -> None:
        stored = bytearray(self.store.get(key))
        stored[place] ^= 1
        self.store.delete([key])
        self.store.put(key, [bytes(stored)])

    def verify(self, *, data: bool = False) -> VerifyResult:
        return verify(self.repo, data=data)


@pytest.fixture
def it(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path)
    yield fixture
    fixture.repo.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("verify-")] == []


def hurts(finding: Finding) -> list[str]:
    found = finding.error.data["hurts"]
    assert isinstance(found, tuple)
    return [str(place) for place in found]


def test_a_sound_repository_has_no_findings(it: Fixture) -> None:
    result = it.verify()
    assert result == VerifyResult(
        snapshots=2,
        packs=len(it.keys(ObjectKind.PACK)),
        chunks=it.repo.index.count(),
        bytes_read=0,
        unlisted_packs=0,
        unlisted_bytes=0,
        findings=(),
    )
    stored = sum(info.size for info in it.store.listing(ObjectKind.PACK))
    assert it.verify(data=True).bytes_read == stored
    assert it.verify(data=True).findings == ()


@pytest.mark.parametrize("data", [False, True])
def test_a_missing_data_pack_is_one_finding_with_everything_it_hurts(it: Fixture, data: bool) -> None:
    first = it.packs(ChunkKind.DATA)
    held = {chunk for chunk, at in it.repo.index.iterate() if at.record.pack.hex() == first[0].name}
    assert held
    it.store.delete([first[0]])
    (finding,) = it.verify(data=data).findings
    assert finding.where == str(first[0])
    assert finding.error.code == "object-not-found"
    assert "it hurts snapshot" in finding.error.message
    assert all("/srv/" in place for place in hurts(finding))
    assert hurts(finding)


@pytest.mark.parametrize("data", [False, True])
def test_a_missing_tree_pack_names_every_snapshot(it: Fixture, data: bool) -> None:
    gone = it.packs(ChunkKind.TREE)
    it.store.delete(gone)
    findings = it.verify(data=data).findings
    assert {finding.where for finding in findings} == set(map(str, gone))
    named = " ".join(place for finding in findings for place in hurts(finding))
    for snapshot in it.snapshots:
        assert f"snapshot {snapshot.hex()[:8]} /" in named


def test_every_flipped_bit_of_every_pack_is_found_by_reading(it: Fixture) -> None:
    for key in it.keys(ObjectKind.PACK):
        size = len(it.store.get(key))
        for place in (0, 10, 100, 161, 200, size // 2, size - 49, size - 40, size - 1):
            it.spoil(key, place)
            findings = it.verify(data=True).findings
            assert any(key.name in finding.where for finding in findings), place
            it.spoil(key, place)
    assert it.verify(data=True).findings == ()


def test_a_damaged_record_names_file_and_snapshots(it: Fixture) -> None:
    (chunk, location) = next((chunk, at) for chunk, at in it.repo.index.iterate() if at.size == FILE_SIZE)
    users = paths_of(it, chunk)
    key = ObjectKey(ObjectKind.PACK, location.record.pack.hex())
    it.spoil(key, location.record.offset + 5)
    findings = it.verify(data=True).findings
    record = next(
        finding for finding in findings if finding.where.endswith(f"record {location.record.number}")
    )
    assert sorted(hurts(record)) == sorted(users)
    assert record.error.code == "chunk-damaged"
    shell = next(finding for finding in findings if finding.where == str(key))
    assert "hash does not fit" in shell.error.message
    assert len(findings) == 2


def paths_of(it: Fixture, chunk: ChunkId) -> list[str]:
    """Return where a chunk is used, by looking at every page of every snapshot."""
    found = []
    for identifier, snapshot in it.repo.snapshots():
        srv = it.repo.load_page(snapshot.root).nodes[0]
        page = it.repo.load_page(TreeId(ChunkId(srv.subtree or b"")))
        users = [node.name.decode() for node in page.nodes if not node.depth and node.content[:32] == chunk]
        found += [f"snapshot {identifier.hex()[:8]} /srv/{name}" for name in users]
    return found


def test_a_pack_of_another_size_is_damage_without_reading(it: Fixture) -> None:
    key = it.packs(ChunkKind.DATA)[0]
    stored = it.store.get(key)
    it.store.delete([key])
    it.store.put(key, [stored[:-7]])
    (finding,) = it.verify().findings
    assert f"has {len(stored) - 7} bytes in the store and not {len(stored)}" in finding.error.message


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("data", [False, True])
def test_without_a_segment_nothing_is_lost(it: Fixture, lost: bool, data: bool) -> None:
    key = it.keys(ObjectKind.INDEX)[0]
    if lost:
        it.store.delete([key])
    else:
        it.spoil(key, 200)
    result = it.verify(data=data)
    assert result.unlisted_packs > 0
    assert all(hurts(finding) == [] for finding in result.findings)
    assert any("no index segment lists" in finding.error.message for finding in result.findings)
    assert any(finding.where == str(key) for finding in result.findings) is not lost


def test_packs_that_nobody_lists_are_counted_and_no_damage(it: Fixture) -> None:
    before = it.verify()
    name = "ab" * 32
    it.store.put(ObjectKey(ObjectKind.PACK, name), [b"a pack still on its way"])
    result = it.verify(data=True)
    assert (result.unlisted_packs, result.unlisted_bytes) == (1, 23)
    assert (result.packs, result.findings) == (before.packs, ())


@pytest.mark.parametrize("kind", [ObjectKind.KEY, ObjectKind.SNAPSHOT])
def test_small_objects_are_opened(it: Fixture, kind: ObjectKind) -> None:
    key = it.keys(kind)[0]
    it.spoil(key, len(it.store.get(key)) // 2)
    (finding,) = it.verify().findings
    assert finding.where == str(key)


def test_foreign_sessions_are_named(it: Fixture) -> None:
    it.store.put(ObjectKey(ObjectKind.SESSION, "ab" * 16), [b"not a session"])
    (finding,) = it.verify().findings
    assert finding.where == f"sessions/{'ab' * 16}"


def test_a_chunk_that_is_nowhere(it: Fixture) -> None:
    missing = ChunkId(b"\7" * 32)
    with it.repo.writing() as session:
        folder = FolderBuilder(session.save_page, PageSplitter(bytes(32)))
        folder.add(Node(b"ghost", NodeKind.FILE, size=9, content=c.LIST_ENTRY.pack(missing, 9)))
        folder.add(Node(b"short", NodeKind.FILE, size=5, content=c.LIST_ENTRY.pack(HOLE, 4)))
        root, _ = folder.finish()
        old = it.repo.snapshots()[-1][1]
        fields = {name: getattr(old, name) for name in Snapshot.__slots__}
        identifier = session.commit(Snapshot(**{**fields, "root": root, "sequence": 9}))
    findings = it.verify().findings
    (ghost,) = [finding for finding in findings if finding.where == "chunk 07070707"]
    (short,) = [finding for finding in findings if finding.where.startswith("tree page")]
    assert hurts(short) == [f"snapshot {identifier.hex()[:8]} / and what is below"]
    assert "make 4 bytes and not 5" in short.error.message
    assert ghost.error.code == "object-not-found"


def test_the_local_cache_is_not_believed(it: Fixture) -> None:
    """Pages and snapshots that this machine still has are missed all the same."""
    root = it.repo.snapshots()[0][1].root
    for kind in (ObjectKind.SNAPSHOT, ObjectKind.PACK):
        for key in it.keys(kind)[:1]:
            it.spoil(key, len(it.store.get(key)) // 3)
    assert it.repo.load_page(root)
    assert len(it.verify(data=True).findings) >= 2


def test_trouble_with_one_pack_is_a_finding_and_with_the_store_an_error(it: Fixture) -> None:
    bad = it.packs(ChunkKind.DATA)[0]
    faulty = BadSector(it.store, bad)
    repo = Repository(faulty, it.repo.config, it.repo.cache_path.parent, it.repo.clock)
    findings = verify(repo, data=True).findings
    assert str(bad) in {finding.where for finding in findings}
    faulty.all_bad = True
    with pytest.raises(StoreError):
        verify(repo, data=True)


def test_statistics(it: Fixture) -> None:
    stats = statistics(it.repo)
    assert stats.snapshots == 2
    assert stats.logical_bytes == 2 * it.logical
    assert stats.unique_bytes == 9 * FILE_SIZE + 70 * 500
    assert stats.data_chunks == 79
    assert stats.tree_chunks >= 5
    assert stats.packs == len(it.keys(ObjectKind.PACK))
    assert stats.stored_bytes == sum(info.size for info in it.store.listing(ObjectKind.PACK))
    assert stats.dedup_ratio == pytest.approx(stats.logical_bytes / stats.unique_bytes)
    assert 0 < stats.total_ratio < 2
    assert 0 < stats.compression_ratio < 2


def test_kept_errors_hold_on_to_no_pack(it: Fixture) -> None:
    """An error that kept its frames would keep a pack, and crash the collector of CPython 3.11."""
    it.spoil(it.packs(ChunkKind.DATA)[0], 200)
    findings = it.verify(data=True).findings
    gc.collect()
    for finding in findings:
        error: BaseException | None = finding.error.__cause__
        assert error is not None
        while error is not None:
            assert error.__traceback__ is None
            error = error.__cause__ or error.__context__
