"""A write session from its own side: what it stores, when it commits, and how it ends badly."""

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dedupstore.errors import (
    DedupstoreError,
    ObjectNotFound,
    SessionError,
    SessionFenced,
    StoreError,
    StoreFull,
)
from dedupstore.ids import ChunkId, PackId, TreeId
from dedupstore.model import ChunkKind, Data, Member, Members
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.testing.stores import FaultyStore, InjectedFault
from tests.support import repos
from tests.support.sessions import begin, collect, dead_machine, page_for

noise = random.Random(7).randbytes


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return repos.prepared(tmp_path / "made")


@pytest.fixture
def repo(store: MemoryStore, tmp_path: Path) -> Repository:
    return repos.reopen(store, tmp_path / "cache")


def fresh(repo: Repository, tmp_path: Path) -> Repository:
    return repos.reopen(repo.store, tmp_path / noise(4).hex())


def test_what_is_committed_is_there_for_everybody(repo: Repository, tmp_path: Path) -> None:
    data = noise(5000)
    with repo.writing() as session:
        tree = page_for(session, data)
        identifier = session.commit(repos.blank_snapshot(tree))
    assert session.unsettled is None
    other = fresh(repo, tmp_path)
    other.sync()
    ((found, snapshot),) = other.snapshots()
    assert found == identifier
    assert repos.files_in(other, snapshot) == {b"/file": data}
    assert repos.names(repo.store, ObjectKind.SESSION) == set()


def test_a_chunk_is_stored_once(repo: Repository) -> None:
    data = noise(5000)
    with repo.writing() as session:
        assert session.put(data).new
        assert not session.put(data).new
        assert session.counters.bytes_new == 5000
        session.commit(repos.blank_snapshot(page_for(session, data)))
    with repo.writing() as session:
        assert not session.put(data).new
        assert not session.put(b"").new


def test_claim_says_yes_once(repo: Repository) -> None:
    with repo.writing() as session:
        ids = [ChunkId(noise(32)) for _ in range(3)]
        assert session.claim([ids[0], ids[0], ids[1]]) == [True, False, True]
        assert session.claim(ids) == [False, False, True]


def test_what_is_relied_on_is_there_or_on_its_way(repo: Repository) -> None:
    old, new, lost = noise(700), noise(700), ChunkId(noise(32))
    with repo.writing() as session:
        known = session.put(old).id
        session.commit(repos.blank_snapshot(page_for(session, old)))
    with repo.writing() as session:
        fresh = session.put(new).id
        assert session.rely([known, lost, fresh, known]) == [True, False, True, True]
        assert session.rely([]) == []
        session.commit(repos.blank_snapshot(page_for(session, new)))


def test_a_pack_that_is_only_relied_on_may_not_be_taken(repo: Repository) -> None:
    data = noise(700)
    with repo.writing() as session:
        known = session.put(data).id
        session.commit(repos.blank_snapshot(page_for(session, data)))
    packs = [pack for pack, kind, _, _ in repo.index.packs() if kind is ChunkKind.DATA]
    with repo.writing() as session:
        assert session.rely([known]) == [True]
        collect(repo, 1, packs)
        with pytest.raises(SessionFenced):
            session.commit(repos.blank_snapshot(page_for(session, noise(10))))
    with repo.writing() as session:  # one that began after it
        assert session.rely([known]) == [False]


def test_many_threads_claim_each_chunk_once(repo: Repository) -> None:
    pieces = [noise(700) for _ in range(300)]
    new = []
    with repo.writing() as session:

        def work(seed: int) -> None:
            for piece in random.Random(seed).sample(pieces, len(pieces)):
                new.append(session.put(piece).new)  # noqa: PERF401 - the thread is what is tested

        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.commit(repos.blank_snapshot(page_for(session, *pieces[:10])))
    assert sum(new) == len(pieces)
    assert repo.index.count() == len(pieces) + 1


def test_announced_and_never_stored_is_no_commit(repo: Repository) -> None:
    with repo.writing() as session:
        tree = page_for(session, b"data")
        session.claim([ChunkId(noise(32))])
        with pytest.raises(SessionError, match="never stored"):
            session.commit(repos.blank_snapshot(tree))
    assert repo.snapshots() == []


def test_a_record_that_fits_in_no_pack_is_no_commit(repo: Repository) -> None:
    with repo.writing() as session:
        tree = page_for(session, b"data")
        with pytest.raises(StoreError, match="larger packs"):
            session.put(noise(2_000_000))
        with pytest.raises(SessionError):
            session.commit(repos.blank_snapshot(tree))


