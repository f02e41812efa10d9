"""The stat cache: which entries count, when, and for whom."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dedupstore.errors import IntegrityError, UsageError
from dedupstore.ids import SnapshotId
from dedupstore.model import Summary
from dedupstore.repository import statcache
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.statcache import CachedFolder, CachedHead, StatCache
from tests.unit.repository.index_samples import REPOSITORY, name

SOURCE = b"s" * 16
SUMMARY = Summary(3, 4000, -5)


def key(n):
    return name("folder", n)[:16]


def snapshot(n):
    return SnapshotId(name("snapshot", n))


@pytest.fixture
def index(tmp_path):
    with LocalIndex.open(tmp_path / "cache", REPOSITORY) as opened:
        yield opened


@pytest.fixture
def cache(index):
    opened = StatCache(index, SOURCE)
    yield opened
    opened.abort()


def test_nothing_is_known_of_a_new_source(cache):
    assert (cache.header().run, cache.header().snapshot) == (0, None)
    assert cache.get(key(1)) is None
    assert cache.same(key(1), [b"listing"]) is None
    assert not cache.writing


def test_an_entry_counts_once_its_run_has_committed(index, cache):
    assert cache.begin()
    assert cache.writing
    cache.put(key(1), name("tree"), SUMMARY, [b"a", b"b\xff"], [b"listing"])
    assert cache.get(key(1)) is None
    cache.commit(snapshot(1))
    assert not cache.writing
    for reader in (cache, StatCache(index, SOURCE)):
        header = reader.header()
        assert header.snapshot == snapshot(1)
        assert reader.get(key(1)) == CachedFolder(
            header.run, name("tree"), SUMMARY, (b"a", b"b\xff"), (b"listing",)
        )
        assert reader.same(key(1), [b"listing"]) == CachedHead(name("tree"), SUMMARY, (b"a", b"b\xff"))
    assert StatCache(index, b"t" * 16).get(key(1)) is None


@pytest.mark.parametrize("other", [[b"listinG"], [b"listing "], [b"listin"], [b""], [], [b"list", b"ing"]])
def test_another_listing_is_not_the_same(cache, other):
    cache.begin()
    cache.put(key(1), name("tree"), SUMMARY, [], [b"listing"])
    cache.commit(snapshot(1))
    assert cache.same(key(1), other) is None


@pytest.mark.parametrize("segments", [0, 1, 2, 5])
def test_a_long_listing_lies_in_segments_and_leaves_none_behind(index, cache, segments):
    long = [bytes([n]) * 70_000 for n in range(4)]
    short = [bytes([n]) * 10 for n in range(segments)]
    for run, listing in enumerate([long, short]):
        cache.begin()
        cache.put(key(1), name(run), SUMMARY, [], listing)
        cache.commit(snapshot(run))
        assert cache.same(key(1), listing).subtree == name(run)
        assert cache.get(key(1)).listing == tuple(listing)
    assert cache.same(key(1), long) is None
    assert index.sizes().folders == 1 + (segments if segments != 1 else 0)


def test_one_changed_segment_of_a_long_listing_is_seen(cache):
    listing = [bytes([n]) * 5000 for n in range(3)]
    cache.begin()
    cache.put(key(1), name("tree"), SUMMARY, [], listing)
    cache.commit(snapshot(1))
    for n in range(3):
        changed = [*listing[:n], listing[n][:-1] + b"!", *listing[n + 1 :]]
        assert cache.same(key(1), changed) is None


def test_listings_may_be_given_in_buffers_that_are_used_again(cache):
    buffer = bytearray(b"listing")
    cache.begin()
    cache.put(key(1), name("tree"), SUMMARY, [], [memoryview(buffer)])
    cache.put(key(2), name("tree"), SUMMARY, [], [buffer, memoryview(buffer)])
    buffer[:] = b"another"
    cache.commit(snapshot(1))
    assert cache.get(key(1)).listing == (b"listing",)
    assert cache.get(key(2)).listing == (b"listing", b"listing")


def test_what_an_aborted_run_wrote_never_counts_even_after_later_commits(index, cache, monkeypatch):
    monkeypatch.setattr(statcache, "_BUFFER_ENTRIES", 2)
    cache.begin()
    cache.put(key(1), name("old"), SUMMARY, [], [b"old"])
    cache.put(key(2), name("kept"), SUMMARY, [], [b"kept"])
    cache.commit(snapshot(1))
    cache.begin()
    cache.put(key(1), name("aborted"), SUMMARY, [], [b"aborted"])
    cache.put(key(3), name("aborted"), SUMMARY, [], [b"aborted"])
    cache.abort()
    for run in range(2, 5):
        assert cache.get(key(1)) is None
        assert cache.same(key(3), [b"aborted"]) is None
        assert cache.get(key(2)).subtree == name("kept")
        cache.begin()
        cache.put(key(4), name(run), SUMMARY, [], [b"new"])
        cache.commit(snapshot(run))
    assert StatCache(index, SOURCE).get(key(3)) is None


def test_very_many_aborted_runs_are_swept_away(index, cache, monkeypatch):
    monkeypatch.setattr(statcache, "_BUFFER_ENTRIES", 1)
    monkeypatch.setattr(statcache, "_VOID_RUNS_KEPT", 3)
    cache.begin()
    cache.put(key(0), name("good"), SUMMARY, [], [b"good"])
    cache.commit(snapshot(1))
    for n in range(1, 10):
        assert cache.begin()
        cache.put(key(n), name("bad"), SUMMARY, [], [b"bad", b"worse"])
        cache.abort()
    assert len(cache.header().void) <= 3
    cache.begin()
    cache.commit(snapshot(2))
    assert [n for n in range(10) if cache.get(key(n)) is not None] == [0]
    assert index.sizes().folders < 3 * 5


def test_an_emptied_cache_does_not_revive_the_run_that_was_in_it(index, cache, monkeypatch):
    monkeypatch.setattr(statcache, "_BUFFER_ENTRIES", 1)
    cache.begin()
    index.clear()
    cache.put(key(1), name("uncommitted"), SUMMARY, [], [b"x"])
    cache.abort()
    cache.begin()
    cache.commit(snapshot(1))
    assert cache.get(key(1)) is None
    cache.begin()
    index.clear()
    cache.put(key(2), name("committed"), SUMMARY, [], [b"x"])
    cache.commit(snapshot(2))
    assert cache.get(key(2)).subtree == name("committed")


def test_a_discarded_folder_is_unknown(cache):
    cache.begin()
    cache.put(key(1), name("tree"), SUMMARY, [], [b"a", b"b"])
    cache.commit(snapshot(1))
    cache.begin()
    cache.discard(key(1))
    cache.discard(key(2))
    cache.commit(snapshot(2))
    assert cache.get(key(1)) is None


def test_a_run_is_for_one_at_a_time_and_others_write_nothing(index, cache):
    other = StatCache(index, SOURCE)
    assert cache.begin()
    assert not other.begin()
    other.put(key(1), name("tree"), SUMMARY, [], [b"x"])
    other.discard(key(1))
    other.commit(snapshot(9))
    assert other.header().snapshot is None
    third = StatCache(index, b"t" * 16)
    assert third.begin()
    third.abort()
    with pytest.raises(UsageError):
        cache.begin()
    cache.abort()
    assert other.begin()
    other.abort()


def test_a_run_of_another_process_keeps_us_from_writing_until_it_dies(tmp_path):
    words = [sys.executable, "-m", "tests.unit.repository.index_worker", "hold", str(tmp_path)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout.readline() == b"True\n"
        with LocalIndex.open(tmp_path, REPOSITORY) as index:
            cache = StatCache(index, SOURCE)
            assert not cache.begin()
            worker.kill()
            worker.wait(30)
            assert cache.begin()
            assert len(cache.header().void) == 1
            cache.abort()


def test_an_index_opened_for_reading_begins_no_run(tmp_path):
    with LocalIndex.open(tmp_path, REPOSITORY):
        pass
    with LocalIndex.open(tmp_path, REPOSITORY, readonly=True) as index:
        assert not StatCache(index, SOURCE).begin()


def test_wrong_keys_are_refused_and_damage_names_the_way_out(index, cache):
    with pytest.raises(UsageError):
        StatCache(index, b"short")
    cache.begin()
    with pytest.raises(UsageError):
        cache.put(b"short", name("tree"), SUMMARY, [], [b"x"])
    cache.put(key(1), name("tree"), SUMMARY, [], [b"x"])
    cache.commit(snapshot(1))
    tables = index.environment.tables
    for value in (b"short", index.environment.read(lambda t: t.get(SOURCE + key(1), db=tables[b"stat"]))):
        spoiled = value[:16] + b"\xc1" + value[17:] if len(value) > 16 else value
        index.write(lambda txn, v=spoiled: txn.put(SOURCE + key(1), v, db=tables[b"stat"]))
        with pytest.raises(IntegrityError, match="dstore cache rebuild"):
            cache.get(key(1))
        with pytest.raises(IntegrityError, match="dstore cache rebuild"):
            cache.same(key(1), [b"x"])
    index.write(lambda txn: txn.put(SOURCE, b"\xc1", db=tables[b"runs"]))
    with pytest.raises(IntegrityError, match="dstore cache rebuild"):
        cache.header()


class RunsAgainstDict(RuleBasedStateMachine):
    """Runs that commit, abort, die and are read, against what was committed last."""

    @initialize()
    def start(self):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(statcache, "_BUFFER_ENTRIES", 2)
        self.patch.setattr(statcache, "_VOID_RUNS_KEPT", 2)
        self.folder = Path(tempfile.mkdtemp())
        self.index = LocalIndex.open(self.folder, REPOSITORY)
        self.cache = StatCache(self.index, SOURCE)
        self.committed = {}
        self.pending = {}
        self.overwritten = set()
        self.count = 0

    @rule(n=st.integers(0, 5), segments=st.lists(st.binary(max_size=3), max_size=3))
    def put(self, n, segments):
        if self.cache.writing:
            self.count += 1
            self.cache.put(key(n), name(self.count), SUMMARY, [], segments)
            self.pending[n] = name(self.count), segments

    @rule()
    def begin(self):
        if not self.cache.writing:
            assert self.cache.begin()

    @rule()
    def commit(self):
        if self.cache.writing:
            self.cache.commit(snapshot(self.count))
            self.committed |= self.pending
            self.overwritten -= self.pending.keys()
            self.pending = {}

    @rule(reopen=st.booleans())
    def die(self, reopen):
        self.cache.abort()
        self.overwritten |= self.pending.keys()
        self.pending = {}
        if reopen:
            self.index.close()
            self.index = LocalIndex.open(self.folder, REPOSITORY)
        self.cache = StatCache(self.index, SOURCE)

    @invariant()
    def agrees(self):
        if not hasattr(self, "cache"):
            return
        for n in range(6):
            known = self.committed.get(n)
            folder = self.cache.get(key(n))
            if folder is None:
                assert known is None or n in self.pending or n in self.overwritten
            else:
                assert (folder.subtree, list(folder.listing)) == known
                assert self.cache.same(key(n), known[1]).subtree == known[0]

    def teardown(self):
        if hasattr(self, "cache"):
            self.cache.abort()
            self.index.close()
            shutil.rmtree(self.folder)
            self.patch.undo()


RunsAgainstDict.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestRunsAgainstDict = RunsAgainstDict.TestCase
