"""What the local index promises while nothing goes wrong, and against a model."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dedupstore.errors import IntegrityError, NotFoundError
from dedupstore.ids import ChunkId, SnapshotId
from dedupstore.model import ChunkKind, Location
from dedupstore.repository.index import LocalIndex
from tests.unit.repository.index_samples import REPOSITORY, chunk_ids, locations, make_pack, name, pack_id


@pytest.fixture
def index(tmp_path):
    with LocalIndex.open(tmp_path / "cache", REPOSITORY) as opened:
        yield opened


def test_every_chunk_of_an_added_pack_is_found_where_the_pack_says(index):
    pack = make_pack("a", 22, base=name("base"))
    index.add(pack)
    expected = locations(pack)
    ids = list(expected)
    assert index.contains(ids) == [True] * 22
    assert [(x.record, x.start, x.size) for x in index.find(ids)] == list(expected.values())
    for row, (record, start, size) in zip(index.rows(ids), expected.values(), strict=True):
        assert index.pack(row[0]).id == pack.id
        assert row[1:] == (
            record.number,
            record.offset,
            record.length,
            record.codec,
            record.plain_length,
            start,
            size,
            name("base"),
        )


def test_unknown_chunks_are_missing_in_the_order_asked_and_twice_if_asked_twice(index):
    pack = make_pack("a", 3)
    index.add(pack)
    first, second, third = chunk_ids(pack)
    unknown = ChunkId(name("unknown"))
    asked = [third, unknown, first, unknown, third, second]
    assert index.missing(asked) == [False, True, False, True, False, False]
    assert index.contains(asked) == [True, False, True, False, True, True]
    assert [place is None for place in index.rows(asked)] == index.missing(asked)
    assert [place is None for place in index.find(asked)] == index.missing(asked)
    assert index.contains([]) == index.missing([]) == index.rows([]) == index.find([]) == []


def test_chunks_of_one_record_share_one_record_object(index):
    pack = make_pack("a", 8, group=4)
    index.add(pack)
    found = index.find(chunk_ids(pack))
    assert found[0].record is found[3].record
    assert found[4].record is found[7].record is not found[0].record


def test_adding_a_known_pack_again_changes_nothing(index):
    pack = make_pack("a")
    index.add(pack)
    before = index.rows(chunk_ids(pack))
    index.add(pack)
    assert index.rows(chunk_ids(pack)) == before
    assert len(list(index.packs())) == 1


def test_a_pack_that_is_alone_with_its_chunks_is_only_listed_the_next_time(index):
    pack = make_pack("a")
    sole = index.add_all([pack])
    assert sole == {pack.id: 1}
    assert index.add_all([pack], segment="s", sole=sole) == sole
    assert index.unsegmented() == []
    assert not index.missing(chunk_ids(pack)).count(True)


def test_a_pack_that_was_alone_is_added_whole_if_the_index_was_emptied_meanwhile(index):
    pack = make_pack("a")
    sole = index.add_all([pack])
    index.clear()
    assert index.add_all([pack], segment="s", sole=sole) == {pack.id: 2}
    assert index.missing(chunk_ids(pack)) == [False] * 20


def test_a_pack_is_not_alone_with_chunks_that_have_another_place(index):
    old = make_pack("old", 3)
    copy = make_pack("copy", ids=[*chunk_ids(old), name("fresh")])
    assert index.add(old) is not None
    assert index.add(copy) is None
    index.forget([old.id])
    index.add_all([copy], sole={})
    assert {x.record.pack for x in index.find(chunk_ids(copy))} == {copy.id}


def test_a_chunk_keeps_its_live_place_unless_told_otherwise(index):
    old = make_pack("old")
    new = make_pack("new", ids=chunk_ids(old))
    index.add(old)
    index.add(new)
    assert {x.record.pack for x in index.find(chunk_ids(old))} == {old.id}
    index.add(new, replace=True)
    assert {x.record.pack for x in index.find(chunk_ids(old))} == {new.id}


def test_a_chunk_whose_pack_was_forgotten_gets_a_new_place_from_a_known_pack(index):
    old = make_pack("old")
    copy = make_pack("copy", ids=chunk_ids(old))
    index.add_all([old, copy])
    index.forget([old.id])
    assert index.missing(chunk_ids(old)) == [True] * 20
    index.add(copy)
    assert {x.record.pack for x in index.find(chunk_ids(old))} == {copy.id}


def test_forgetting_takes_only_what_lies_in_those_packs(index):
    packs = [make_pack(n, kind=ChunkKind.TREE) for n in range(5)]
    index.add_all(packs)
    for pack in packs:
        index.put_tree_records(pack.id, [(160, b"first"), (1160, b"second")])
    numbers = {pack.id: index.rows(chunk_ids(pack)[:1])[0][0] for pack in packs}
    index.forget([packs[1].id, packs[3].id, pack_id("never seen")])
    for n, pack in enumerate(packs):
        gone = n in (1, 3)
        assert index.missing(chunk_ids(pack)) == [gone] * 20
        assert index.has_pack(pack.id) is not gone
        assert (index.pack_named(pack.id) is None) is gone
        assert index.tree_record(numbers[pack.id], 1160) == (None if gone else b"second")
    assert index.count() == 60
    with pytest.raises(NotFoundError, match="no longer in the index"):
        index.pack(numbers[packs[1].id])


def test_a_pack_number_is_never_given_twice(index):
    first = make_pack("first")
    index.add(first)
    number = index.rows(chunk_ids(first))[0][0]
    index.forget([first.id])
    index.add(first)
    again = index.rows(chunk_ids(first))[0][0]
    index.clear()
    index.add(make_pack("second"))
    after = index.rows(chunk_ids(make_pack("second")))[0][0]
    assert number < again < after


def test_the_last_batch_lists_all_packs_in_the_segment(index, monkeypatch):
    monkeypatch.setattr("dedupstore.repository.index._BATCH", 50)
    packs = [make_pack(n) for n in range(10)]
    index.add_all(packs, segment="s1")
    assert index.segments() == {"s1"}
    assert index.unsegmented() == []
    assert index.count() == 200


def test_segments_are_counted_so_that_a_merge_leaves_no_pack_unsegmented(index):
    a, b, c = (make_pack(n) for n in "abc")
    index.add(a, segment="one")
    index.add(b, segment="two")
    index.add(c)
    assert index.unsegmented() == [c.id]
    assert list(index.packs()) == [
        (a.id, ChunkKind.DATA, a.size, True),
        (b.id, ChunkKind.DATA, b.size, True),
        (c.id, ChunkKind.DATA, c.size, False),
    ]
    index.mark_segment("merged", [a.id, b.id, c.id, pack_id("unknown")])
    index.mark_segment("merged", [a.id])
    index.forget_segment("one")
    index.forget_segment("two")
    assert index.segments() == {"merged"}
    assert index.unsegmented() == []
    index.forget_segment("merged")
    index.forget_segment("merged")
    assert index.unsegmented() == [a.id, b.id, c.id]


def test_an_empty_segment_counts_as_read(index):
    index.mark_segment("empty", [])
    index.add_all([], segment="also empty")
    assert index.segments() == {"empty", "also empty"}


def test_iteration_is_in_order_of_ids_and_may_be_written_under(index, monkeypatch):
    monkeypatch.setattr("dedupstore.repository.index._PAGE", 7)
    pack = make_pack("a", 30)
    index.add(pack)
    seen = []
    for chunk, location in index.iterate():
        assert isinstance(location, Location)
        seen.append(chunk)
        if len(seen) == 1:
            index.mark_segment("meanwhile", [pack.id])
    assert seen == sorted(chunk_ids(pack))


def test_tree_records_belong_to_a_known_pack(index):
    pack = make_pack("a", kind=ChunkKind.TREE)
    with pytest.raises(NotFoundError, match="add it before"):
        index.put_tree_records(pack.id, [(160, b"sealed")])
    index.add(pack)
    number = index.rows(chunk_ids(pack))[0][0]
    index.put_tree_records(pack.id, [(70_000, b"y" * 9000), (160, b"x")])
    assert index.tree_record(number, 160) == b"x"
    assert index.tree_record(number, 70_000) == b"y" * 9000
    assert index.tree_record(number, 161) is None
    assert index.tree_record(number + 1, 160) is None


def test_snapshots_are_kept_as_they_are_stored(index):
    stored = {SnapshotId(name("snapshot", n)): bytes([n]) * n for n in range(1, 40)}
    index.put_snapshots(stored.items())
    assert dict(index.snapshots()) == stored
    assert [key for key, _ in index.snapshots()] == sorted(stored)
    gone = sorted(stored)[:10]
    index.drop_snapshots([*gone, SnapshotId(name("unknown"))])
    assert sorted(dict(index.snapshots())) == sorted(stored)[10:]


def test_clearing_packs_keeps_snapshots_and_clearing_all_keeps_nothing(index):
    pack = make_pack("a", kind=ChunkKind.TREE)
    index.add(pack, segment="s")
    index.put_tree_records(pack.id, [(160, b"x")])
    index.put_snapshots([(SnapshotId(name("s")), b"stored")])
    sizes = index.sizes()
    assert (sizes.chunks, sizes.packs, sizes.tree_records, sizes.snapshots, sizes.segments) == (
        20,
        1,
        1,
        1,
        1,
    )
    assert sizes.file_bytes >= sizes.tables["chunks"] > 0
    index.clear_packs()
    assert (index.count(), list(index.packs()), index.segments()) == (0, [], set())
    assert len(list(index.snapshots())) == 1
    index.clear()
    assert list(index.snapshots()) == []
    assert index.sizes().tree_records == 0


def test_a_row_that_can_not_be_read_says_so_and_what_to_do(index):
    pack = make_pack("a", 1)
    index.add(pack)
    chunk = chunk_ids(pack)[0]
    number = index.rows([chunk])[0][0]
    tables = index.environment.tables

    def spoil(txn):
        txn.put(chunk, b"short", db=tables[b"chunks"])
        txn.put(number.to_bytes(4, "big"), b"\0\0\0\0\xc1", db=tables[b"packs"])

    index.write(spoil)
    with pytest.raises(IntegrityError, match="dstore cache rebuild"):
        index.rows([chunk])
    with pytest.raises(IntegrityError, match="dstore cache rebuild"):
        index.pack(number)
    with pytest.raises(IntegrityError, match="dstore cache rebuild"):
        list(index.packs())


POOL = [name("pool", n) for n in range(12)]
PACKS = st.integers(0, 7)


class IndexAgainstDict(RuleBasedStateMachine):
    """The index, and a dict from chunk to the pack in which it should be found."""

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.index = LocalIndex.open(self.folder, REPOSITORY, map_size=1 << 16)
        self.places = {}
        self.packs = {}
        self.segments = {}

    @rule(pack=PACKS, ids=st.sets(st.sampled_from(POOL), min_size=1), replace=st.booleans())
    def add(self, pack, ids, replace):
        # A pack's name stands for one content for ever: known, it comes again as it was.
        contents = self.packs.get(pack) or make_pack(pack, ids=sorted(ids), group=3)
        self.index.add(contents, replace=replace)
        self.packs[pack] = contents
        for chunk in chunk_ids(contents):
            if replace or chunk not in self.places:
                self.places[chunk] = contents

    @rule(packs=st.sets(PACKS, max_size=3))
    def forget(self, packs):
        self.index.forget([pack_id(pack) for pack in packs])
        gone = {pack_id(pack) for pack in packs}
        self.packs = {key: value for key, value in self.packs.items() if value.id not in gone}
        self.places = {key: value for key, value in self.places.items() if value.id not in gone}
        self.segments = {key: value - gone for key, value in self.segments.items()}

    @rule(segment=st.sampled_from(["a", "b"]), packs=st.sets(PACKS, max_size=3))
    def mark(self, segment, packs):
        self.index.mark_segment(segment, [pack_id(pack) for pack in packs])
        known = {self.packs[pack].id for pack in packs if pack in self.packs}
        self.segments[segment] = self.segments.get(segment, set()) | known

    @rule(segment=st.sampled_from(["a", "b"]))
    def unmark(self, segment):
        self.index.forget_segment(segment)
        self.segments.pop(segment, None)

    @rule()
    def reopen(self):
        self.index.close()
        self.index = LocalIndex.open(self.folder, REPOSITORY)
        assert not self.index.fresh

    @rule()
    def clear(self):
        self.index.clear()
        self.places, self.packs, self.segments = {}, {}, {}

    @invariant()
    def agrees(self):
        if not hasattr(self, "index"):
            return
        found = self.index.find(POOL)
        for chunk, location in zip(POOL, found, strict=True):
            pack = self.places.get(chunk)
            if pack is None:
                assert location is None
            else:
                assert (location.record, location.start, location.size) == locations(pack)[chunk]
        assert dict(self.index.iterate()) == {c: x for c, x in zip(POOL, found, strict=True) if x is not None}
        listed = set().union(*self.segments.values()) if self.segments else set()
        assert {p for p, _, _, _ in self.index.packs()} == {p.id for p in self.packs.values()}
        assert {p for p, _, _, segmented in self.index.packs() if segmented} == listed
        assert self.index.segments() == set(self.segments)

    def teardown(self):
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)


IndexAgainstDict.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestIndexAgainstDict = IndexAgainstDict.TestCase
