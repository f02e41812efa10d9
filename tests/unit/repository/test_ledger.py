"""Session objects: who may swap what, and what strangers among them do."""

from pathlib import Path

import pytest

from dedupstore.errors import ObjectDamaged, SessionFenced
from dedupstore.format.collection import decode_generation, decode_packs, encode_generation, encode_packs
from dedupstore.format.session import SessionState
from dedupstore.ids import PackId, SessionId
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.ledger import Ledger, OwnSession, publish
from dedupstore.repository.machine import Machine
from dedupstore.repository.repository import Repository
from dedupstore.testing.stores import FaultyStore, InjectedFault
from tests.support import repos
from tests.support.sessions import begin, collect, dead_machine

ME = SessionId(b"m" * 16)


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return repos.create(MemoryStore(), tmp_path / "cache")


def state(repo: Repository) -> SessionState:
    return SessionState("open", 0, "host", 1, "boot", repo.clock.now())


def own(repo: Repository) -> tuple[Ledger, OwnSession]:
    ledger = Ledger(repo.store, repo.keychain)
    return ledger, OwnSession(repo.store, ledger, ME, state(repo))


def test_from_open_to_the_end(repo: Repository) -> None:
    ledger, session = own(repo)
    session.bump(4)
    (entry,) = ledger.sessions()
    assert (entry.id, entry.state.generation, entry.state.state) == (ME, 4, "open")
    session.commit(b"snapshot")
    assert session.committed
    (entry,) = ledger.sessions()
    assert entry.state.snapshot == b"snapshot"
    session.end()
    assert list(ledger.sessions()) == []
    session.end()


def test_only_one_of_commit_and_fence_wins(repo: Repository) -> None:
    ledger, session = own(repo)
    (entry,) = ledger.sessions()
    repo.store.replace(ObjectKey(ObjectKind.SESSION, ME.hex()), b"fence", expect=entry.stored)
    with pytest.raises(SessionFenced):
        session.commit(b"snapshot")
    assert not session.committed
    session.end()
    assert repos.names(repo.store, ObjectKind.SESSION) == {ME.hex()}


@pytest.mark.parametrize("after", [False, True])
def test_a_swap_that_failed_is_looked_at(repo: Repository, after: bool) -> None:
    ledger = Ledger(repo.store, repo.keychain)
    faulty = FaultyStore(repo.store, fail_at=1, after_effect=after, only=frozenset({"replace"}))
    session = OwnSession(faulty, ledger, ME, state(repo))
    if after:
        session.commit(b"snapshot")
    else:
        with pytest.raises(InjectedFault):
            session.commit(b"snapshot")
    assert session.committed == after


def test_strange_and_damaged_sessions_are_nobodys(repo: Repository) -> None:
    ledger, _ = own(repo)
    good = repo.store.get(ObjectKey(ObjectKind.SESSION, ME.hex()))
    strangers = {"deadbeef": b"", "ab" * 16: b"junk", "cd" * 16: good, "ef" * 32: good}
    for at in range(0, len(good), 3):
        strangers[f"{at:032x}"] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        strangers[f"{at + 5000:032x}"] = good[:at]
    for name, data in strangers.items():
        repo.store.put(ObjectKey(ObjectKind.SESSION, name), [data])
    assert [entry.id for entry in ledger.sessions()] == [ME]
    assert repo.snapshots() == []
    assert {name for name, _ in repo.damaged} == {f"sessions/{name}" for name in strangers if len(name) == 32}
    with repo.writing():
        pass


def test_generations(repo: Repository) -> None:
    ledger = Ledger(repo.store, repo.keychain)
    packs = [PackId(bytes([n]) * 32) for n in range(4)]
    assert ledger.generation() == 0
    assert ledger.absent(0) == set()
    collect(repo, 1, packs[:1], verdict=True)
    collect(repo, 2, packs[1:2], verdict=True)
    collect(repo, 3, packs[2:3])
    assert ledger.generation() == 3
    assert ledger.absent(3) == set(packs[:3])
    assert ledger.condemned(2) == {packs[1]}
    assert ledger.condemned(9) == set()


def test_lists_of_packs_there_and_back() -> None:
    packs = [PackId(bytes([n]) * 32) for n in (3, 1, 2)]
    assert decode_packs(encode_packs(packs)) == sorted(packs)
    assert decode_generation(encode_generation(7)) == 7
    for bad in (b"", b"\x01", b"\x01\x93", encode_generation(-1), b"\x01\x91\x91\xc4\x01x"):
        with pytest.raises(ObjectDamaged):
            decode_generation(bad)
        with pytest.raises(ObjectDamaged):
            decode_packs(bad)


def test_publishing_twice_is_harmless_and_over_something_else_is_refused(repo: Repository) -> None:
    identifier = publish(repo.store, b"stored")
    assert publish(repo.store, b"stored") == identifier
    key = ObjectKey(ObjectKind.SNAPSHOT, identifier.hex())
    repo.store.delete([key])
    repo.store.put(key, [b"sto"])
    with pytest.raises(ObjectDamaged, match=str(key)):
        publish(repo.store, b"stored")


def test_a_committed_session_stays_while_a_torn_snapshot_lies_in_its_place(repo: Repository) -> None:
    faulty = FaultyStore(repo.store, fail_at=1, persistent=True, only=frozenset({"put"}))
    session = begin(repo)
    tree = session.save_page(b"page")
    session.finish()
    session._segments.flush()  # type: ignore[attr-defined]
    session._store = faulty  # from here on every put fails
    identifier = session.commit(repos.blank_snapshot(tree))
    key = ObjectKey(ObjectKind.SNAPSHOT, identifier.hex())
    repo.store.put(key, [b"torn"])
    with repo.writing():
        pass
    assert repos.names(repo.store, ObjectKind.SESSION) == {session.id.hex()}
    assert [found for found, _ in repo.snapshots()] == [identifier]
    repo.store.delete([key])
    with repo.writing():
        pass
    assert repos.names(repo.store, ObjectKind.SESSION) == set()
    assert [found for found, _ in repo.snapshots()] == [identifier]


def test_who_is_surely_dead() -> None:
    here, dead = Machine.here(), dead_machine()
    assert not here.knows_dead(here.host, here.boot, here.pid)
    assert not here.knows_dead("elsewhere", dead.boot, dead.pid)
    assert here.knows_dead(dead.host, dead.boot, dead.pid)
    machine = here.boot.split()[2]
    assert here.knows_dead(here.host, f"another-boot pid:[1] {machine}", here.pid)
    assert not here.knows_dead(here.host, "another-boot pid:[1] another-machine-of-this-name", here.pid)
    assert not here.knows_dead(here.host, "another-boot pid:[1]", here.pid)
    assert not here.knows_dead(here.host, f"{here.boot.split()[0]} pid:[1]", dead.pid)
    assert not here.knows_dead(here.host, "", dead.pid)
    for strange in (0, -1, 2**31, 2**80):
        assert not here.knows_dead(here.host, here.boot, strange)
