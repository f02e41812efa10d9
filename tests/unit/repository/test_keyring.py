"""Making and unlocking: slots that are damaged, foreign, last, or not to be had."""

from pathlib import Path

import pytest

from dedupstore.errors import (
    FormatError,
    IntegrityError,
    ObjectDamaged,
    RepositoryNotFound,
    UsageError,
    WrongPassphrase,
)
from dedupstore.format.keys import Argon2Cost, KeyFile, Passphrase
from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository import keyring
from dedupstore.repository.keyring import Keyring
from dedupstore.testing.stores import FaultyStore, InjectedFault, each_crash
from tests.support import repos

CHEAP = Argon2Cost(64 << 20, 3)
OTHER = KeyFile(b"o" * 32)


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    return repos.prepared(tmp_path)


def unlock(store: ObjectStore, cache: Path, secret: KeyFile | Passphrase = repos.KEY) -> Keyring:
    return keyring.unlock(store, secret, cache=cache)[1]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        unlock(MemoryStore(), tmp_path)


def test_there_is_one_already(store: MemoryStore, tmp_path: Path) -> None:
    before = repos.names(store, ObjectKind.KEY)
    with pytest.raises(UsageError, match="already"):
        repos.create(store, tmp_path)
    assert repos.names(store, ObjectKind.KEY) == before


def test_of_two_that_make_one_the_loser_leaves_nothing(store: MemoryStore, tmp_path: Path) -> None:
    class Late(MemoryStore):
        """Does not see the config at first, as one who looked just before it was put."""

        def get(self, key: ObjectKey) -> bytes:
            return MemoryStore().get(key) if key == CONFIG_KEY else super().get(key)

    late = Late()
    late._objects = store._objects
    before = repos.names(store, ObjectKind.KEY)
    with pytest.raises(UsageError, match="already"):
        repos.create(late, tmp_path)
    assert repos.names(store, ObjectKind.KEY) == before


def test_a_config_that_can_not_be_leaves_no_slot(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError):
        repos.create(store, tmp_path, config=repos.small_config(pack_size=1))
    assert repos.names(store, ObjectKind.KEY) == set()


def test_passphrase(tmp_path: Path) -> None:
    store = MemoryStore()
    secret = Passphrase(b"correct horse")
    config = repos.small_config()
    keyring.create(store, secret, config, repos.ROOT_KEY, cache=tmp_path, label="one", cost=CHEAP)
    ring = unlock(store, tmp_path, secret)
    assert [entry.name for entry in ring.slots()] == [ring.opened_by]
    with pytest.raises(WrongPassphrase, match="passphrase"):
        unlock(store, tmp_path, Passphrase(b"correct"))
    with pytest.raises(WrongPassphrase, match="key file"):
        unlock(store, tmp_path)


def test_add_and_remove(store: MemoryStore, tmp_path: Path) -> None:
    ring = unlock(store, tmp_path)
    first = ring.opened_by
    with pytest.raises(UsageError, match="last key slot"):
        ring.remove(first)
    second = ring.add(OTHER, "second")
    recovery = ring.recovery_key("third")
    assert unlock(store, tmp_path, recovery).opened_by != second
    with pytest.raises(UsageError, match="no key slot"):
        ring.remove("ff" * 17)
    with pytest.raises(UsageError, match="no key slot"):
        ring.remove("")
    assert ring.remove(first[:9]) == first
    with pytest.raises(WrongPassphrase):
        unlock(store, tmp_path)
    assert unlock(store, tmp_path, OTHER).opened_by == second


def test_a_foreign_or_damaged_slot_does_not_count_as_another(store: MemoryStore, tmp_path: Path) -> None:
    foreign = repos.prepared(tmp_path / "other")
    for name in repos.names(foreign, ObjectKind.KEY):
        key = ObjectKey(ObjectKind.KEY, name)
        store.put(key, [foreign.get(key)])
    store.put(ObjectKey(ObjectKind.KEY, "ab" * 16), [b"junk"])
    store.put(ObjectKey(ObjectKind.KEY, "abcdabcd"), [b"junk"])
    ring = unlock(store, tmp_path)
    assert sum(entry.slot is None for entry in ring.slots()) == 2
    with pytest.raises(UsageError, match="last key slot"):
        ring.remove(ring.opened_by)
    with pytest.raises(WrongPassphrase, match="2 damaged"):
        unlock(store, tmp_path, OTHER)


def test_a_store_that_fails_is_not_a_wrong_passphrase(store: MemoryStore, tmp_path: Path) -> None:
    faulty = FaultyStore(store, fail_at=2, only=frozenset({"get"}))
    with pytest.raises(InjectedFault):
        unlock(faulty, tmp_path)


def test_every_damage_to_the_config_is_told(store: MemoryStore, tmp_path: Path) -> None:
    whole = store.get(CONFIG_KEY)
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :], whole[:at]):
            store.delete([CONFIG_KEY])
            store.put(CONFIG_KEY, [damaged])
            with pytest.raises((IntegrityError, FormatError)):
                unlock(store, tmp_path)


def test_every_damage_to_the_slot_is_told(store: MemoryStore, tmp_path: Path) -> None:
    (name,) = repos.names(store, ObjectKind.KEY)
    key = ObjectKey(ObjectKind.KEY, name)
    whole = store.get(key)
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :], whole[:at]):
            store.delete([key])
            store.put(key, [damaged])
            with pytest.raises((WrongPassphrase, ObjectDamaged)):
                unlock(store, tmp_path)


def test_a_crash_while_it_is_made_leaves_one_or_none(tmp_path: Path) -> None:
    config = repos.small_config()

    def check(store: MemoryStore) -> None:
        try:
            unlock(store, tmp_path)
        except RepositoryNotFound:
            repos.create(store, tmp_path)
            unlock(store, tmp_path)

    assert each_crash(lambda store: repos.create(store, tmp_path, config=config), check) == 2
