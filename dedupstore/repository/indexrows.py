"""The rows of the local index: how packs, chunks and segments lie in its tables.

Everything here works inside a transaction that somebody else opened, so what one function does is
all there or not at all. Pack numbers stand for pack ids in the chunk table (4 bytes for 32); they are
never given twice while the cache lives, not even after it was emptied, so a number that a process
remembers names the same pack or none.

Tables (integers big-endian in keys, for their order; little-endian in values)::

    meta       name                          format, repository, next pack number, next run
    packs      u32 pack number               u32 segments that list it, msgpack PackRow
    packids    pack id                       u32 pack number (as in the key of packs)
    chunks     chunk id                      see CHUNK; 32 bytes of base id follow if it is a delta
    trees      u32 pack number, u32 offset   sealed record
    segments   name                          u32 pack numbers
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import lmdb
import msgspec

from dedupstore.errors import IntegrityError
from dedupstore.ids import ChunkId, PackId
from dedupstore.model import ChunkKind, PackContents

CHUNK = struct.Struct("<IIIIBIII")
"""Pack number, record number, record offset, sealed length, codec, record's plain length, start, size."""
CHUNK_RECORD = struct.Struct("<IIIIBI")
CHUNK_PLACE = struct.Struct("<II")
"""The parts of `CHUNK`: what chunks of one record share, and the rest."""
NUMBER = struct.Struct(">I")
TREE_KEY = struct.Struct(">II")

_COUNT = struct.Struct("<I")
_CHUNK_PACK = struct.Struct("<I")
_NEXT_PACK = b"next-pack"


Place: TypeAlias = tuple[int, int, int, int, int, int, int, int, bytes | None]
"""Pack number, record number, record offset, sealed length, codec, record's plain length, start of the
chunk in it, its size, and the base chunk's id if the record is a delta."""


class PackRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the index keeps of a pack beside its chunks; enough to open its records."""

    id: PackId
    kind: ChunkKind
    epoch: int
    size: int
    """Bytes of the whole object."""
    salt: bytes


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """What lies in a cache: numbers of things, and bytes."""

    chunks: int
    packs: int
    tree_records: int
    snapshots: int
    segments: int
    folders: int
    """Entries of the stat cache."""
    tables: dict[str, int]
    """Bytes that each table takes inside the file."""
    file_bytes: int
    """What the file takes on the disk, free pages included."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PackRow).decode


class Rows:
    """The tables of one environment, by name. Stateless, so any thread may use it."""

    def __init__(self, tables: "dict[bytes, lmdb._Database]") -> None:
        self.meta = tables[b"meta"]
        self.packs = tables[b"packs"]
        self.packids = tables[b"packids"]
        self.chunks = tables[b"chunks"]
        self.trees = tables[b"trees"]
        self.snapshots = tables[b"snapshots"]
        self.segments = tables[b"segments"]

    def number(self, txn: "lmdb.Transaction[bytes]", pack: PackId) -> int | None:
        """Return the number of a pack; ``None`` if it is not known."""
        key = txn.get(pack, db=self.packids)
        return None if key is None else int.from_bytes(key, "big")

    def pack(self, txn: "lmdb.Transaction[bytes]", number: int) -> PackRow | None:
        """Return the pack of a number; ``None`` if it is gone."""
        value = txn.get(NUMBER.pack(number), db=self.packs)
        return None if value is None else parse_pack(value)[0]

    def add(
        self, txn: "lmdb.Transaction[bytes]", pack: PackContents, *, replace: bool, sole: int | None = None
    ) -> tuple[int, bool]:
        """Add a pack and places for its chunks; return its number, and whether every place is a new one.

        A chunk keeps the place that it has, if that one's pack still exists, unless ``replace``. ``sole`` is
        the number with which the pack was added when every place was new: while it has that, all is here.
        """
        number = self.number(txn, pack.id)
        if number is not None and number == sole:
            return number, True
        if number is None:
            number = take_number(txn, self.meta, _NEXT_PACK)
            key = NUMBER.pack(number)
            txn.put(pack.id, key, db=self.packids)
            row = PackRow(pack.id, pack.kind, pack.epoch, pack.size, pack.salt)
            txn.put(key, _COUNT.pack(0) + _encode(row), db=self.packs)
        # Neighbours in the table are written together: a third faster than in the pack's order.
        rows = sorted(_chunk_rows(number, pack))
        with txn.cursor(db=self.chunks) as cursor:
            # In one call, for each gives the interpreter lock away and has to wait until it has it back.
            _, added = cursor.putmulti(rows, overwrite=replace)
        if added < len(rows) and not replace:
            self._take_over(txn, number, rows)
        return number, added == len(rows) and not replace

    def _take_over(
        self, txn: "lmdb.Transaction[bytes]", number: int, rows: Iterable[tuple[ChunkId, bytes]]
    ) -> None:
        """Give chunks of a pack the places in it whose present ones are in packs that are gone."""
        live = {number: True}
        for chunk, value in rows:
            old = _CHUNK_PACK.unpack_from(txn.get(chunk, b"", db=self.chunks))[0]
            if old not in live:
                live[old] = txn.get(NUMBER.pack(old), db=self.packs) is not None
            if not live[old]:
                txn.put(chunk, value, db=self.chunks)

    def list_in_segment(self, txn: "lmdb.Transaction[bytes]", name: bytes, numbers: Sequence[int]) -> None:
        """Add packs to the list of a segment, and count that they are in it."""
        before = txn.get(name, b"", db=self.segments)
        listed = set(_numbers(before))
        fresh = [number for number in dict.fromkeys(numbers) if number not in listed]
        for number in fresh:
            self._count(txn, number, 1)
        txn.put(name, before + struct.pack(f"<{len(fresh)}I", *fresh), db=self.segments)

    def forget_segment(self, txn: "lmdb.Transaction[bytes]", name: bytes) -> None:
        """Remove a segment's list; packs that are in no other one count as unsegmented again."""
        listed = txn.pop(name, db=self.segments)
        for number in _numbers(listed or b""):
            self._count(txn, number, -1)

    def forget_pack(self, txn: "lmdb.Transaction[bytes]", pack: PackId) -> None:
        """Remove a pack and its tree records; its chunks are gone already."""
        key = txn.pop(pack, db=self.packids)
        if key is None:
            return
        txn.delete(key, db=self.packs)
        with txn.cursor(db=self.trees) as cursor:
            found = cursor.set_range(key)
            while found and cursor.key()[: NUMBER.size] == key:
                found = cursor.delete()

    def drop_chunks(
        self, txn: "lmdb.Transaction[bytes]", chunks: Iterable[bytes], doomed: frozenset[bytes]
    ) -> None:
        """Remove chunks whose place is, still, in one of the packs ``doomed`` (see `place_key`)."""
        for chunk in chunks:
            value = txn.get(chunk, db=self.chunks)
            if value is not None and value[: _CHUNK_PACK.size] in doomed:
                txn.delete(chunk, db=self.chunks)

    def _count(self, txn: "lmdb.Transaction[bytes]", number: int, step: int) -> None:
        key = NUMBER.pack(number)
        value = txn.get(key, db=self.packs)
        if value is not None:
            (count,) = _COUNT.unpack_from(value)
            txn.put(key, _COUNT.pack(max(0, count + step)) + value[_COUNT.size :], db=self.packs)


