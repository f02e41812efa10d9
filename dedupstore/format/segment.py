"""Index segments: what some packs contain, and which packs are gone.

A segment repeats pack directories, so the index can be read without touching the packs. It is the
payload of an ``OBJECT_SEGMENT`` envelope. Memory: some 200 bytes a chunk when decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.payload import decode_payload, encode_payload
from dedupstore.format.rows import Row, decode_rows, encode_rows
from dedupstore.ids import PackId, short
from dedupstore.model import ChunkKind, Data, PackContents


@dataclass(frozen=True, slots=True)
class IndexSegment:
    """A decoded segment."""

    packs: tuple[PackContents, ...]
    removed: tuple[PackId, ...] = ()
    """Packs whose entries in any other segment no longer count."""


class _Pack(msgspec.Struct, frozen=True, array_like=True, gc=False):
    id: bytes
    kind: int
    epoch: int
    size: int
    salt: bytes
    records: list[Row]


class _Segment(msgspec.Struct, frozen=True, array_like=True, gc=False):
    packs: list[_Pack]
    removed: list[bytes]


_DECODER = msgspec.msgpack.Decoder(_Segment)


def encode_segment(packs: Sequence[PackContents], removed: Sequence[PackId] = ()) -> bytes:
    """Return the payload of a segment."""
    rows = [_Pack(p.id, p.kind, p.epoch, p.size, p.salt, encode_rows(p.records)) for p in packs]
    return encode_payload(c.SEGMENT_VERSION, _Segment(rows, list(removed)))


def decode_segment(data: Data) -> IndexSegment:
    """Read a segment's payload; raises `FormatError` for a later version, `ObjectDamaged`."""
    raw = decode_payload(_DECODER, c.SEGMENT_VERSION, data, "index segment")
    if any(len(pack) != c.HASH_SIZE for pack in raw.removed):
        raise ObjectDamaged("an index segment removes something that is no pack: run a verify")
    return IndexSegment(tuple([_contents(row) for row in raw.packs]), tuple(map(PackId, raw.removed)))


def _contents(row: _Pack) -> PackContents:
    name = PackId(row.id)
    if (
        len(row.id) != c.HASH_SIZE
        or len(row.salt) != c.SALT_SIZE
        or row.kind not in {ChunkKind.DATA, ChunkKind.TREE}
        or not 0 <= row.epoch <= 0xFFFFFFFF
        or row.size < c.PACK_HEADER_SIZE + c.PACK_TRAILER_SIZE
    ):
        raise ObjectDamaged(f"an index segment's entry for pack {short(name)} makes no sense: run a verify")
    records = decode_rows(name, row.records, row.size - c.PACK_TRAILER_SIZE)
    return PackContents(name, ChunkKind(row.kind), row.epoch, row.size, row.salt, records)
