"""The local index's kernels: ``pytest benchmarks/test_index.py``."""

import random

import pytest

from dedupstore.ids import SnapshotId
from dedupstore.model import Summary
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.statcache import StatCache
from tests.unit.repository.index_samples import REPOSITORY, chunk_ids, make_pack, name

CHUNKS = 10_000
PACKS = 30
FOLDERS = 11_000


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    with LocalIndex.open(tmp_path_factory.mktemp("index"), REPOSITORY) as index:
        packs = [make_pack(n, CHUNKS, group=8) for n in range(PACKS)]
        index.add_all(packs)
        ids = [chunk for pack in packs for chunk in chunk_ids(pack)]
        random.Random(1).shuffle(ids)
        yield index, ids[:CHUNKS]


def test_add_10_000_chunks(benchmark, tmp_path):
    with LocalIndex.open(tmp_path, REPOSITORY) as index:
        fresh = iter([make_pack(n, CHUNKS, group=8) for n in range(12)])
        benchmark.pedantic(index.add, setup=lambda: ((next(fresh),), {}), rounds=10, warmup_rounds=1)


def test_add_10_000_known_chunks(benchmark, filled):
    index, _ = filled
    benchmark(index.add, make_pack(0, CHUNKS, group=8))


def test_contains_1_000_known(benchmark, filled):
    index, ids = filled
    assert all(benchmark(index.contains, ids[:1000]))


def test_contains_1_000_unknown(benchmark, filled):
    index, _ = filled
    assert not any(benchmark(index.contains, [name("unknown", n) for n in range(1000)]))


def test_rows_10_000(benchmark, filled):
    index, ids = filled
    assert all(benchmark(index.rows, ids))


def test_find_10_000(benchmark, filled):
    index, ids = filled
    assert all(benchmark(index.find, ids))


def test_iterate_300_000(benchmark, filled):
    index, _ = filled
    assert benchmark.pedantic(lambda: sum(1 for _ in index.iterate()), rounds=2) == PACKS * CHUNKS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    with LocalIndex.open(tmp_path_factory.mktemp("stat"), REPOSITORY) as index:
        cache = StatCache(index, b"s" * 16)
        known = {name("folder", n)[:16]: [name(n) * 60] for n in range(FOLDERS)}
        cache.begin()
        for key, listing in known.items():
            cache.put(key, name("tree", key), Summary(1, 2, 3), [b"a", b"b"], listing)
        cache.commit(SnapshotId(name("snapshot")))
        yield cache, known


def test_same_11_000_folders(benchmark, folders):
    cache, known = folders

    def walk():
        same = cache.same
        return sum(same(key, listing) is not None for key, listing in known.items())

    assert benchmark(walk) == FOLDERS


def test_put_11_000_folders(benchmark, folders):
    cache, known = folders

    def run():
        cache.begin()
        for key, listing in known.items():
            cache.put(key, name("tree"), Summary(1, 2, 3), [b"a", b"b"], listing)
        cache.commit(SnapshotId(name("snapshot")))

    benchmark.pedantic(run, rounds=3)
