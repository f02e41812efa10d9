"""An open repository: lists of snapshots, pages, chunks, and what is damaged of them."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.errors import ChunkDamaged, ObjectDamaged, ObjectNotFound
from dedupstore.ids import ChunkId, SnapshotId, TreeId
from dedupstore.objectstore.base import ObjectInfo, ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.ledger import Ledger
from dedupstore.repository.repository import PAGE_CACHE, Repository
from tests.support import repos
from tests.support.sessions import begin, page_for, page_of

noise = random.Random(9).randbytes


class Listening(MemoryStore):
    """A store in which something happens just after the snapshots were listed."""

    happens = staticmethod(lambda: None)

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(super().listing(kind, prefix))
        if kind is ObjectKind.SNAPSHOT:
            happens, self.happens = self.happens, lambda: None
            happens()
        yield from found


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return repos.create(Listening(), tmp_path / "cache")


def commit(repo: Repository, *data: bytes, sequence: int = 1) -> tuple[SnapshotId, TreeId]:
    with repo.writing() as session:
        tree = page_for(session, *data)
        return session.commit(repos.blank_snapshot(tree, sequence=sequence)), tree


def replaced(repo: Repository, key: ObjectKey, data: bytes) -> None:
    repo.store.delete([key])
    repo.store.put(key, [data])


def test_snapshots_come_in_order_of_commits(repo: Repository, tmp_path: Path) -> None:
    made = [commit(repo, noise(10), sequence=n)[0] for n in (3, 1, 2)]
    expected = [made[1], made[2], made[0]]
    assert [found for found, _ in repo.snapshots()] == expected
    other = repos.reopen(repo.store, tmp_path / "other")
    assert [found for found, _ in other.snapshots()] == expected
    assert [found for found, _ in other.snapshots()] == expected  # from the cache
    other.store.delete([ObjectKey(ObjectKind.SNAPSHOT, made[0].hex())])
    assert [found for found, _ in other.snapshots()] == expected[:2]


def test_damaged_and_foreign_snapshots_are_set_apart(repo: Repository, tmp_path: Path) -> None:
    (one, _), (two, _) = commit(repo, noise(10)), commit(repo, noise(10), sequence=2)
    key = ObjectKey(ObjectKind.SNAPSHOT, one.hex())
    replaced(repo, key, repo.store.get(ObjectKey(ObjectKind.SNAPSHOT, two.hex())))
    repo.store.put(ObjectKey(ObjectKind.SNAPSHOT, "deadbeef"), [b"foreign"])
    other = repos.reopen(repo.store, tmp_path / "other")
    for _ in range(2):
        assert [found for found, _ in other.snapshots()] == [two]
        assert [name for name, _ in other.damaged] == [str(key)]


def test_a_damaged_copy_in_the_cache_is_replaced(repo: Repository) -> None:
    identifier, _ = commit(repo, noise(10))
    (_, stored) = next(repo.index.snapshots())
    repo.index.put_snapshots([(identifier, stored[:-1])])
    assert [found for found, _ in repo.snapshots()] == [identifier]
    assert next(repo.index.snapshots())[1] == stored


def test_a_snapshot_published_while_they_are_listed_is_not_missed(repo: Repository, tmp_path: Path) -> None:
    """It was committed before the listing began, so it is in the listing, wherever it lay meanwhile."""
    other = repos.reopen(repo.store, tmp_path / "other")
    writer = begin(repo)
    writer.finish()
    settle, writer._settle = writer._settle, lambda *_: None  # type: ignore[method-assign]
    tree = TreeId(ChunkId(bytes(32)))
    identifier = writer.commit(repos.blank_snapshot(tree))
    (entry,) = Ledger(other.store, other.keychain).sessions()
    stored = entry.state.snapshot
    repo.store.happens = lambda: settle(identifier, stored)  # type: ignore[attr-defined]
    assert [found for found, _ in other.snapshots()] == [identifier]
    assert repos.names(repo.store, ObjectKind.SESSION) == set()
    assert [found for found, _ in other.snapshots()] == [identifier]


def test_pages_and_their_cache(repo: Repository, tmp_path: Path) -> None:
    with repo.writing() as session:
        pages = [page_of(noise(36), n) for n in range(PAGE_CACHE * 3)]
        trees = [session.save_page(page) for page in pages]
        session.commit(repos.blank_snapshot(trees[0]))
    other = repos.reopen(repo.store, tmp_path / "other")
    other.sync()
    for _ in range(2):
        assert [other.load_tree(tree) for tree in trees] == pages
    with pytest.raises(ObjectNotFound, match="tree page"):
        other.load_page(TreeId(ChunkId(noise(32))))


def test_a_bad_tree_record_in_the_cache_is_fetched_again(repo: Repository) -> None:
    _, tree = commit(repo, noise(10))
    (place,) = repo.index.find([tree])
    assert place is not None
    record = place.record
    (number,) = [row[0] for row in repo.index.rows([tree]) if row]
    for bad in (b"", bytes(record.length), bytes(5)):
        repo.index.put_tree_records(record.pack, [(record.offset, bad)])
        repo._records.clear()
        repo.load_page(tree)
        assert repo.index.tree_record(number, record.offset) not in {None, bad}


def test_chunks_in_any_order_and_twice(repo: Repository) -> None:
    data = [noise(random.Random(n).randrange(1, 9000)) for n in range(60)]
    with repo.writing() as session:
        ids = [session.put(piece).id for piece in data]
        session.commit(repos.blank_snapshot(page_for(session)))
    wanted = [*reversed(ids), ids[3], ids[3]]
    found = list(repo.read(wanted))
    assert sorted(chunk for chunk, _ in found) == sorted(wanted)
    assert all(bytes(piece) == data[ids.index(chunk)] for chunk, piece in found)
    with pytest.raises(ObjectNotFound):
        list(repo.read([ids[0], ChunkId(noise(32))]))


def test_an_index_that_lies_is_found_out(repo: Repository) -> None:
    """Two chunks of one record with their places exchanged: authentic bytes, but not those asked for."""
    data = noise(2000), noise(2000)
    with repo.writing() as session:
        one, two = (session.put(piece).id for piece in data)
        tree = page_for(session)
        session.commit(repos.blank_snapshot(tree))
    table = repo.index.environment.tables[b"chunks"]

    def exchange(txn: object) -> None:
        a, b = txn.get(one, db=table), txn.get(two, db=table)  # type: ignore[attr-defined]
        txn.put(one, b, db=table)  # type: ignore[attr-defined]
        txn.put(two, a, db=table)  # type: ignore[attr-defined]

    repo.index.write(exchange)
    for chunk in (one, two):
        with pytest.raises(ChunkDamaged, match="not what its id says"):
            list(repo.read([chunk]))


def test_missing_and_cut_packs(repo: Repository) -> None:
    with repo.writing() as session:
        chunk = session.put(noise(3000)).id
        session.commit(repos.blank_snapshot(page_for(session)))
    (place,) = repo.index.find([chunk])
    assert place is not None
    key = ObjectKey(ObjectKind.PACK, place.record.pack.hex())
    replaced(repo, key, repo.store.get(key)[:200])
    with pytest.raises(ObjectDamaged, match=str(key)):
        list(repo.read([chunk]))
    repo.store.delete([key])
    with pytest.raises(ObjectNotFound, match=str(key)):
        list(repo.read([chunk]))
