"""Opening a local cache: what is kept, what is thrown away, what is refused."""

import os
import random
import shutil
import threading

import lmdb
import pytest

from dedupstore.errors import IntegrityError, NotFoundError, ReadOnlyError, RepositoryBusy, UsageError
from dedupstore.repository import indexfolder, indexopen
from dedupstore.repository.index import LocalIndex
from tests.unit.repository.index_samples import REPOSITORY, chunk_ids, make_pack, name

PACK = make_pack("a", 500)


@pytest.fixture
def cache(tmp_path):
    """Return the folder of a closed cache with one pack in it."""
    folder = tmp_path / "some" / "cache"
    with LocalIndex.open(folder, REPOSITORY) as index:
        assert index.fresh
        index.add(PACK)
    return folder


def test_a_closed_cache_opens_with_its_contents(cache):
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert not index.fresh
        assert index.contains(chunk_ids(PACK)) == [True] * 500


def test_the_cache_is_readable_by_its_owner_only(cache):
    assert cache.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in cache.iterdir()} == {
        "data.mdb": 0,
        "lock.mdb": 0,
        "open.lock": 0,
    }


def test_the_file_has_the_data_format_that_every_lmdb_reads(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    with LocalIndex.open(tmp_path / "other", REPOSITORY):
        pass
    for folder in (cache, tmp_path / "other"):
        assert (folder / "data.mdb").read_bytes()[16:24] == bytes.fromhex("dec0efbe01000000")


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut", "stub"])
def test_a_damaged_file_is_made_anew(cache, damage):
    data = cache / "data.mdb"
    if damage == "garbage":
        data.write_bytes(os.urandom(data.stat().st_size))
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "cut":
        os.truncate(data, data.stat().st_size - 4096)
    else:
        data.write_bytes(data.read_bytes()[:100])
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert index.fresh
        assert index.count() == 0
        index.add(PACK)
        assert index.count() == 500
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert not index.fresh


def test_a_cache_without_its_tables_is_made_anew(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=4, lib_version=0) as env:
        env.open_db(b"meta")
    with LocalIndex.open(tmp_path, REPOSITORY) as index:
        assert index.fresh


def test_a_cache_of_another_format_is_made_anew(cache, monkeypatch):
    monkeypatch.setattr(indexopen, "CACHE_FORMAT", b"2")
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert index.fresh
        assert index.count() == 0


def test_a_cache_of_another_repository_is_made_anew(cache):
    with LocalIndex.open(cache, b"repository no. 2") as index:
        assert index.fresh
        assert index.count() == 0


def test_a_cache_in_use_for_another_repository_is_refused(cache):
    with (
        LocalIndex.open(cache, REPOSITORY) as index,
        pytest.raises(RepositoryBusy, match="--cache-dir"),
    ):
        LocalIndex.open(cache, b"repository no. 2")
    assert index.path == cache


def test_two_openings_in_one_process_share_and_the_last_one_closes(cache, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(cache)
    first = LocalIndex.open(cache, REPOSITORY)
    second = LocalIndex.open(link, REPOSITORY)
    assert first.environment is second.environment
    first.close()
    first.close()
    assert second.count() == 500
    second.close()
    with LocalIndex.open(cache, REPOSITORY) as third:
        assert third.environment is not second.environment


def test_only_the_one_who_found_nothing_is_told_to_rebuild(tmp_path):
    with LocalIndex.open(tmp_path, REPOSITORY) as first, LocalIndex.open(tmp_path, REPOSITORY) as second:
        assert (first.fresh, second.fresh) == (True, False)


def test_unforced_commits_of_an_earlier_boot_cost_the_whole_cache(cache):
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert not (cache / "unsynced").exists()
        index.add(make_pack("b"))
        assert (cache / "unsynced").read_bytes() == indexfolder.boot_id()
        index.flush()
        assert not (cache / "unsynced").exists()
        index.add(make_pack("c"))
    assert not (cache / "unsynced").exists()
    for marker in (b"another boot", b""):
        (cache / "unsynced").write_bytes(marker)
        with LocalIndex.open(cache, REPOSITORY) as index:
            assert index.fresh
            index.add(PACK)


def test_unforced_commits_of_this_boot_cost_nothing(cache):
    (cache / "unsynced").write_bytes(indexfolder.boot_id())
    with LocalIndex.open(cache, REPOSITORY) as index:
        assert not index.fresh
        assert index.count() == 500


def test_a_short_file_is_whole_if_a_killed_process_left_free_pages_unwritten(cache, tmp_path):
    dice = random.Random(6)

    def come_and_go(txn):
        table = index.environment.tables[b"snapshots"]
        for _ in range(800):
            key = name(dice.randint(0, 400))
            if dice.random() < 0.6:
                txn.put(key, b"x" * dice.choice([10, 100, 1500, 5000]), db=table)
            else:
                txn.delete(key, db=table)
        for n in range(401):
            txn.delete(name(n), db=table)

    with LocalIndex.open(cache, REPOSITORY) as index:
        for _ in range(100):
            index.write(come_and_go)
            if (cache / "data.mdb").stat().st_size < index.environment.page_bytes():
                break
        else:
            pytest.fail("no transaction left pages at the end unwritten")
        shutil.copytree(cache, tmp_path / "killed")
    with LocalIndex.open(tmp_path / "killed", REPOSITORY) as index:
        assert not index.fresh
        index.write(come_and_go)
        index.add(make_pack("b"))
        assert index.count() == 520
    with LocalIndex.open(tmp_path / "killed", REPOSITORY) as index:
        assert not index.fresh


def test_reading_only_makes_nothing_and_changes_nothing(cache, tmp_path):
    with pytest.raises(NotFoundError, match="dstore cache rebuild"):
        LocalIndex.open(tmp_path / "none", REPOSITORY, readonly=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(NotFoundError, match="another repository"):
        LocalIndex.open(cache, b"repository no. 2", readonly=True)
    with LocalIndex.open(cache, REPOSITORY, readonly=True) as index:
        assert index.count() == 500
        with pytest.raises(ReadOnlyError):
            index.add(PACK)
        with pytest.raises(ReadOnlyError):
            index.clear()
        with LocalIndex.open(cache, REPOSITORY) as other:
            other.add(make_pack("b"))
        assert index.count() == 520


@pytest.mark.parametrize("kind", sorted(indexfolder.NETWORK_FILE_SYSTEMS))
def test_a_network_file_system_is_refused_with_the_option_that_helps(tmp_path, kind):
    with pytest.raises(UsageError, match="--cache-dir"):
        indexfolder.refuse_network(tmp_path, kind)


def test_the_kernel_tells_the_type_of_a_file_system(tmp_path):
    proc = indexfolder.file_system_type(indexfolder.Path("/proc"))
    assert proc == 0x9FA0
    indexfolder.refuse_network(tmp_path, proc)
    indexfolder.refuse_network(tmp_path, indexfolder.file_system_type(tmp_path))
    indexfolder.refuse_network(tmp_path, None)
    assert indexfolder.file_system_type(tmp_path / "none") is None


def test_a_map_that_is_too_small_grows_under_readers_in_other_threads(tmp_path):
    with LocalIndex.open(tmp_path, REPOSITORY, map_size=1 << 16) as index:
        index.add(PACK)
        done = threading.Event()
        wrong = []

        def read():
            while not done.is_set():
                if index.contains(chunk_ids(PACK)) != [True] * 500:
                    wrong.append("contains")
                if sum(1 for _ in index.iterate()) < 500:
                    wrong.append("iterate")

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for n in range(60):
            index.add(make_pack(n, 500))
        done.set()
        for reader in readers:
            reader.join()
        assert wrong == []
        assert index.count() == 61 * 500
        assert index.sizes().file_bytes > 1 << 20


def test_damage_met_while_reading_names_the_way_out(cache):
    with LocalIndex.open(cache, REPOSITORY) as index:
        error = index.environment.trouble(lmdb.CorruptedError("page", -30796))
        assert isinstance(error, IntegrityError)
        assert "dstore cache rebuild" in str(error)


def test_a_forked_child_must_open_its_own(cache):
    stop = threading.Event()
    with LocalIndex.open(cache, REPOSITORY) as index:

        def read():
            while not stop.is_set():
                index.contains(chunk_ids(PACK))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for n in range(8):
                child = os.fork()
                if child == 0:
                    _child(index, cache, n)
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                index.add(make_pack(("parent", n)))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert index.count() == 500 + 16 * 20


def _child(index, cache, n):
    code = 1
    try:
        try:
            index.count()
        except UsageError:
            with LocalIndex.open(cache, REPOSITORY) as own:
                own.add(make_pack(("child", n)))
                code = 0 if own.count() >= 520 else 2
    finally:
        os._exit(code)
