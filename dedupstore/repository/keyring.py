"""Making and unlocking repositories, and the key slots that do it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import (
    DedupstoreError,
    FormatError,
    IntegrityError,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    RepositoryNotFound,
    StoreError,
    UsageError,
    WrongPassphrase,
)
from dedupstore.format.config import RepoConfig, decode_config, encode_config, read_config_header
from dedupstore.format.keys import (
    DEFAULT_COST,
    Argon2Cost,
    KeyFile,
    KeySlot,
    Secret,
    decode_slot,
    encode_slot,
    open_slot,
)
from dedupstore.ids import parse_id
from dedupstore.objectstore.base import (
    CONFIG_KEY,
    ObjectInfo,
    ObjectKey,
    ObjectKind,
    ObjectReader,
    ObjectStore,
)
from dedupstore.repository.repository import Repository

SLOT_NAME_SIZE = 16


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """A key slot as listed: its object name, and what it says of itself or why it can not be read."""

    name: str
    slot: KeySlot | None
    error: DedupstoreError | None = None


class Keyring:
    """A repository's key slots, with the root key in hand. Threads: one at a time."""

    def __init__(
        self, store: ObjectStore, config: RepoConfig, root_key: bytes, opened_by: str, clock: Clock
    ) -> None:
        self._store = store
        self._config = config
        self._root_key = root_key
        self._clock = clock
        self.opened_by = opened_by
        """Name of the slot that let us in."""

    def slots(self) -> list[SlotEntry]:
        """List every slot, readable or not."""
        return list(_slots(self._store))

    def add(self, secret: Secret, label: str, cost: Argon2Cost = DEFAULT_COST) -> str:
        """Add a slot for another secret; returns its name. Durable on return."""
        name = self._clock.random(SLOT_NAME_SIZE).hex()
        stored = encode_slot(
            self._root_key,
            secret,
            repo_id=self._config.id,
            cipher=self._config.cipher,
            label=label,
            created=self._clock.now(),
            cost=cost,
        )
        self._store.put(ObjectKey(ObjectKind.KEY, name), [stored])
        return name

    def remove(self, prefix: str) -> str:
        """Remove one slot named by a prefix of its name; returns the name.

        Raises `UsageError` for the last readable slot, or if the prefix names none or several. The
        root key does not change: who knew it by this slot and kept a copy can still read.
        """
        found = self.slots()
        named = [entry.name for entry in found if prefix and entry.name.startswith(prefix)]
        if len(named) != 1:
            several = "several key slots begin" if named else "no key slot begins"
            raise UsageError(f"{several} with {prefix!r}: take a name from `dstore key list`")
        ours = {entry.name for entry in found if entry.slot and entry.slot.repo_id == self._config.id}
        if not ours - set(named):
            raise UsageError(
                "this is the last key slot; add another with `dstore key add` before removing it"
            )
        self._store.delete([ObjectKey(ObjectKind.KEY, named[0])])
        return named[0]

    def recovery_key(self, label: str) -> KeyFile:
        """Add a slot with a new random key and return that key, to be kept somewhere safe."""
        secret = KeyFile(self._clock.random(32), self._config.id)
        self.add(secret, label)
        return secret


def create(
    store: ObjectStore,
    secret: Secret,
    config: RepoConfig,
    root_key: bytes,
    *,
    cache: Path,
    label: str,
    cost: Argon2Cost = DEFAULT_COST,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[Repository, Keyring]:
    """Make a repository in an empty store. ``root_key`` is 32 fresh random bytes.

    The key slot is stored before ``config``, whose existence is what makes a repository. Raises
    `UsageError` if one is there already.
    """
    try:
        store.get(CONFIG_KEY)
    except ObjectNotFound:
        stored = encode_config(config, root_key)
        keyring = Keyring(store, config, root_key, "", clock)
        keyring.opened_by = keyring.add(secret, label, cost)
    else:
        raise _taken()
    try:
        store.put(CONFIG_KEY, [stored])
    except ObjectExists as error:
        store.delete([ObjectKey(ObjectKind.KEY, keyring.opened_by)])
        raise _taken() from error
    return Repository(store, config, cache, clock), keyring


def unlock(
    store: ObjectStore, secret: Secret, *, cache: Path, clock: Clock = SYSTEM_CLOCK
) -> tuple[Repository, Keyring]:
    """Open a repository.

    Raises `RepositoryNotFound`, `WrongPassphrase`, `FormatError` for a newer format, `ObjectDamaged`
    if ``config`` or all key slots are damaged or gone. A passphrase costs about 0.4 s for each passphrase
    slot that is tried.
    """
    try:
        stored = store.get(CONFIG_KEY)
    except ObjectNotFound as error:
        if _has_snapshots(store):
            raise ObjectDamaged(
                "the repository's config is gone, though its snapshots are there: restore it from a copy"
            ) from error
        raise RepositoryNotFound("there is no repository here; make one with `dstore init`") from error
    header = read_config_header(stored)
    broken = strange = tried = 0
    for entry in _slots(store):
        if entry.slot is None:
            broken += 1
            continue
        if entry.slot.repo_id != header.repo_id:
            strange += 1
            continue
        tried += 1
        root_key = open_slot(entry.slot, secret)
        if root_key is not None:
            config = decode_config(stored, root_key)
            keyring = Keyring(store, config, root_key, entry.name, clock)
            return Repository(store, config, cache, clock), keyring
    if strange and not tried:
        raise ObjectDamaged(f"{CONFIG_KEY} and the key slots are of different repositories; restore it")
    if not (tried or broken):
        raise ObjectDamaged("the repository's key slots are gone: restore them from a copy")
    damage = f" ({broken} damaged key slots were passed over)" if broken else ""
    kind = "key file" if isinstance(secret, KeyFile) else "passphrase"
    raise WrongPassphrase(f"no key slot opens with this {kind}{damage}; check it, or use another key")


def _has_snapshots(store: ObjectReader) -> bool:
    try:
        return any(store.listing(ObjectKind.SNAPSHOT))
    except StoreError:  # the place itself is not there
        return False


def _slots(store: ObjectReader) -> Iterator[SlotEntry]:
    infos: list[ObjectInfo] = sorted(store.listing(ObjectKind.KEY), key=lambda info: info.key.name)
    for info in infos:
        try:
            parse_id(info.key.name, SLOT_NAME_SIZE)
            yield SlotEntry(info.key.name, decode_slot(store.get(info.key)))
        except ObjectNotFound:
            continue  # removed meanwhile
        except (IntegrityError, FormatError, UsageError) as error:
            yield SlotEntry(info.key.name, None, error)


def _taken() -> UsageError:
    return UsageError("there is a repository here already; open it, or choose an empty place")
