"""Packs, made from a seed, for the tests of the local index and its benchmarks."""

import hashlib

from dedupstore.ids import ChunkId, PackId
from dedupstore.model import ChunkKind, Member, Members, PackContents, Record

REPOSITORY = b"repository no. 1"


def name(*parts: object) -> bytes:
    """Return 32 bytes that depend on the parts alone."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def pack_id(seed: object) -> PackId:
    return PackId(name("pack", seed))


def make_pack(
    seed: object,
    chunks: int = 20,
    *,
    ids: list[bytes] | None = None,
    group: int = 4,
    kind: ChunkKind = ChunkKind.DATA,
    base: bytes | None = None,
) -> PackContents:
    """Make a pack of ``chunks`` chunks in records of ``group``; the last chunk's sizes differ from all."""
    members = [
        Member(ChunkId(i), 100 + n) for n, i in enumerate(ids or [name(seed, n) for n in range(chunks)])
    ]
    identifier = pack_id(seed)
    records = []
    offset = 160
    for number, begin in enumerate(range(0, len(members), group)):
        part = Members.of(*members[begin : begin + group])
        record = Record(
            identifier,
            number,
            offset,
            1000 + number,
            number % 3,
            sum(member.size for member in part),
            None if base is None else ChunkId(base),
        )
        records.append((record, part))
        offset += record.length
    return PackContents(identifier, kind, 1, offset + 300, name("salt", seed), tuple(records))


def chunk_ids(pack: PackContents) -> list[ChunkId]:
    return [member.id for _, members in pack.records for member in members]


def locations(pack: PackContents) -> dict[ChunkId, tuple[Record, int, int]]:
    """Return where each chunk of a pack lies: its record, its start and its size."""
    found = {}
    for record, members in pack.records:
        start = 0
        for member in members:
            found[member.id] = record, start, member.size
            start += member.size
    return found
