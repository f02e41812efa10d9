"""Between the store's index segments and the local index: read, write, adopt, rebuild.

A segment is an immutable, sealed list of packs and what they hold. The local index is brought up to date
from the segments it has not seen; without segments it can be rebuilt from the packs alone.
"""

import contextlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from dedupstore.errors import (
    DedupstoreError,
    FormatError,
    IntegrityError,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
)
from dedupstore.format import constants as c
from dedupstore.format.crypto import plain_hash
from dedupstore.format.pack import open_header, read_directory, read_header, read_trailer
from dedupstore.format.segment import decode_segment, encode_segment
from dedupstore.ids import ID_SIZE, SESSION_ID_SIZE, PackId, SessionId, parse_id, short
from dedupstore.model import PackContents
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectReader, ObjectWriter
from dedupstore.progress import NullReporter, Reporter
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.keychain import Keychain
from dedupstore.repository.ledger import Entry, Ledger, publish
from dedupstore.repository.machine import Machine

SEGMENT_CHUNKS = 50_000
"""A segment ends with the pack that brings it to so many chunks (about 2 MB)."""
TAIL = 256 * 1024
"""Bytes read from a pack's end in the hope that its directory is among them."""
USELESS = (IntegrityError, FormatError, ObjectNotFound)
"""What is wrong with a pack that is of no use to us; verify names it where it hurts."""


def sync(store: ObjectReader, keychain: Keychain, index: LocalIndex, report: Reporter | None = None) -> None:
    """Bring the local index up to date with the store's segments.

    Cost: one listing, and one read for each segment not seen before. Raises `ObjectDamaged` naming the
    segment; `dstore cache rebuild --from-packs` does without it.
    """
    report = report or NullReporter()
    seen = index.segments()  # before listing: a writer may put one, and note it here, at any time
    listed = {info.key.name: info.size for info in store.listing(ObjectKind.INDEX)}
    if seen - listed.keys():  # segments were merged or a collection removed some: what they said may be over
        index.clear()
        seen = set()
    fresh = sorted(listed.keys() - seen)
    report.started("index", len(fresh), sum(listed[name] for name in fresh))
    for name in fresh:
        index.add_all(read_segment(store, keychain, name), segment=name)
        report.advanced(1, listed[name])


def read_segment(store: ObjectReader, keychain: Keychain, name: str) -> tuple[PackContents, ...]:
    """Return what one segment lists. Raises `ObjectDamaged` naming it."""
    key = ObjectKey(ObjectKind.INDEX, name)
    stored = store.get(key)
    if plain_hash(stored).hex() != name:
        raise ObjectDamaged(
            f"{key} is not what its name says; `dstore cache rebuild --from-packs` does without it", key=key
        )
    found = decode_segment(keychain.open(c.OBJECT_SEGMENT, stored))
    if found.removed:
        raise FormatError(f"{key} takes packs out of the index: use a newer dstore", key=key)
    return found.packs


class SegmentWriter:
    """Collects the contents of durable packs and puts segments of `SEGMENT_CHUNKS`.

    Threads: one at a time, by the owner's lock. Memory: about 150 bytes a chunk not yet put.
    """

    def __init__(self, store: ObjectWriter, keychain: Keychain, index: LocalIndex) -> None:
        self._store = store
        self._keychain = keychain
        self._index = index
        self._batch: list[PackContents] = []
        self._sole: dict[PackId, int] = {}
        self._chunks = 0

    def add(self, pack: PackContents, number: int | None = None) -> None:
        """Take a durable pack; may put a segment. ``number`` is what `LocalIndex.add` said of it."""
        self._batch.append(pack)
        if number is not None:
            self._sole[pack.id] = number
        self._chunks += sum(len(members) for _, members in pack.records)
        if self._chunks >= SEGMENT_CHUNKS:
            self.flush()

    def add_relied(
        self, packs: Iterable[PackId], dead: AbstractSet[SessionId], *, reuses: bool = False
    ) -> None:
        """Take those packs that no segment is known to list, and all that ``dead`` sessions left behind.

        With ``reuses``, subtrees of earlier snapshots were taken over unseen, so any pack may be relied on:
        all that no segment lists are taken. That also heals an index that has lost a segment.

        What a snapshot relies on must be in a segment before it commits, whoever stored it, and whatever
        became of the local index meanwhile. Raises `ObjectNotFound`, `ObjectDamaged` for a relied one.
        """
        relied, left = set(packs), set()
        for pack, _, _, segmented in self._index.packs():
            if segmented:
                relied.discard(pack)
            elif reuses or pack[:SESSION_ID_SIZE] in dead:
                left.add(pack)
        mine = {pack.id for pack in self._batch}
        for pack in sorted(relied - mine):
            self.add(read_pack(self._store, self._keychain, pack))
        for pack in sorted(left - relied - mine):
            with contextlib.suppress(*USELESS):
                self.add(read_pack(self._store, self._keychain, pack))

    def flush(self) -> None:
        """Put what is left as a segment; durable on return."""
        if not self._batch:
            return
        stored = self._keychain.seal(c.OBJECT_SEGMENT, encode_segment(self._batch))
        name = plain_hash(stored).hex()
        self._store.put(ObjectKey(ObjectKind.INDEX, name), [stored])
        # Added again, for another process may have emptied the index since: what is listed must be there.
        self._index.add_all(self._batch, segment=name, sole=self._sole)
        self._batch, self._sole, self._chunks = [], {}, 0