def failing_packs(store: MemoryStore, number: int) -> FaultyStore:
    return FaultyStore(store, fail_at=number, persistent=True, only=frozenset({"put"}), error=StoreFull)


def test_after_a_failed_finish_nothing_can_be_committed(store: MemoryStore, tmp_path: Path) -> None:
    repo = repos.reopen(failing_packs(store, 2), tmp_path / "x")
    with pytest.raises(StoreFull), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        tree = page_for(session, b"data")
        with pytest.raises(StoreFull):
            session.finish()
        session.commit(repos.blank_snapshot(tree))
    assert repos.names(store, ObjectKind.SNAPSHOT) == set()


def test_waiting_threads_are_told_what_is_wrong_with_the_store(store: MemoryStore, tmp_path: Path) -> None:
    class Slow(FaultyStore):
        """Fails only when everybody waits for it."""

        def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
            if key.kind is ObjectKind.PACK:
                time.sleep(0.2)
            super().put(key, parts)

    slow = Slow(store, fail_at=2, persistent=True, only=frozenset({"put"}), error=StoreFull)
    repo = repos.reopen(slow, tmp_path / "x")
    errors: list[DedupstoreError] = []
    with pytest.raises(StoreFull), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed

        def work() -> None:
            try:
                for _ in range(200):
                    session.put(noise(60_000))
            except DedupstoreError as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        session.finish()
    assert len(errors) == 8
    assert {type(error) for error in errors} == {StoreFull}


def test_abort_keeps_what_was_stored(repo: Repository, tmp_path: Path) -> None:
    data = [noise(60_000) for _ in range(60)]
    with repo.writing() as session:
        for piece in data:
            session.put(piece)
    durable = repos.names(repo.store, ObjectKind.PACK)
    assert durable
    assert repos.names(repo.store, ObjectKind.SESSION) == set()
    other = fresh(repo, tmp_path)
    with other.writing() as session:
        new = [session.put(piece).new for piece in data]
        assert repos.packs_in_segments(other) == {bytes.fromhex(name) for name in durable}
    assert 0 < sum(new) < len(new) / 2


def test_the_first_error_is_told_though_giving_up_fails_too(store: MemoryStore, tmp_path: Path) -> None:
    broken = FaultyStore(store, fail_at=1, persistent=True, only=frozenset({"replace"}))
    repo = repos.reopen(broken, tmp_path / "x")
    with pytest.raises(KeyboardInterrupt), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        for _ in range(40):
            session.put(noise(60_000))
        raise KeyboardInterrupt
    assert broken.failures


def test_a_session_that_can_not_begin_leaves_nothing(store: MemoryStore, tmp_path: Path) -> None:
    repo = repos.reopen(store, tmp_path / "x")
    left = begin(repo, dead=True)
    left.put(noise(5000))
    left.finish()
    broken = FaultyStore(store, fail_at=1, only=frozenset({"get_ranges"}))
    repo = repos.reopen(broken, tmp_path / "y")
    with pytest.raises(InjectedFault), repo.writing():
        raise AssertionError("not reached")
    assert repos.names(store, ObjectKind.SESSION) == {left.id.hex()}


@pytest.mark.parametrize("operation", ["replace", "put"])
def test_a_lost_answer_to_the_commit_is_asked_for(store: MemoryStore, tmp_path: Path, operation: str) -> None:
    # The first swap is the commit; the fourth put is that of the snapshot.
    number = {"replace": 1, "put": 5}[operation]
    faulty = FaultyStore(store, fail_at=number, after_effect=True, only=frozenset({operation}))
    repo = repos.reopen(faulty, tmp_path / "x")
    with repo.writing() as session:
        identifier = session.commit(repos.blank_snapshot(page_for(session, b"data")))
    assert faulty.failures == 1
    assert (session.unsettled is None) == (operation == "replace")
    assert [found for found, _ in repo.snapshots()] == [identifier]


def test_what_fails_after_the_commit_does_not_undo_it(store: MemoryStore, tmp_path: Path) -> None:
    faulty = FaultyStore(store, fail_at=5, persistent=True, only=frozenset({"put"}))
    repo = repos.reopen(faulty, tmp_path / "x")
    with repo.writing() as session:
        identifier = session.commit(repos.blank_snapshot(page_for(session, b"data")))
    assert isinstance(session.unsettled, InjectedFault)
    assert repos.names(store, ObjectKind.SNAPSHOT) == set()
    other = repos.reopen(store, tmp_path / "y")
    assert [found for found, _ in other.snapshots()] == [identifier]
    with other.writing():
        assert repos.names(store, ObjectKind.SNAPSHOT) == {identifier.hex()}
    assert repos.names(store, ObjectKind.SESSION) == set()
    assert [found for found, _ in other.snapshots()] == [identifier]


