"""Record rows: how pack directories and index segments list the records of a pack.

A row is ``[sealed length, codec, plain length, base id or nil, members]``; members are 36-byte
entries (id, size) in order of position inside the record. Rows come in the order of the records,
which follow each other without a gap from the end of the pack's header: number, offset and each
chunk's start follow from that.
"""

from collections.abc import Sequence
from typing import TypeAlias

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.ids import ChunkId, PackId, short
from dedupstore.model import Members, Record

Row: TypeAlias = tuple[int, int, int, bytes | None, bytes]
Contents: TypeAlias = tuple[tuple[Record, Members], ...]


def encode_rows(records: Sequence[tuple[Record, Members]]) -> list[Row]:
    """Return the rows of a pack's records, which must be all of them, in order."""
    return [(r.length, r.codec, r.plain_length, r.base, members.packed) for r, members in records]


def decode_rows(pack: PackId, rows: Sequence[Row], limit: int) -> Contents:
    """Return the records that ``rows`` tell of; ``limit`` is where the last must have ended (bytes).

    Raises `ObjectDamaged` for rows that make no sense.
    """
    if len(rows) > c.RECORDS_MAX or limit > c.PACK_SIZE_MAX:
        raise _nonsense(pack)
    offset = c.PACK_HEADER_SIZE
    found: list[tuple[Record, Members]] = []
    for number, (length, codec, plain_length, base, packed) in enumerate(rows):
        if (
            not 0 < length <= limit - offset
            or not 0 < plain_length <= c.RECORD_PLAIN_MAX
            or length > c.RECORD_PLAIN_MAX + c.AEGIS256_TAG_SIZE
            or not 0 <= codec <= 0xFF
            or len(packed) % c.MEMBER_SIZE
            or (base is not None and len(base) != c.HASH_SIZE)
        ):
            raise _nonsense(pack)
        members = Members(packed)
        if sum(members.sizes) != plain_length:
            raise _nonsense(pack)
        base_id = None if base is None else ChunkId(base)
        found.append((Record(pack, number, offset, length, codec, plain_length, base_id), members))
        offset += length
    return tuple(found)


def _nonsense(pack: PackId) -> ObjectDamaged:
    return ObjectDamaged(f"the list of records of pack {short(pack)} makes no sense: run a verify", pack=pack)
