"""Index segments, and the packs' own directories when segments fail."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.errors import DedupstoreError, FormatError, IntegrityError, ObjectDamaged
from dedupstore.ids import PackId
from dedupstore.objectstore.base import ObjectInfo, ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.progress import NullReporter
from dedupstore.repository import segments
from dedupstore.repository.repository import Repository
from tests.support import repos
from tests.support.sessions import page_for

noise = random.Random(8).randbytes


class Listening(MemoryStore):
    """A store in which something happens just after the index was listed."""

    happens = staticmethod(lambda: None)

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        found = list(super().listing(kind, prefix))
        if kind is ObjectKind.INDEX:
            happens, self.happens = self.happens, lambda: None
            happens()
        yield from found


def commit(repo: Repository, *data: bytes, sequence: int = 1) -> None:
    with repo.writing() as session:
        session.commit(repos.blank_snapshot(page_for(session, *data), sequence=sequence))


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return repos.create(Listening(), tmp_path / "cache")


def replaced(repo: Repository, key: ObjectKey, data: bytes) -> None:
    repo.store.delete([key])
    repo.store.put(key, [data])


def keys(repo: Repository, kind: ObjectKind) -> list[ObjectKey]:
    return [ObjectKey(kind, name) for name in sorted(repos.names(repo.store, kind))]


def test_a_segment_put_while_another_process_syncs_does_not_empty_the_cache(repo: Repository) -> None:
    commit(repo, noise(3000))
    with repo.writing() as session:
        chunk = session.put(noise(3000)).id
        session.finish()
        repo.store.happens = session._segments.flush  # type: ignore[attr-defined]
        repo.sync()
        assert repo.index.contains([chunk]) == [True]


def test_removed_segments_empty_the_cache(repo: Repository) -> None:
    commit(repo, noise(3000))
    assert repo.index.count()
    repo.store.delete(keys(repo, ObjectKind.INDEX))
    repo.sync()
    assert repo.index.count() == 0


def test_segments_that_changed_places_are_damage(repo: Repository, tmp_path: Path) -> None:
    commit(repo, noise(3000))
    commit(repo, noise(3000), sequence=2)
    one, two = keys(repo, ObjectKind.INDEX)
    replaced(repo, one, repo.store.get(two))
    with pytest.raises(ObjectDamaged, match=str(one)):
        repos.reopen(repo.store, tmp_path / "x").sync()


def test_rebuild_from_packs_does_without_a_damaged_segment(repo: Repository, tmp_path: Path) -> None:
    data = noise(3000), noise(3000)
    commit(repo, data[0])
    commit(repo, data[1], sequence=2)
    one, _ = keys(repo, ObjectKind.INDEX)
    replaced(repo, one, b"nothing")
    other = repos.reopen(repo.store, tmp_path / "x")
    assert segments.rebuild_from_packs(other.store, other.keychain, other.index, NullReporter()) == []
    other.sync()
    assert sorted(repos.files_in(other, s)[b"/file"] for _, s in other.snapshots()) == sorted(data)
    assert len(other.index.unsegmented()) == 2  # data and tree of one run
    commit(other, *data, sequence=3)  # lists again what it relies on
    assert len(other.index.unsegmented()) < 2


def test_rebuild_from_packs_names_the_damaged(repo: Repository, tmp_path: Path) -> None:
    commit(repo, noise(3000))
    bad, good = keys(repo, ObjectKind.PACK)
    replaced(repo, bad, repo.store.get(bad)[:-1])
    repo.store.put(ObjectKey(ObjectKind.PACK, "deadbeef"), [b"foreign"])
    other = repos.reopen(repo.store, tmp_path / "x")
    (found,) = segments.rebuild_from_packs(other.store, other.keychain, other.index, NullReporter())
    assert found[0].hex() == bad.name
    assert isinstance(found[1], IntegrityError)
    assert [pack.hex() for pack, _, _, _ in other.index.packs()] == [good.name]


def test_read_pack_gives_what_the_segment_says(repo: Repository) -> None:
    commit(repo, *[noise(random.Random(n).randrange(1, 5000)) for n in range(50)])
    (segment,) = repos.names(repo.store, ObjectKind.INDEX)
    listed = segments.read_segment(repo.store, repo.keychain, segment)
    assert len(listed) >= 2
    for pack in listed:
        assert segments.read_pack(repo.store, repo.keychain, pack.id) == pack


def test_a_pack_under_another_name_is_damage(repo: Repository) -> None:
    commit(repo, noise(3000))
    one, two = keys(repo, ObjectKind.PACK)
    replaced(repo, one, repo.store.get(two))
    with pytest.raises(ObjectDamaged, match="not written under that name"):
        segments.read_pack(repo.store, repo.keychain, PackId(bytes.fromhex(one.name)))


def test_every_damage_to_a_pack_is_a_named_error_or_harmless(repo: Repository) -> None:
    commit(repo, noise(3000))
    key = keys(repo, ObjectKind.PACK)[0]
    name = PackId(bytes.fromhex(key.name))
    whole = repo.store.get(key)
    contents = segments.read_pack(repo.store, repo.keychain, name)
    for at in [*range(200), *range(len(whole) - 400, len(whole))]:
        replaced(repo, key, whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        try:
            assert segments.read_pack(repo.store, repo.keychain, name) == contents
        except (IntegrityError, FormatError) as error:
            assert name.hex()[:8] in str(error)  # noqa: PT017
    for length in [*range(0, 300, 7), *range(len(whole) - 100, len(whole))]:
        replaced(repo, key, whole[:length])
        with pytest.raises(DedupstoreError) as caught:
            segments.read_pack(repo.store, repo.keychain, name)
        assert name.hex()[:8] in str(caught.value)