def test_fenced(repo: Repository) -> None:
    with pytest.raises(SessionFenced), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        tree = page_for(session, b"data")
        key = ObjectKey(ObjectKind.SESSION, session.id.hex())
        repo.store.replace(key, b"fenced", expect=repo.store.get(key))
        session.commit(repos.blank_snapshot(tree))
    assert repo.snapshots() == []


def committed(repo: Repository, *data: bytes) -> TreeId:
    with repo.writing() as session:
        tree = page_for(session, *data)
        session.commit(repos.blank_snapshot(tree))
    return tree


def pack_of(repo: Repository, tree: TreeId) -> bytes:
    (place,) = repo.index.find([tree])
    assert place is not None
    return place.record.pack


def test_collection_of_what_is_relied_on_fences(repo: Repository) -> None:
    data = noise(4000)
    tree = committed(repo, data)
    with pytest.raises(SessionFenced), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        again = page_for(session, data)
        assert again == tree
        collect(repo, 1, [pack_of(repo, tree)])
        session.commit(repos.blank_snapshot(again, sequence=2))
    with repo.writing() as session:  # the same once more finds them gone, and stores them anew
        session.commit(repos.blank_snapshot(page_for(session, data), sequence=2))
        assert session.counters.chunks_new == 1
    assert len(repo.snapshots()) == 2


def test_collection_of_something_else_is_no_matter(repo: Repository) -> None:
    old = committed(repo, noise(4000))
    with repo.writing() as session:
        tree = page_for(session, noise(4000))
        collect(repo, 1, [pack_of(repo, old)])
        collect(repo, 2, [])
        session.commit(repos.blank_snapshot(tree, sequence=2))


def test_collection_fences_who_took_over_unseen(repo: Repository) -> None:
    old = committed(repo, noise(4000))
    other = committed(repo, noise(4000))
    with pytest.raises(SessionFenced), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        session.reuse(old)
        tree = page_for(session, noise(100))
        collect(repo, 1, [pack_of(repo, other)])
        session.commit(repos.blank_snapshot(tree, sequence=2))


@pytest.mark.parametrize("emptied", [False, True])
def test_what_a_collector_took_is_stored_again(repo: Repository, tmp_path: Path, emptied: bool) -> None:
    data = noise(4000)
    committed(repo, data)
    collect(repo, 1, [pack for pack, _, _, _ in repo.index.packs()], verdict=True)
    collect(repo, 2, [])
    for each in (repo, fresh(repo, tmp_path)):
        with each.writing() as session:
            if emptied:  # by another process, which then reads the old segments again
                each.index.clear()
                each.sync()
            assert session.put(data).new


def test_packs_of_a_fenced_session_that_a_collector_took_are_not_adopted(
    repo: Repository, tmp_path: Path
) -> None:
    left = begin(repo, dead=True)
    data = noise(4000)
    left.put(data)
    left.finish()
    (name,) = repos.names(repo.store, ObjectKind.PACK)
    collect(repo, 1, [bytes.fromhex(name)])  # type: ignore[list-item]
    for each in (repo, fresh(repo, tmp_path)):
        with each.writing() as session:
            assert not each.index.has_pack(PackId(bytes.fromhex(name)))
            assert session.put(data).new


def test_what_the_dead_left_is_found_and_listed(repo: Repository, tmp_path: Path) -> None:
    kept, unused = noise(4000), noise(4000)
    left = begin(repo, dead=True)
    left.put(kept)
    left.finish()
    second = begin(repo, dead=True)
    second.put(unused)
    second.finish()
    other = fresh(repo, tmp_path)
    with other.writing() as session:
        tree = page_for(session, kept)
        assert session.counters.chunks_new == 0  # the page is not packed yet
        session.commit(repos.blank_snapshot(tree))
    assert repos.names(repo.store, ObjectKind.SESSION) == set()
    third = fresh(repo, tmp_path)
    third.sync()
    ((_, snapshot),) = third.snapshots()
    assert repos.files_in(third, snapshot) == {b"/file": kept}
    with third.writing() as session:
        assert not session.put(unused).new


