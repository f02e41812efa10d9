"""Snapshots of real files: sparse ones, many, large; stores that fail beneath; two runs at once."""

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dedupstore.errors import SourceError, StoreFull
from dedupstore.format.config import ChunkerConfig
from dedupstore.objectstore.base import ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.repository.repository import Repository
from dedupstore.sources.files.listing import Reading, make_lister
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.scan import FilesSource
from dedupstore.testing.stores import FaultyStore
from tests.support import repos


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repos.create(MemoryStore(), tmp_path / "cache") as repo:
        yield repo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def settle() -> None:
    """Let the clock that files take their times from go on."""
    time.sleep(0.03)


def run(repo: Repository, source: Path, *exclude: bytes) -> BackupResult:
    return repos.run(repo, FilesSource((os.fsencode(source),), FilesOptions(exclude=exclude)))


def check(repo: Repository, result: BackupResult, source: Path) -> None:
    there: dict[bytes, bytes | None] = {}
    for path in source.rglob("*"):
        name = os.fsencode(path)[len(os.fsencode(source)) :]
        there[name] = None if path.is_dir() else path.read_bytes()
    assert repos.files_in(repo, result.snapshot, os.fsencode(source)) == there


def test_small_files_that_change_after_the_listing(repo: Repository, source: Path) -> None:
    lister = make_lister()
    for number in range(600):
        (source / f"file-{number:03}").write_bytes(b"%d" % number * 50)
    settle()
    calls: list[int] = []

    def read_files(
        dirfd: int, wanted: tuple[tuple[bytes, int], ...], into: memoryview | bytearray, dev: int
    ) -> Sequence[Reading | int]:
        calls.append(len(wanted))
        if len(calls) == 1:  # some of those that are read now, and some that come later
            for number in range(0, 600, 7):
                (source / f"file-{number:03}").write_bytes(b"changed %d" % number * (number % 5))
            (source / "file-001").unlink()
        return lister.read_files(dirfd, wanted, into, dev)

    result = repos.run(
        repo, FilesSource((os.fsencode(source),), lister=replace(lister, read_files=read_files))
    )
    assert max(calls) > 100
    assert [finding.where for finding in result.findings] == [str(source / "file-001")]
    check(repo, result, source)
    assert result.snapshot.statistics.files_new == 599


@pytest.mark.parametrize("size", [1 << 20, (1 << 30) + 1, (4 << 30) + 5, 10 << 30])
def test_a_file_that_is_one_hole(repo: Repository, source: Path, size: int) -> None:
    with (source / "hole").open("wb") as file:
        file.truncate(size)
    result = run(repo, source)
    nodes = dict(repos.walk(repo, result.snapshot.root))
    node = nodes[os.fsencode(source / "hole")]
    assert node.size == size
    assert sum(length for _, length in repos.entries(repo, node)) == size
    if size < 1 << 28:
        check(repo, result, source)


def test_holes_among_data(repo: Repository, source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        for at in (0, 3 << 20, (9 << 20) + 77):
            file.seek(at)
            file.write(os.urandom(50_000))
        file.truncate(15 << 20)
    check(repo, run(repo, source), source)


def test_large_and_many(repo: Repository, source: Path) -> None:
    dice = random.Random(1)
    (source / "large").write_bytes(dice.randbytes(11_000_000))
    for number in range(600):
        folder = source / f"d{number % 20}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(dice.randbytes(dice.choice([0, 1, 50, 3000, 40_000])))
    settle()
    check(repo, run(repo, source), source)
    settle()
    (source / "d3" / "3").write_bytes(b"changed")
    with (source / "large").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"inserted")
    settle()
    result = run(repo, source)
    check(repo, result, source)
    assert result.snapshot.statistics.bytes_new < 200_000
    assert result.snapshot.statistics.files_changed == 2


def test_chunks_as_large_as_the_format_allows(tmp_path: Path, source: Path) -> None:
    huge = ChunkerConfig(8 << 20, 12 << 20, 16 << 20, 0, 0)
    config = repos.small_config(chunker=huge, pack_size=64 << 20, pack_size_max=64 << 20)
    (source / "large").write_bytes(random.Random(2).randbytes(40_000_000))
    with repos.create(MemoryStore(), tmp_path / "cache", config=config) as repo:
        done: list[BackupResult] = []
        thread = threading.Thread(target=lambda: done.append(run(repo, source)), daemon=True)
        thread.start()
        thread.join(30)
        assert done, "it hangs"
        check(repo, done[0], source)


@pytest.mark.parametrize("failing", range(2, 9))
@pytest.mark.parametrize("workers", [1, 4])
def test_a_store_that_fills_up_is_told_as_that(
    tmp_path: Path, source: Path, failing: int, workers: int
) -> None:
    dice = random.Random(3)
    for number in range(300):
        folder = source / f"{number % 60}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}").write_bytes(dice.randbytes(100_000))
    store = repos.prepared(tmp_path / "made")
    faulty = FaultyStore(store, fail_at=failing, persistent=True, only=frozenset({"put"}), error=StoreFull)
    before = threading.active_count()
    options = replace(repos.OPTIONS, workers=workers)
    with repos.reopen(faulty, tmp_path / "cache") as repo, pytest.raises(StoreFull):
        repos.run(repo, FilesSource((os.fsencode(source),)), options)
    assert threading.active_count() == before
    with repos.reopen(store, tmp_path / "cache") as repo:
        check(repo, run(repo, source), source)


def test_nothing_there(repo: Repository, source: Path) -> None:
    with pytest.raises(SourceError):
        run(repo, source / "missing")
    assert repo.snapshots() == []
    assert repos.names(repo.store, ObjectKind.SESSION) == set()


def test_excluded_then_included(repo: Repository, source: Path) -> None:
    (source / "a.tmp").write_bytes(b"one")
    (source / "b").write_bytes(b"two")
    settle()
    result = run(repo, source, b"*.tmp")
    assert repos.files_in(repo, result.snapshot, os.fsencode(source)) == {b"/b": b"two"}
    check(repo, run(repo, source), source)
    result = run(repo, source, b"*.tmp")
    assert repos.files_in(repo, result.snapshot, os.fsencode(source)) == {b"/b": b"two"}
    check(repo, run(repo, source), source)


def test_changes_that_keep_size_and_mtime(repo: Repository, source: Path) -> None:
    file = source / "f"
    file.write_bytes(b"one")
    status = file.stat()
    settle()
    check(repo, run(repo, source), source)
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    check(repo, run(repo, source), source)
    os.link(file, source / "g")
    check(repo, run(repo, source), source)
    (source / "g").write_bytes(b"six")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    check(repo, run(repo, source), source)


def test_changed_at_once_after_a_run(repo: Repository, source: Path) -> None:
    for number in range(60):
        (source / "f").write_bytes(b"%03d" % number)
        check(repo, run(repo, source), source)


def test_two_runs_at_once(repo: Repository, source: Path, tmp_path: Path) -> None:
    dice = random.Random(4)
    for number in range(100):
        (source / f"{number}").write_bytes(dice.randbytes(30_000))
    results: list[BackupResult] = []
    same = repos.reopen(repo.store, tmp_path / "cache")
    other = repos.reopen(repo.store, tmp_path / "other")
    threads = [
        threading.Thread(target=lambda r=r: results.append(run(r, source)))  # type: ignore[misc]
        for r in (repo, same, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    fresh = repos.reopen(repo.store, tmp_path / "fresh")
    fresh.sync()
    for result in results:
        check(fresh, result, source)
    settle()
    check(repo, run(repo, source), source)
