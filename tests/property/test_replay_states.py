"""A snapshot and the log give the state after any operation, and the next snapshot unread."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.chunker.base import Params
from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.history import versions
from dedupstore.documents.moments import Moment
from dedupstore.documents.replay import view_at
from dedupstore.documents.timeline import Timeline
from dedupstore.documents.verify_replay import verify_replay
from dedupstore.documents.view import View
from dedupstore.format.config import ChunkerConfig, RepoConfig
from dedupstore.ids import SnapshotId
from dedupstore.model import NodeKind, Snapshot
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import read_facts
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.oplog.position import header_of
from dedupstore.testing.oplog.fuzzy import Reader, exact
from dedupstore.testing.oplog.history import History, HistoryOptions
from dedupstore.testing.oplog.model import State
from tests.support.repos import content, create, run, small_config, walk
from tests.unit.documents.dump_samples import described, in_natural_order, store_base, ts_of
from tests.unit.documents.log_samples import cut, store

SMALL = 1024
"""Bytes of the longest chunk, and of the collections whose leaves are cut as their few documents say."""


def small_chunks() -> RepoConfig:
    """Chunks of a kilobyte at most, so that a few documents fill a leaf."""
    p = Params.for_average(256)
    return small_config(chunker=ChunkerConfig(p.min_size, p.normal, SMALL, p.strict, p.loose))


@contextmanager
def repository(config: RepoConfig | None = None) -> Iterator[Repository]:
    with (
        tempfile.TemporaryDirectory() as folder,
        create(MemoryStore(), Path(folder), config=config) as repo,
    ):
        yield repo


def store_log(repo: Repository, entries: list[bytes], random: Random) -> None:
    """The whole log in slices of any length."""
    places = sorted({0, len(entries) - 1, *(random.randrange(len(entries)) for _ in range(3))})
    after = None
    for first, last in pairwise(places):
        store(repo, cut(entries[first : last + 1], after))
        after = header_of(entries[last])[0]


def check(view: View, state: State) -> None:
    """Every collection is what it was, document for document, byte for byte."""
    expected = described(state)
    found = {(one.info.db, one.info.name): one for one in view.collections()}
    assert found.keys() == expected.keys()
    for name, (info, documents) in expected.items():
        one = found[name]
        assert one.info == info
        natural = in_natural_order(info)
        assert one.natural == natural
        if not natural:
            documents = sorted(documents, key=lambda document: sort_key(id_of(document)))
        assert list(one.documents()) == documents
        if one.count is not None:
            assert one.count == len(documents)


def check_single(view: View, state: State, random: Random) -> None:
    """Single documents, and what comes after one, are as in the whole."""
    for (db, name), (info, documents) in described(state).items():
        one = view.find(db, name)
        assert one is not None
        for document in random.sample(documents, min(len(documents), 5)):
            assert one.get(id_of(document)) == document
        assert one.get(b"\x02\x06\0\0\0never\0") is None
        if documents and not in_natural_order(info):
            ordered = sorted(documents, key=lambda document: sort_key(id_of(document)))
            place = random.randrange(len(ordered))
            assert list(one.documents(id_of(ordered[place]))) == ordered[place + 1 :]


SEEDS = st.integers(0, 1 << 32)


@settings(max_examples=25)
@given(SEEDS, st.integers(20, 250), st.booleans())
def test_any_operation_can_be_gone_back_to(seed: int, operations: int, fuzzy: bool) -> None:
    random = Random(seed)
    history = History(seed, operations, options=HistoryOptions(documents=random.choice([5, 40, 1000])))
    count = len(history.entries)
    start = random.randrange(count)
    end = random.randrange(start, count) if fuzzy else start
    base = Reader(history, seed).scan(start, end) if fuzzy else exact(history, start)
    with repository() as repo:
        store_base(repo, history, base)
        store_log(repo, history.entries, random)
        timeline = Timeline(repo, repo.snapshots())
        for index in sorted({end, count - 1, *(random.randrange(end, count) for _ in range(4))}):
            with view_at(repo, timeline, Moment.upto(ts_of(history, index))) as view:
                check(view, history.state(index))
                check_single(view, history.state(index), random)


def contents(repo: Repository, snapshot: Snapshot) -> dict[bytes, object]:
    """All that is stored, by path: content and what is said of it."""
    found: dict[bytes, object] = {}
    for path, node in walk(repo, snapshot.root):
        facts = read_facts(node)
        if facts is not None and node.size < SMALL:  # what so few documents decide is decided each time
            found[path] = content(repo, node), replace(facts, k=0)
        elif node.kind != NodeKind.DIR and not path.endswith(b"/oplog.bson"):
            found[path] = node.content, node.depth, node.size, node.extra
    return found


def advance(repo: Repository, history: History, index: int) -> Snapshot:
    """The next snapshot from the newest one, by the log alone."""
    timeline = Timeline(repo, repo.snapshots())
    with view_at(repo, timeline, Moment.upto(ts_of(history, index))) as view:
        result = run(repo, AdvancedSource(view))
    assert not result.findings
    return result.snapshot


@settings(max_examples=25)
@given(SEEDS, st.integers(20, 250), st.booleans())
def test_an_advanced_snapshot_is_that_of_reading_everything(seed: int, operations: int, fuzzy: bool) -> None:
    random = Random(seed)
    history = History(seed, operations, options=HistoryOptions(documents=random.choice([30, 1000])))
    count = len(history.entries)
    start = random.randrange(count)
    end = random.randrange(start, count) if fuzzy else start
    base = Reader(history, seed).scan(start, end) if fuzzy else exact(history, start)
    with repository(small_chunks()) as repo:
        _, last = store_base(repo, history, base)
        store_log(repo, history.entries, random)
        readings: set[SnapshotId] = set()
        for index in sorted({random.randrange(end, count) for _ in range(3)}):
            moved = advance(repo, history, index)
            reading, read = store_base(repo, history, exact(history, index), last=last)
            readings.add(reading)
            assert contents(repo, moved) == contents(repo, read)
            # And it is a base as good as one that was read.
            later = random.randrange(index, count)
            timeline = Timeline(repo, [entry for entry in repo.snapshots() if entry[0] not in readings])
            with view_at(repo, timeline, Moment.upto(ts_of(history, later))) as view:
                check(view, history.state(later))
            last = moved


def seen(history: History, index: int, name: tuple[str, str], identity: bytes) -> bytes | None:
    """A document as the server had it."""
    _, documents = described(history.state(index)).get(name, (None, []))
    wanted = sort_key(identity)
    return next((one for one in documents if sort_key(id_of(one)) == wanted), None)


@settings(max_examples=25)
@given(SEEDS, st.integers(20, 200), st.booleans())
def test_the_versions_of_a_document_are_what_it_was_at_every_moment(
    seed: int, operations: int, fuzzy: bool
) -> None:
    random = Random(seed)
    history = History(seed, operations, options=HistoryOptions(documents=random.choice([3, 20])))
    count = len(history.entries)
    start = random.randrange(max(1, count // 2))
    end = random.randrange(start, count) if fuzzy else start
    base = Reader(history, seed).scan(start, end) if fuzzy else exact(history, start)
    candidates = [
        (name, id_of(document))
        for index in random.sample(range(end, count), min(6, count - end))
        for name, (info, documents) in described(history.state(index)).items()
        if not in_natural_order(info)
        for document in documents
    ]
    with repository() as repo:
        store_base(repo, history, base)
        store_log(repo, history.entries, random)
        timeline = Timeline(repo, repo.snapshots())
        for name, identity in random.sample(candidates, min(6, len(candidates))):
            found = list(versions(repo, timeline, *name, identity))
            assert [one.ts for one in found] == sorted(one.ts for one in found if one.ts is not None)
            assert all(b.before == a.after for a, b in pairwise(found))
            for index in range(end, count):
                so_far = [one for one in found if one.ts is not None and one.ts <= ts_of(history, index)]
                expected = seen(history, index, name, identity)
                assert (so_far[-1].after if so_far else None) == expected


@settings(max_examples=20)
@given(SEEDS, st.integers(20, 200))
def test_the_log_is_proven_from_snapshot_to_snapshot(seed: int, operations: int) -> None:
    random = Random(seed)
    history = History(seed, operations, options=HistoryOptions(documents=random.choice([30, 1000])))
    count = len(history.entries)
    places = sorted(random.sample(range(count), min(count, 6)))
    with repository(small_chunks()) as repo:
        last = None
        for start, end in pairwise(places):
            fuzzy = random.random() < 0.5
            base = Reader(history, seed).scan(start, end) if fuzzy else exact(history, start)
            _, last = store_base(repo, history, base, last=last)
        store_log(repo, history.entries, random)
        timeline = Timeline(repo, repo.snapshots())
        result = verify_replay(repo, timeline)
        assert not result.findings
        assert not result.holes
        assert len(result.proven) == len(timeline.bases) - 1