def test_the_living_are_left_alone(repo: Repository, tmp_path: Path) -> None:
    living = begin(repo)
    tree = page_for(living, noise(4000))
    committed(fresh(repo, tmp_path), noise(4000))
    assert living.id.hex() in repos.names(repo.store, ObjectKind.SESSION)
    living.commit(repos.blank_snapshot(tree, sequence=2))
    assert len(repo.snapshots()) == 2


def test_a_damaged_pack_of_the_dead_stops_nobody(repo: Repository, tmp_path: Path) -> None:
    left = begin(repo, dead=True)
    data = noise(4000)
    left.put(data)
    left.finish()
    (name,) = repos.names(repo.store, ObjectKind.PACK)
    key = ObjectKey(ObjectKind.PACK, name)
    whole = repo.store.get(key)
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], whole[:8] + b"\xff\xff" + whole[10:]):
        repo.store.delete([key])
        repo.store.put(key, [damaged])
        with fresh(repo, tmp_path).writing() as session:
            assert session.put(data).new


def test_two_writers_on_one_cache_and_the_other_dies(repo: Repository, tmp_path: Path) -> None:
    """What one relies on is listed by its own segment, though the other stored it and never listed it."""
    data = noise(4000)
    other = begin(repo, dead=True)
    other.put(data)
    other.finish()  # durable, in the index, in no segment
    with repo.writing() as session:
        tree = page_for(session, data)
        session.commit(repos.blank_snapshot(tree))
    reader = fresh(repo, tmp_path)
    reader.sync()
    assert repos.files_in(reader, reader.snapshots()[0][1]) == {b"/file": data}


@pytest.mark.parametrize("forget", [False, True])
def test_the_index_is_emptied_under_a_writer(repo: Repository, tmp_path: Path, forget: bool) -> None:
    data = noise(4000)
    other = begin(repo)  # alive, so that nobody finds its packs by its session
    other.put(data)
    other.finish()
    session = begin(repo)
    tree = page_for(session, data)
    repo.index.clear()
    if forget:
        repo.sync()
    session.commit(repos.blank_snapshot(tree))
    reader = fresh(repo, tmp_path)
    reader.sync()
    assert repos.files_in(reader, reader.snapshots()[0][1]) == {b"/file": data}
    assert bytes.fromhex(next(iter(repos.names(repo.store, ObjectKind.PACK)))) in repos.packs_in_segments(
        repo
    )


def test_two_writers_on_two_caches(repo: Repository, tmp_path: Path) -> None:
    data = noise(4000)
    one, two = begin(repo), begin(fresh(repo, tmp_path))
    trees = [page_for(session, data) for session in (one, two)]
    one.commit(repos.blank_snapshot(trees[0]))
    two.commit(repos.blank_snapshot(trees[1], sequence=2))
    reader = fresh(repo, tmp_path)
    reader.sync()
    assert [repos.files_in(reader, s) for _, s in reader.snapshots()] == [{b"/file": data}] * 2


def test_trees_and_data_keep_apart(repo: Repository) -> None:
    with repo.writing() as session:
        data = noise(300)
        assert session.put(data).id != session.put(data, ChunkKind.TREE).id
        session.finish()
    kinds = sorted(kind for _, kind, _, _ in repo.index.packs())
    assert kinds == [ChunkKind.DATA, ChunkKind.TREE]


def test_adding_after_the_end_is_no_commit(repo: Repository) -> None:
    with repo.writing() as session:
        tree = page_for(session, b"data")
        session.finish()
        session.claim([ChunkId(bytes(31) + b"x")])
        session.add(0, b"late", 4, Members.of(Member(ChunkId(bytes(31) + b"x"), 4)))
        with pytest.raises(SessionError):
            session.commit(repos.blank_snapshot(tree))


def test_dead_machine_is_dead() -> None:
    machine = dead_machine()
    assert not machine.knows_dead(machine.host, "", machine.pid)


def test_a_pack_that_vanished_is_named(repo: Repository) -> None:
    other = begin(repo)
    data = noise(4000)
    other.put(data)
    other.finish()
    with pytest.raises(ObjectNotFound, match="packs/"), repo.writing() as session:  # noqa: PT012 - raised wherever it is noticed
        tree = page_for(session, data)
        session.finish()
        relied = pack_of(repo, TreeId(session.put(data).id))
        repo.store.delete([ObjectKey(ObjectKind.PACK, relied.hex())])
        session.commit(repos.blank_snapshot(tree))
