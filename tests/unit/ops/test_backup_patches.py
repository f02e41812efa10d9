"""Streams with cutters of their own, files patched from old ones, and content taken over as known."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from dedupstore.errors import ObjectNotFound, SessionFenced, SourceError, UsageError
from dedupstore.format.chunklist import ListPage, decode_list_page
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import ChunkKind, Node, NodeKind, Snapshot
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.backup import pipeline, walk
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult
from dedupstore.ops.backup.frames import Assembly, Frame
from dedupstore.ops.backup.parts import Parts, known_in
from dedupstore.ops.verify.checker import verify
from dedupstore.repository.repository import Repository
from dedupstore.sources.base import Known, Stream
from dedupstore.tree.walk import labelled_from, labelled_of, lookup
from tests.support import repos
from tests.support.sessions import collect
from tests.unit.ops.table_source import CHUNK, Lines, Patched, Table, TableSource, table

Row = tuple[ChunkId, int, bytes]
DATA = table(0, 60_000)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repo(store: MemoryStore, tmp_path: Path) -> Iterator[Repository]:
    with repos.create(store, tmp_path / "cache") as made:
        yield made


def rows_of(repo: Repository, snapshot: Snapshot, name: bytes = b"t") -> list[Row]:
    node = lookup(repo.load_page, snapshot.root, name)

    def load(page: TreeId) -> ListPage:
        return decode_list_page(repo.load_tree(page))

    rows = list(labelled_of(load, node))
    for row in rows[:: max(1, len(rows) // 5)]:
        if row[2]:
            assert next(labelled_from(load, node, row[2]))[1:] == row
    return rows


def first_run(repo: Repository) -> tuple[BackupResult, list[Row]]:
    result = repos.run(repo, TableSource((b"t", Table(b"t", DATA))))
    return result, rows_of(repo, result.snapshot)


def patched(*parts: Known | Stream, adopts: tuple[TreeId, ...] = ()) -> TableSource:
    return TableSource((b"t", Patched(b"t", lambda: iter(parts))), adopts=adopts)


def test_a_stream_is_cut_and_labelled_by_its_cutter(repo: Repository) -> None:
    result, rows = first_run(repo)
    assert repos.files_in(repo, result.snapshot) == {b"/t": DATA}
    assert len(DATA) > pipeline.BUFFER / 2
    found = dict(repo.read([row[0] for row in rows]))
    for chunk, size, label in rows:
        data = bytes(found[chunk])
        assert len(data) == size
        assert data.endswith(b"\n")
        assert data.startswith(label + b":")
    assert all(CHUNK <= size < CHUNK + 100 for _, size, _ in rows[:-1])
    assert result.snapshot.statistics.files_new == 1
    assert verify(repo, data=True).findings == ()


@pytest.mark.parametrize("lines", [0, 1, 60, 70, 5000])
def test_tables_of_every_length(repo: Repository, lines: int) -> None:
    data = table(0, lines)
    entries = [(b"%d" % number, Table(b"%d" % number, data + b"9%d:\n" % number)) for number in range(5)]
    result = repos.run(repo, TableSource((b"same", Table(b"same", data)), *entries))
    files = repos.files_in(repo, result.snapshot)
    assert files == {b"/same": data} | {b"/%d" % n: data + b"9%d:\n" % n for n in range(5)}
    node = lookup(repo.load_page, result.snapshot.root, b"same")
    assert (node.depth > 0) == (len(data) >= 2 * CHUNK)
    assert node.size == len(data)


def test_tables_and_plain_streams_share_buffers(repo: Repository) -> None:
    entries = [
        (name, Lines(name, DATA[: 10_000 * n], None) if n % 2 else Table(name, table(0, 100 * n)))
        for n, name in enumerate(b"%02d" % n for n in range(20))
    ]
    result = repos.run(repo, TableSource(*entries))
    files = repos.files_in(repo, result.snapshot)
    for n, (name, _) in enumerate(entries):
        assert files[b"/" + name] == (DATA[: 10_000 * n] if n % 2 else table(0, 100 * n))
        labels = [label for _, _, label in rows_of(repo, result.snapshot, name)]
        assert n % 2 == 0 or set(labels) <= {b""}
        assert n % 2 or len(labels) < 2 or all(labels)


def test_a_patch_takes_over_what_it_knows(repo: Repository) -> None:
    old, rows = first_run(repo)
    edited = table(3_000_000, 3_000_400)
    place = next(n for n, row in enumerate(rows) if row[2] > b"030000")
    end = sum(size for _, size, _ in rows[:place])
    key = rows[place][2]
    fresh = b"".join(key + b":x" + line + b"\n" for line in edited.splitlines())
    more = table(900_000, 900_100)
    source = patched(
        Known(rows[:100]),
        Known(rows[100:place]),
        Table(b"", fresh),
        Known(rows[place : place + 7]),
        Known([]),
        Known(rows[place + 7 :]),
        Table(b"", b""),
        Table(b"", more),
        adopts=(old.snapshot.root,),
    )
    result = repos.run(repo, source)
    whole = DATA[:end] + fresh + DATA[end:] + more
    assert repos.files_in(repo, result.snapshot) == {b"/t": whole}
    new = rows_of(repo, result.snapshot)
    assert set(rows) <= set(new)
    assert all(a[2] <= b[2] for a, b in pairwise(new))
    statistics = result.snapshot.statistics
    assert (statistics.files_new, statistics.files_changed, statistics.files_unchanged) == (0, 1, 0)
    assert statistics.bytes == len(whole)
    assert statistics.bytes_new < 120_000
    assert verify(repo, data=True).findings == ()


def test_a_patch_gives_the_same_tree_as_reading_it_all(repo: Repository) -> None:
    _, rows = first_run(repo)
    extra = table(100_000, 100_050)
    result = repos.run(repo, patched(Known(rows), Table(b"", extra)))
    parts = [row[1] for row in rows_of(repo, result.snapshot)]
    again = repos.run(
        repo, TableSource((b"t", Patched(b"t", lambda: iter([Table(b"", DATA), Table(b"", extra)]))))
    )
    assert parts == [row[1] for row in rows_of(repo, again.snapshot)]
    assert lookup(repo.load_page, again.snapshot.root, b"t").content == (
        lookup(repo.load_page, result.snapshot.root, b"t").content
    )
    assert again.snapshot.statistics.bytes_new == 0


def test_known_content_does_not_pile_up_behind_new_chunks(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "KNOWN_MAX", 500)
    monkeypatch.setattr(walk, "KNOWN_MAX", 500)
    _, rows = first_run(repo)
    most = 0
    real = pipeline.fold

    def watched(content: object, parts: object) -> None:
        nonlocal most
        real(content, parts)  # type: ignore[arg-type]
        waiting = sum(len(part.entries) for part in parts if isinstance(part, Known))  # type: ignore[attr-defined]
        most = max(most, waiting)

    monkeypatch.setattr(pipeline, "fold", watched)

    def parts() -> Iterator[Known | Stream]:
        yield Table(b"", b"!:first\n")
        for row in rows:
            yield from (Known([row]) for _ in range(20))
            yield Table(b"", row[2] + b":new %d\n" % row[1])

    entries = [(b"%d" % n, Patched(b"%d" % n, parts)) for n in range(3)]
    result = repos.run(repo, TableSource(*entries))
    assert most <= 520
    node = lookup(repo.load_page, result.snapshot.root, b"1")
    assert node.size > 20 * len(DATA)
    assert [row[2] for row in rows_of(repo, result.snapshot, b"2")][:21] == [b"!", *[rows[0][2]] * 20]


def test_small_patches_do_not_pile_up_either(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    _, rows = first_run(repo)
    monkeypatch.setattr(walk, "KNOWN_MAX", 1000)
    most = 0
    real = Assembly.push_node

    def watched(assembly: Assembly, frame: Frame, node: Node, parts: Parts) -> None:
        nonlocal most
        real(assembly, frame, node, parts)
        most = max(most, sum(known_in(waiting) for _, _, waiting in assembly._queue))

    monkeypatch.setattr(Assembly, "push_node", watched)
    entries = []
    for n in range(50):
        parts = [Table(b"", b"!:%d\n" % n), Known(rows[:200])]
        entries.append((b"%02d" % n, Patched(b"%02d" % n, lambda parts=parts: iter(parts))))  # type: ignore[misc]
    result = repos.run(repo, TableSource(*entries))
    files = repos.files_in(repo, result.snapshot)
    end = sum(size for _, size, _ in rows[:200])
    assert files == {b"/%02d" % n: b"!:%d\n" % n + DATA[:end] for n in range(50)}
    assert 800 < most <= 1200


def drop_data_packs(repo: Repository, store: MemoryStore) -> None:
    packs = [pack for pack, kind, _, _ in repo.index.packs() if kind is ChunkKind.DATA]
    store.delete([ObjectKey(ObjectKind.PACK, pack.hex()) for pack in packs])


@pytest.mark.parametrize("dry", [False, True])
def test_a_known_chunk_that_was_lost_is_noticed(repo: Repository, store: MemoryStore, dry: bool) -> None:
    old, rows = first_run(repo)
    drop_data_packs(repo, store)
    options = BackupOptions(host="host", user="user", workers=2, dry_run=dry)
    with pytest.raises(ObjectNotFound, match="taken over"):
        repos.run(repo, patched(Known(rows), adopts=(old.snapshot.root,)), options)
    assert len(repo.snapshots()) == 1


def test_a_collection_that_takes_what_a_patch_knows_fences_the_run(repo: Repository) -> None:
    _, rows = first_run(repo)
    packs = [pack for pack, kind, _, _ in repo.index.packs() if kind is ChunkKind.DATA]

    def parts() -> Iterator[Known | Stream]:
        yield Known(rows)
        collect(repo, 1, packs[:1])

    with pytest.raises(SessionFenced):
        repos.run(repo, TableSource((b"t", Patched(b"t", parts))))
    assert len(repo.snapshots()) == 1


def test_whole_nodes_are_taken_over_and_count_as_unchanged(repo: Repository) -> None:
    old, rows = first_run(repo)
    node = lookup(repo.load_page, old.snapshot.root, b"t")
    empty = Node(b"empty", NodeKind.STREAM, 0o600, uid=7)
    source = TableSource(
        (b"t", node), (b"empty", empty), (b"u", Table(b"u", b"1:x\n")), adopts=(old.snapshot.root,)
    )
    result = repos.run(repo, source)
    assert repos.files_in(repo, result.snapshot) == {b"/t": DATA, b"/empty": b"", b"/u": b"1:x\n"}
    assert rows_of(repo, result.snapshot) == rows
    statistics = result.snapshot.statistics
    assert (statistics.files_new, statistics.files_changed, statistics.files_unchanged) == (1, 0, 2)
    assert statistics.files == 3
    assert result.snapshot.users == {0: b"user", 7: b"user"}


def test_a_collection_during_a_run_that_adopts_a_tree_fences_it(repo: Repository) -> None:
    old, _ = first_run(repo)
    node = lookup(repo.load_page, old.snapshot.root, b"t")
    packs = [pack for pack, kind, _, _ in repo.index.packs() if kind is ChunkKind.DATA]

    class Collected(TableSource):
        def top(self):  # type: ignore[no-untyped-def]
            collect(repo, 1, packs[:1])
            return super().top()

    with pytest.raises(SessionFenced):
        repos.run(repo, Collected((b"t", node), adopts=(old.snapshot.root,)))


def test_position_and_instant_go_into_the_snapshot(repo: Repository) -> None:
    source = TableSource((b"t", Table(b"t", DATA)))
    source.log, source.moment = b"here", datetime(2020, 2, 3, 4, 5, 6, 789, tzinfo=UTC)
    result = repos.run(repo, source)
    ((_, stored),) = repo.snapshots()
    assert stored == result.snapshot
    assert (stored.position, stored.time) == (b"here", source.moment)
    told = datetime(2021, 1, 1, tzinfo=UTC)
    options = BackupOptions(host="host", user="user", workers=2, time=told, dry_run=True)
    assert repos.run(repo, source_of(source), options).snapshot.time == told
    plain = repos.run(repo, TableSource((b"t", Table(b"t", DATA)))).snapshot
    assert plain.position is None
    assert plain.time.year > 2021


def source_of(other: TableSource) -> TableSource:
    source = TableSource((b"t", Table(b"t", DATA)))
    source.moment = other.moment
    return source


class Wrong:
    def __init__(self, max_size: int, end: int) -> None:
        self.max_size = max_size
        self._end = end

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        return [(self._end, b"l")] if self._end else []


@pytest.mark.parametrize(
    ("size", "cutter", "error", "how"),
    [
        (100, Wrong(1 << 23, 1), UsageError, "do not fit"),
        (100, Wrong(1 << 20, 99), SourceError, "left 1 bytes"),
        (9_000_000, Wrong(1 << 20, 0), SourceError, "no end of a chunk"),
    ],
)
def test_cutters_that_break_their_promise(
    repo: Repository, size: int, cutter: Wrong, error: type[Exception], how: str
) -> None:
    with pytest.raises(error, match=how):
        repos.run(repo, TableSource((b"t", Lines(b"t", bytes(size), cutter))))  # type: ignore[arg-type]
    assert repo.snapshots() == []


class Holed(Table):
    def read_next(self, view: memoryview) -> int:
        return super().read_next(view) or -5


def test_a_hole_in_what_a_cutter_cuts_is_refused(repo: Repository) -> None:
    with pytest.raises(SourceError, match="hole"):
        repos.run(repo, TableSource((b"t", Holed(b"t", DATA))))


def test_bytes_that_a_cutter_refuses_leave_no_snapshot(repo: Repository) -> None:
    with pytest.raises(SourceError, match="inside a line"):
        repos.run(repo, TableSource((b"t", Table(b"t", DATA + b"7:and no end"))))
    assert repo.snapshots() == []