def adopt(
    store: ObjectWriter,
    keychain: Keychain,
    index: LocalIndex,
    ledger: Ledger,
    own: SessionId,
    machine: Machine,
    gone: AbstractSet[PackId] = frozenset(),
) -> list[Entry]:
    """Learn what sessions that did not end have stored; return those that are surely dead.

    A committed one is published on its behalf. Packs of the others, dead or alive, are durable and
    immutable, so their chunks need not be sent again, unless they are among those a collector took.
    """
    dead = []
    for entry in ledger.sessions():
        if entry.id == own:
            continue
        if entry.state.state == "committed" and entry.state.snapshot is not None:
            with contextlib.suppress(ObjectDamaged):  # in its place; then this copy is the only good one
                publish(store, entry.state.snapshot)
                bury(store, entry)
            continue
        for name in _unknown_packs(store, index, entry.id.hex()):
            if name not in gone:
                with contextlib.suppress(*USELESS):
                    index.add(read_pack(store, keychain, name))
        if entry.state.state == "fenced" or machine.knows_dead(
            entry.state.host, entry.state.boot, entry.state.pid
        ):
            dead.append(entry)
    return dead


def bury(store: ObjectWriter, entry: Entry) -> None:
    """Remove the object of a session that is over; somebody else may have."""
    try:
        store.replace(ObjectKey(ObjectKind.SESSION, entry.id.hex()), None, expect=entry.stored)
    except ObjectExists:
        return


def rebuild_from_packs(
    store: ObjectReader, keychain: Keychain, index: LocalIndex, report: Reporter
) -> list[tuple[PackId, DedupstoreError]]:
    """Fill an empty index from the packs' own directories; return the packs that could not be read.

    Segments only tell then which packs they list. One that is damaged counts as read and lists none, so
    the next runs list again what they rely on.
    """
    infos = [info for info in store.listing(ObjectKind.PACK) if len(info.key.name) == 2 * ID_SIZE]
    report.started("packs", len(infos), sum(info.size for info in infos))
    damaged: list[tuple[PackId, DedupstoreError]] = []
    for info in infos:
        name = PackId(parse_id(info.key.name))
        try:
            index.add(read_pack(store, keychain, name))
        except USELESS as error:
            damaged.append((name, error))
            report.finding(f"packs/{info.key.name}", error)
        report.advanced(1, info.size)
    for segment in [info.key.name for info in store.listing(ObjectKind.INDEX)]:
        try:
            listed = [pack.id for pack in read_segment(store, keychain, segment)]
        except USELESS as error:
            report.finding(f"index/{segment}", error)
            listed = []
        index.mark_segment(segment, listed)
    return damaged


def read_pack(store: ObjectReader, keychain: Keychain, name: PackId) -> PackContents:
    """Read a pack's own directory. Two or three range reads; raises `ObjectDamaged`, `FormatError`."""
    try:
        return _read_pack(store, keychain, name)
    except FormatError as error:  # what it does not know may be damage: say where it was found
        raise FormatError(f"pack {short(name)} can not be opened: {error}") from error


def _read_pack(store: ObjectReader, keychain: Keychain, name: PackId) -> PackContents:
    key = ObjectKey(ObjectKind.PACK, name.hex())
    size = store.stat(key).size
    tail_length = min(TAIL, size)
    head_length = min(c.PACK_HEADER_SIZE, size)
    head, tail = store.get_ranges(key, [(0, head_length), (size - tail_length, tail_length)])
    keys = keychain.epoch(read_header(name, head).epoch)
    header, pack_key = open_header(name, head, keys, keychain.repo_id)
    length, _ = read_trailer(name, tail[-c.PACK_TRAILER_SIZE :], size)
    end = size - c.PACK_TRAILER_SIZE
    if length <= tail_length - c.PACK_TRAILER_SIZE:
        sealed = tail[-c.PACK_TRAILER_SIZE - length : -c.PACK_TRAILER_SIZE]
    else:
        (sealed,) = store.get_ranges(key, [(end - length, length)])
    return read_directory(name, size, header, pack_key, keychain.repo_id, sealed)


def _unknown_packs(store: ObjectReader, index: LocalIndex, prefix: str) -> Iterator[PackId]:
    for info in store.listing(ObjectKind.PACK, prefix):
        if len(info.key.name) != 2 * ID_SIZE:
            continue
        name = PackId(parse_id(info.key.name))
        if not index.has_pack(name):
            yield name
