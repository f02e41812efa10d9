"""The objects by which write sessions and collections know of each other.

A session is one object, ``sessions/<id>``, that moves by compare-and-swap from *open* to *committed* or to
*fenced*. The writer's commit and a collector's fence compete on that one object, so exactly one
of them happens; no clock and no lock decides. See ``FORMAT.md``, section *Sessions*, and the
protocol's description in ``docs/architecture.md``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dedupstore.errors import (
    DedupstoreError,
    FormatError,
    IntegrityError,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    SessionFenced,
    StoreError,
)
from dedupstore.format import constants as c
from dedupstore.format.collection import (
    GENERATION_NAME,
    condemned_name,
    decode_generation,
    decode_packs,
    verdict_name,
)
from dedupstore.format.session import SessionState, decode_session, encode_session
from dedupstore.format.snapshot import snapshot_id
from dedupstore.ids import SESSION_ID_SIZE, PackId, SessionId, SnapshotId, parse_id
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectReader, ObjectWriter
from dedupstore.repository.keychain import Keychain

FENCED = "this run was ended from outside before it could commit; run it again, what it stored is kept"


@dataclass(frozen=True, slots=True)
class Entry:
    """A session object as read: its state, and the bytes that a swap must expect."""

    id: SessionId
    state: SessionState
    stored: bytes


class Ledger:
    """Reads and swaps session objects and reads the collector's. Threads: one at a time."""

    def __init__(self, store: ObjectReader, keychain: Keychain) -> None:
        self._store = store
        self._keychain = keychain
        self.damaged: list[tuple[str, DedupstoreError]] = []
        """Session objects that did not open when last visited: sessions of nobody, but any of them may have
        held a snapshot that was committed and not yet published."""

    def generation(self) -> int:
        """Return the present generation; 0 where nothing was ever collected."""
        try:
            stored = self._store.get(ObjectKey(ObjectKind.GC, GENERATION_NAME))
        except ObjectNotFound:
            return 0
        name = GENERATION_NAME.encode()
        return decode_generation(self._keychain.open(c.OBJECT_GC_GENERATION, stored, name))

    def condemned(self, generation: int) -> set[PackId]:
        """Return the packs that a generation condemned."""
        return self._packs(condemned_name(generation), c.OBJECT_GC_CONDEMNED)

    def absent(self, generation: int) -> set[PackId]:
        """Return the packs a session of this generation must treat as gone."""
        gone = self.condemned(generation) if generation else set()
        for earlier in range(1, generation):
            gone |= self._packs(verdict_name(earlier), c.OBJECT_GC_VERDICT)
        return gone

    def _packs(self, name: str, kind: int) -> set[PackId]:
        try:
            stored = self._store.get(ObjectKey(ObjectKind.GC, name))
        except ObjectNotFound:
            return set()
        return set(decode_packs(self._keychain.open(kind, stored, name.encode())))

    def sessions(self) -> Iterator[Entry]:
        """Visit every session object that can be read; one that can not goes to `damaged`."""
        self.damaged = []
        for info in self._store.listing(ObjectKind.SESSION):
            if len(info.key.name) != 2 * SESSION_ID_SIZE:
                continue
            identifier = SessionId(parse_id(info.key.name, SESSION_ID_SIZE))
            try:
                stored = self._store.get(info.key)
                payload = self._keychain.open(c.OBJECT_SESSION, stored, identifier)
                yield Entry(identifier, decode_session(payload), stored)
            except ObjectNotFound:
                continue  # ended meanwhile
            except (IntegrityError, FormatError) as error:
                self.damaged.append((str(info.key), error))

    def seal(self, identifier: SessionId, state: SessionState) -> bytes:
        """Return the stored bytes of a session object."""
        return self._keychain.seal(c.OBJECT_SESSION, encode_session(state), identifier)


class OwnSession:
    """The session object of one writer, held open until it commits."""

    def __init__(
        self, store: ObjectWriter, ledger: Ledger, identifier: SessionId, state: SessionState
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._key = ObjectKey(ObjectKind.SESSION, identifier.hex())
        self._id = identifier
        self._state = state
        self._stored = ledger.seal(identifier, state)
        store.put(self._key, [self._stored])

    @property
    def committed(self) -> bool:
        """Whether `commit` is known to have succeeded."""
        return self._state.state == "committed"

    @property
    def generation(self) -> int:
        """The generation this session has declared."""
        return self._state.generation

    def bump(self, generation: int) -> None:
        """Declare a newer generation; raises `SessionFenced`."""
        self._swap(replace(self._state, generation=generation))

    def commit(self, snapshot: bytes) -> None:
        """Decide: from now on the snapshot is a promise. Raises `SessionFenced`.

        After a `StoreError` it may have been decided or not; the session object tells whoever reads it.
        """
        self._swap(replace(self._state, state="committed", snapshot=snapshot))

    def end(self) -> None:
        """Remove the session object."""
        try:
            self._store.replace(self._key, None, expect=self._stored)
        except ObjectExists:
            return  # a helper published and removed it first

    def _swap(self, state: SessionState) -> None:
        stored = self._ledger.seal(self._id, state)
        try:
            self._store.replace(self._key, stored, expect=self._stored)
        except StoreError as error:
            # An answer was lost, or a second attempt met the first one's success: what lies there decides.
            if self._present() != stored:
                if isinstance(error, ObjectExists):
                    raise SessionFenced(FENCED, session=self._id) from error
                raise
        self._state, self._stored = state, stored

    def _present(self) -> bytes | None:
        try:
            return self._store.get(self._key)
        except ObjectNotFound:
            return None


def publish(store: ObjectWriter, stored: bytes) -> SnapshotId:
    """Put a committed snapshot under its name; harmless if somebody did it before.

    Raises `ObjectDamaged` if something else lies there: then the session object must stay.
    """
    identifier = snapshot_id(stored)
    key = ObjectKey(ObjectKind.SNAPSHOT, identifier.hex())
    try:
        store.put(key, [stored])
    except ObjectExists as error:
        if store.get(key) != stored:
            raise ObjectDamaged(f"{key} is not what its name says; run `dstore verify`", key=key) from error
    return identifier