def take_number(txn: "lmdb.Transaction[bytes]", meta: "lmdb._Database", counter: bytes) -> int:
    """Return the next value, from 1, of a counter that never goes back."""
    number = int.from_bytes(txn.get(counter, b"", db=meta), "big") + 1
    txn.put(counter, number.to_bytes(8, "big"), db=meta)
    return number


def place_key(number: int) -> bytes:
    """Return the bytes with which the place of every chunk of a pack begins."""
    return _CHUNK_PACK.pack(number)


def parse_pack(value: bytes) -> tuple[PackRow, bool]:
    """Read a row of the table of packs, and whether some segment lists it; raises `IntegrityError`."""
    try:
        return _decode(memoryview(value)[_COUNT.size :]), _COUNT.unpack_from(value)[0] > 0
    except (msgspec.MsgspecError, struct.error) as error:
        raise damaged("a pack") from error


def parse_place(value: bytes) -> Place:
    """Read a row of the table of chunks; raises `IntegrityError`."""
    try:
        number, index, offset, length, codec, plain, start, size = CHUNK.unpack_from(value)
    except struct.error as error:
        raise damaged("a chunk") from error
    return number, index, offset, length, codec, plain, start, size, value[CHUNK.size :] or None


def measure(
    txn: "lmdb.Transaction[bytes]", tables: "dict[bytes, lmdb._Database]", file_bytes: int
) -> CacheSizes:
    """Count what the tables hold."""
    rows, sizes = {}, {}
    for name, table in tables.items():
        stat = txn.stat(table)
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        rows[name] = stat["entries"]
        sizes[name.decode()] = pages * stat["psize"]
    return CacheSizes(
        chunks=rows[b"chunks"],
        packs=rows[b"packs"],
        tree_records=rows[b"trees"],
        snapshots=rows[b"snapshots"],
        segments=rows[b"segments"],
        folders=rows[b"stat"],
        tables=sizes,
        file_bytes=file_bytes,
    )


def damaged(what: str) -> IntegrityError:
    """Return the error for a row that can not be read."""
    return IntegrityError(f"the cache's entry for {what} can not be read: run `dstore cache rebuild`")


def _numbers(value: bytes) -> tuple[int, ...]:
    count = len(value) // 4
    return struct.unpack(f"<{count}I", value[: 4 * count])


def _chunk_rows(number: int, pack: PackContents) -> Iterable[tuple[ChunkId, bytes]]:
    # What all chunks of a record share is packed once: two of eight numbers are a chunk's own.
    shared, own = CHUNK_RECORD.pack, CHUNK_PLACE.pack
    for record, members in pack.records:
        head = shared(number, record.number, record.offset, record.length, record.codec, record.plain_length)
        base = record.base or b""
        start = 0
        for chunk, size in zip(members.ids, members.sizes, strict=True):
            yield chunk, head + own(start, size) + base
            start += size
