"""Slices: cut with proof, stored on top of each other, found again."""

from pathlib import Path

import msgspec
import pytest

from dedupstore.documents.cutting import Cut
from dedupstore.documents.slices import entries_in, slice_facts, slice_name, slices_in
from dedupstore.documents.timeline import Timeline
from dedupstore.errors import FormatError, ObjectDamaged, SourceError, UsageError
from dedupstore.ids import ChunkId
from dedupstore.model import Node
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.sources.oplog.position import Ts
from tests.support.repos import create, files_in, reopen
from tests.unit.documents.log_samples import at, cut, entry, log, positions, store


def test_each_commit_adds_one_file_and_reads_no_other_again(tmp_path: Path) -> None:
    memory = MemoryStore()
    with create(memory, tmp_path) as repo:
        store(repo, cut(log(0, 20), None))
        store(repo, cut(log(20, 40), at(20)))
        store(repo, cut(log(40, 60), at(40)))
    with reopen(memory, tmp_path / "elsewhere") as repo:  # nothing remembered of the earlier runs
        repo.sync()
        store(repo, cut(log(60, 61), at(60)))
        found = slices_in(repo, repo.snapshots())
        assert [len(list(entries_in(repo, one.node))) for one in found] == [21, 21, 21, 2]
        assert [one.facts.proven for one in found] == [False, True, True, True]
        assert found[0].facts.why
        assert not found[1].facts.why
        last = repo.snapshots()[-1][1]
        assert last.position == at(61).pack()
        assert last.statistics.chunks_new <= 3
        assert files_in(repo, last)[b"/" + slice_name(at(20).ts, at(40).ts)] == b"".join(log(20, 40))


def test_a_snapshot_of_slices_is_of_the_time_of_its_last_entry(tmp_path: Path) -> None:
    with create(MemoryStore(), tmp_path) as repo:
        store(repo, cut([entry(Ts(1000, 1), wall=1_000_250)], None))
        assert repo.snapshots()[0][1].time.timestamp() == pytest.approx(1000.25)


def test_a_first_entry_that_is_another_one_proves_nothing() -> None:
    with cut(log(25, 30), at(20)) as hole:
        assert not hole.facts.proven
        assert str(at(20).ts) in hole.facts.why
        assert str(at(25).ts) in hole.facts.why
    with cut(log(20, 30, term=2), at(20)) as taken_back:
        assert not taken_back.facts.proven
        assert "term 2" in taken_back.facts.why


def test_what_was_taken_back_is_said_though_the_slice_is_proven() -> None:
    with cut([*log(15, 15), *log(16, 30, term=2)], at(15), note="1001:7 to 1002:1 were taken back") as made:
        assert made.facts.proven
        assert made.facts.why == "1001:7 to 1002:1 were taken back"


def test_only_the_overlap_is_no_news() -> None:
    with cut(log(20, 20), at(20)) as made:
        assert not made.news
        made.add(log(21, 21)[0])
        assert made.news
        assert made.end == at(21)


def test_entries_that_go_back_end_the_slice() -> None:
    with cut(log(20, 21), at(20)) as made, pytest.raises(SourceError, match="1002:1 after 1002:2"):
        made.add(log(20, 20)[0])


def test_an_empty_slice_is_refused() -> None:
    with Cut(None) as made, pytest.raises(UsageError):
        _ = made.facts


def test_a_large_slice_lies_in_a_file_and_comes_back_whole(tmp_path: Path) -> None:
    with create(MemoryStore(), tmp_path) as repo:
        entries = [entry(Ts(5, n), text="x" * 9000) for n in range(1, 1200)]
        store(repo, cut(entries, None))
        (one,) = slices_in(repo, repo.snapshots())
        assert list(entries_in(repo, one.node)) == entries


def test_two_tails_side_by_side_lose_nothing(tmp_path: Path) -> None:
    with create(MemoryStore(), tmp_path) as repo:
        store(repo, cut(log(0, 20), None))
        seen = repo.snapshots()
        store(repo, cut(log(20, 40), at(20)))
        store(repo, cut(log(20, 35), at(20)), above=seen)  # did not know of the other one
        names = [one.node.name for one in slices_in(repo, repo.snapshots())]
        assert names == [slice_name(at(a).ts, at(b).ts) for a, b in ((0, 20), (20, 35), (20, 40))]
        timeline = Timeline(repo, repo.snapshots())
        (whole,) = timeline.runs
        assert (whole.start, whole.end) == (at(0), at(40))
        assert positions(timeline.entries(at(0).ts, at(40).ts)) == [at(n) for n in range(1, 41)]


def test_a_node_that_says_nothing_sensible_is_damage(tmp_path: Path) -> None:
    def node(values: object) -> Node:
        return Node(b"x", 8, extra={"oplog": msgspec.msgpack.encode(values)})

    assert slice_facts(Node(b"x", 8, content=ChunkId(b""))) is None
    good = [1, at(1).pack(), at(2).pack(), 2, True, "", 0]
    assert slice_facts(node(good)) is not None
    for bad in ([], [1], 7, [1, b"short", *good[2:]], [*good[:3], "two", *good[4:]]):
        with pytest.raises(ObjectDamaged):
            slice_facts(node(bad))
    with pytest.raises(FormatError):
        slice_facts(node([2, *good[1:]]))
