"""Packs against the index: there, of the right size, and, if asked, every byte of them.

Reading goes pack by pack in `READERS` threads, so memory is that many whole packs and as many
expanded records. Beside them about 400 bytes for each pack of the repository.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dedupstore.errors import ChunkDamaged, FormatError, IntegrityError, NotFoundError, ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.crypto import plain_hash
from dedupstore.format.pack import open_header, read_directory, read_header, read_trailer
from dedupstore.ids import PackId, short
from dedupstore.model import Members, PackContents, Record
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.ops.verify.register import Register
from dedupstore.ops.verify.structure import TROUBLE, survive
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.repository.segments import read_segment

READERS = 2


@dataclass(frozen=True, slots=True)
class Listed:
    """A pack as the repository lists it."""

    id: PackId
    size: int
    digest: int
    """Hash of its contents as listed; means something in this process only."""
    segment: str | None
    """An index segment that lists it; None if only the pack itself does."""


class PackReader:
    """Reads packs whole and checks everything in them."""

    def __init__(self, view: Repository, register: Register, report: Reporter) -> None:
        self._view = view
        self._register = register
        self._report = report
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.bytes_read = 0

    def check(self, packs: Iterable[Listed]) -> None:
        """Read these packs; damage goes to the register. Raises only if the store itself fails."""
        shared = iter(packs)
        with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as pool:
            try:
                for reader in [pool.submit(self._work, shared) for _ in range(READERS)]:
                    reader.result()
            finally:
                self._stop.set()

    def _work(self, packs: Iterator[Listed]) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    pack = next(packs, None)
                if pack is None:
                    return
                size = self._read(pack)
                with self._lock:
                    self.bytes_read += size
                self._report.advanced(1, size)
        finally:
            self._stop.set()

    def _read(self, pack: Listed) -> int:
        try:
            stored = self._view.store.get(ObjectKey(ObjectKind.PACK, pack.id.hex()))
        except TROUBLE as error:
            survive(self._view.store, error)
            self._register.add_pack(pack.id, error)
            return 0
        contents: PackContents | None
        with memoryview(stored) as data:
            try:
                contents = self._open(pack, data)
            except (IntegrityError, FormatError) as error:
                self._register.add_shell(pack.id, error)
                contents = self._as_listed(pack, error)
            if contents is not None:
                for record, members in contents.records:
                    self._check_record(contents, record, members, data)
        return len(stored)

    def _open(self, pack: Listed, data: memoryview) -> PackContents:
        """Check all of a pack but its records; return its own directory. Raises at the first trouble."""
        if len(data) != pack.size:
            raise _wrong_size(pack, len(data))
        length, digest = read_trailer(pack.id, data[-c.PACK_TRAILER_SIZE :], len(data))
        if plain_hash(data[: -c.HASH_SIZE]) != digest:
            raise ObjectDamaged(
                f"pack {short(pack.id)} is not what was written: its hash does not fit", pack=pack.id
            )
        keychain = self._view.keychain
        keys = keychain.epoch(read_header(pack.id, data).epoch)
        header, key = open_header(pack.id, data, keys, keychain.repo_id)
        end = len(data) - c.PACK_TRAILER_SIZE
        contents = read_directory(pack.id, len(data), header, key, keychain.repo_id, data[end - length : end])
        if hash(contents) != pack.digest:
            raise ObjectDamaged(
                f"pack {short(pack.id)} lists other chunks than the index says of it: "
                "`dstore cache rebuild --from-packs` does without it",
                pack=pack.id,
            )
        return contents

    def _as_listed(self, pack: Listed, error: IntegrityError | FormatError) -> PackContents | None:
        """Return what the index says of a pack that does not say it well itself."""
        try:
            if pack.segment is not None:
                for contents in read_segment(self._view.store, self._view.keychain, pack.segment):
                    if contents.id == pack.id:
                        return contents
        except TROUBLE as trouble:
            survive(self._view.store, trouble)
        self._register.add_pack(pack.id, error)
        return None

    def _check_record(self, pack: PackContents, record: Record, members: Members, data: memoryview) -> None:
        try:
            sealed = data[record.offset : record.offset + record.length]
            plain = self._view.reader.open_record(record, sealed)
        except (IntegrityError, NotFoundError, FormatError) as error:
            self._register.add_record(pack.id, record.number, error)
            return
        names = self._view.keychain.names
        start = 0
        with memoryview(plain) as whole:
            for member in members:
                if not names(pack.kind, whole[start : start + member.size], member.id):
                    self._register.add_chunk(
                        member.id,
                        ChunkDamaged(
                            f"chunk {short(member.id)} in record {record.number} of pack {short(pack.id)} "
                            "is not what its id says: restore what it hurts from another snapshot",
                            chunk=member.id,
                            pack=pack.id,
                        ),
                    )
                start += member.size


def check_sizes(
    view: Repository, packs: Iterable[Listed], stored: dict[str, int], register: Register
) -> None:
    """Compare listed packs with what the store holds under their names, without reading them."""
    for pack in packs:
        size = stored.get(pack.id.hex())
        if size is None:
            try:  # a listing may lag behind; a look at the object itself does not
                size = view.store.stat(ObjectKey(ObjectKind.PACK, pack.id.hex())).size
            except TROUBLE as error:
                survive(view.store, error)
                register.add_pack(pack.id, error)
                continue
        if size != pack.size:
            register.add_pack(pack.id, _wrong_size(pack, size))


def _wrong_size(pack: Listed, size: int) -> ObjectDamaged:
    return ObjectDamaged(
        f"pack {short(pack.id)} has {size} bytes in the store and not {pack.size}: "
        "restore it from a copy of the repository",
        pack=pack.id,
    )
