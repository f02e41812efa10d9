"""Records out of packs: joined ranges, deltas, damage told apart from its neighbours."""

import random
from pathlib import Path

import pytest
import zstandard

from dedupstore.errors import ChunkDamaged, DedupstoreError, FormatError, ObjectNotFound
from dedupstore.format import constants as c
from dedupstore.ids import ChunkId
from dedupstore.model import ChunkKind, Member, Members, Record
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.testing.stores import FaultyStore
from tests.support import repos
from tests.support.sessions import begin

noise = random.Random(11).randbytes


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return repos.create(MemoryStore(), tmp_path / "cache")


def stored(repo: Repository, *data: bytes) -> tuple[list[ChunkId], list[Record]]:
    with repo.writing() as session:
        ids = [session.put(piece).id for piece in data]
        session.finish()
    places = repo.index.find(ids)
    return ids, [place.record for place in places if place]


def of_largest_pack(records: list[Record]) -> list[Record]:
    packs = {record.pack for record in records}
    groups = [[r for r in records if r.pack == pack] for pack in packs]
    return max(groups, key=len)


def test_neighbours_are_read_together(repo: Repository, tmp_path: Path) -> None:
    _, records = stored(repo, *[noise(3000) for _ in range(40)])
    records = of_largest_pack(records)
    assert len(records) > 10
    counting = FaultyStore(repo.store)
    other = repos.reopen(counting, tmp_path / "other")
    other.sync()
    counting.counts.clear()
    found = list(other.reader.records(records[0].pack, reversed(records)))
    assert [record for record, _ in found] == sorted(records, key=lambda record: record.offset)
    assert counting.counts["get_ranges"] == 1


def test_damage_hurts_one_record_only(repo: Repository) -> None:
    _, records = stored(repo, *[noise(3000) for _ in range(40)])
    records = of_largest_pack(records)
    bad = records[4]
    key = ObjectKey(ObjectKind.PACK, bad.pack.hex())
    whole = bytearray(repo.store.get(key))
    whole[bad.offset + 100] ^= 1
    repo.store.delete([key])
    repo.store.put(key, [bytes(whole)])
    found = dict((r.number, p) for r, p in repo.reader.records(bad.pack, records))  # noqa: C402
    assert isinstance(found.pop(bad.number), ChunkDamaged)
    assert all(isinstance(plain, bytes) for plain in found.values())
    # Cut off inside the last: those before it are still there.
    repo.store.delete([key])
    repo.store.put(key, [bytes(whole[: records[-1].offset + 10])])
    found = dict((r.number, p) for r, p in repo.reader.records(bad.pack, records))  # noqa: C402
    assert {n for n, p in found.items() if isinstance(p, DedupstoreError)} == {bad.number, records[-1].number}
    repo.store.delete([key])
    found = dict((r.number, p) for r, p in repo.reader.records(bad.pack, records))  # noqa: C402
    assert {type(plain) for plain in found.values()} == {ObjectNotFound}


def test_a_pack_that_the_index_does_not_know_is_opened_by_its_header(
    repo: Repository, tmp_path: Path
) -> None:
    data = noise(3000)
    _, (record,) = stored(repo, data)
    other = repos.reopen(repo.store, tmp_path / "other")
    assert list(other.reader.records(record.pack, [record])) == [(record, data)]
    key = ObjectKey(ObjectKind.PACK, record.pack.hex())
    whole = repo.store.get(key)
    for at in range(c.PACK_HEADER_SIZE - c.PACK_RESERVED_SIZE):
        repo.store.delete([key])
        repo.store.put(key, [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]])
        other = repos.reopen(repo.store, tmp_path / "other")
        ((_, error),) = other.reader.records(record.pack, [record])
        assert isinstance(error, DedupstoreError), at


def test_a_delta_and_its_base(repo: Repository) -> None:
    """Reading the base must not disturb the record that is being opened for it."""
    base = noise(20_000)
    fresh = base[:9000] + b"changed" + base[9000:]
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    packed = zstandard.ZstdCompressor(dict_data=dictionary, write_content_size=True).compress(fresh)
    assert len(packed) < 2000
    with repo.writing() as session:
        base_id = session.put(base).id
        delta_id = session.keychain.chunk_id(ChunkKind.DATA, fresh)
        assert session.claim([delta_id]) == [True]
        packer = session._packers[ChunkKind.DATA]
        packer.add(c.CODEC_ZSTD, packed, len(fresh), Members.of(Member(delta_id, len(fresh))), base_id)
        session.finish()
    for _ in range(3):
        assert dict(repo.read([delta_id])) == {delta_id: fresh}
        assert dict(repo.read([delta_id, base_id])) == {delta_id: fresh, base_id: base}


def test_a_delta_whose_base_is_gone(repo: Repository) -> None:
    session = begin(repo)
    delta_id = session.keychain.chunk_id(ChunkKind.DATA, b"plain")
    session.claim([delta_id])
    missing = ChunkId(noise(32))
    session._packers[ChunkKind.DATA].add(
        c.CODEC_ZSTD, b"whatever", 5, Members.of(Member(delta_id, 5)), missing
    )
    session.finish()
    with pytest.raises(ObjectNotFound, match=missing.hex()[:8]):
        list(repo.read([delta_id]))


def test_a_codec_of_the_future_is_refused_by_name(repo: Repository) -> None:
    session = begin(repo)
    chunk = session.keychain.chunk_id(ChunkKind.DATA, b"plain")
    session.claim([chunk])
    session._packers[ChunkKind.DATA].add(9, b"whatever", 5, Members.of(Member(chunk, 5)))
    session.finish()
    with pytest.raises(FormatError, match="9"):
        list(repo.read([chunk]))
