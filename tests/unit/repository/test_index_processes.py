"""Several processes at one local cache, killed ones, a full disk, and little address space."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dedupstore.errors import RepositoryBusy, StoreFull
from dedupstore.repository import indexopen
from dedupstore.repository.index import LocalIndex
from tests.unit.repository.index_samples import REPOSITORY, chunk_ids, make_pack

ROOT = Path(__file__).parents[3]


def start(*words: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.unit.repository.index_worker", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, **options)


def test_processes_write_and_read_one_cache_at_the_same_time(tmp_path):
    packs = 60
    workers = [start("write", tmp_path, who, packs) for who in "ab"]
    workers += [start("read", tmp_path, who, packs) for who in "ab"]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0, 0]
    with LocalIndex.open(tmp_path, REPOSITORY) as index:
        assert not index.fresh
        assert index.count() == 2 * packs * 100
        assert len(list(index.packs())) == 2 * packs
        numbers = {row[0] for row in index.rows([chunk for chunk, _ in index.iterate()]) if row}
        assert len(numbers) == 2 * packs


def test_a_map_that_another_process_grew_is_taken_over(tmp_path):
    with LocalIndex.open(tmp_path, REPOSITORY, map_size=1 << 16) as index:
        index.add(make_pack("mine", 10))
        assert start("write", tmp_path, "a", 60).wait(60) == 0
        assert index.count() == 6010
        assert all(index.contains(chunk_ids(make_pack(("a", 59), 100))))
        index.add(make_pack("mine too", 10))
        assert index.count() == 6020


def test_a_killed_writer_leaves_every_pack_it_was_told_of_and_no_half_one(tmp_path):
    for _ in range(4):
        with start("endless", tmp_path, stdout=subprocess.PIPE) as worker:
            lines = [worker.stdout.readline() for _ in range(12)]
            worker.send_signal(signal.SIGKILL)
            lines += worker.stdout.readlines()
        last = int(lines[-1])
        with LocalIndex.open(tmp_path, REPOSITORY) as index:
            assert not index.fresh
            for n in range(last + 1):
                assert all(index.contains(chunk_ids(make_pack(n, 2000))))
            assert index.count() == 2000 * len(list(index.packs()))
            index.clear()


def test_a_cache_that_would_have_to_go_is_refused_while_another_process_uses_it(tmp_path, monkeypatch):
    with start("hold", tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"True\n"
        monkeypatch.setattr(indexopen, "CACHE_FORMAT", b"2")
        with pytest.raises(RepositoryBusy, match="--cache-dir"):
            LocalIndex.open(tmp_path, REPOSITORY)
        worker.stdin.close()
        assert worker.wait(30) == 0
    with LocalIndex.open(tmp_path, REPOSITORY) as index:
        assert index.fresh


def test_less_address_space_is_taken_where_less_is_allowed(tmp_path):
    with start("cramped", tmp_path, stdout=subprocess.PIPE) as worker:
        size = int(worker.stdout.read())
    assert worker.returncode == 0
    assert 1 << 30 <= size < 8 << 30


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 8 MiB; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_says_so_and_leaves_what_was_there(small_disk):
    with LocalIndex.open(small_disk / "cache", REPOSITORY) as index:
        kept = []
        with pytest.raises(StoreFull, match="--cache-dir") as caught:  # noqa: PT012 - how many fit is open
            for n in range(100):
                index.add(make_pack(n, 10_000))
                kept.append(n)
        assert str(small_disk) in str(caught.value)
        assert kept
        assert index.count() == 10_000 * len(kept)
        for n in kept:
            assert all(index.contains(chunk_ids(make_pack(n, 10_000))))
    with LocalIndex.open(small_disk / "cache", REPOSITORY) as index:
        assert not index.fresh
        assert index.count() == 10_000 * len(kept)


def test_a_cache_is_not_begun_on_a_full_disk(small_disk):
    with (small_disk / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    with pytest.raises(StoreFull, match="make room"):
        LocalIndex.open(small_disk / "cache", REPOSITORY)
    (small_disk / "fill").unlink()
    with LocalIndex.open(small_disk / "cache", REPOSITORY) as index:
        assert index.fresh
