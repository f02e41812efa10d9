"""Which instants can be had, and with which entries: unions of slices, holes, rollbacks, moments."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.documents.moments import Moment
from dedupstore.documents.runs import entries_of_run, runs_of
from dedupstore.documents.slices import Slice, SliceFacts, slice_extra, slice_name
from dedupstore.documents.timeline import Timeline, lineage, timelines
from dedupstore.errors import IntegrityError, NotFoundError, UsageError
from dedupstore.model import Node, SourceSpec
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import Position, Ts
from tests.support.repos import create
from tests.unit.documents.log_samples import at, base, cut, entry, log, positions, store


def piece(
    entries: Sequence[bytes], after: Position | None, *, note: str = ""
) -> tuple[Slice, Sequence[bytes]]:
    with cut(entries, after, note=note) as made:
        facts: SliceFacts = made.facts
    name = slice_name(facts.start.ts, facts.end.ts)
    return Slice(facts, Node(name, 8, extra=slice_extra(facts))), entries


def read_back(
    pieces: Iterable[tuple[Slice, Sequence[bytes]]], first: int, last: int, term: int = 1
) -> list[bytes]:
    pieces = list(pieces)
    content = {one.node.name: entries for one, entries in pieces}
    (run,) = [
        run
        for run in runs_of(one for one, _ in pieces)
        if run.start.ts <= at(first).ts and at(last, term).ts <= run.end.ts
    ]
    return list(entries_of_run(lambda one: iter(content[one.node.name]), run, at(first).ts, at(last).ts))


def test_slices_that_share_an_entry_are_one_run_and_each_entry_comes_once() -> None:
    pieces = [piece(log(0, 10), None), piece(log(10, 20), at(10)), piece(log(20, 30), at(20))]
    assert read_back(pieces, 0, 30) == log(0, 30)
    assert read_back(pieces, 5, 25) == log(5, 25)
    assert read_back(pieces, 10, 20) == log(10, 20)
    assert read_back(pieces, 11, 11) == log(11, 11)


def test_a_hole_parts_two_runs_and_says_why() -> None:
    runs = runs_of(one for one, _ in [piece(log(0, 10), None), piece(log(15, 20), at(10))])
    assert [(run.start, run.end) for run in runs] == [(at(0), at(10)), (at(15), at(20))]
    assert str(at(15).ts) in runs[1].why_begins


def test_after_a_rollback_the_later_term_counts_from_the_common_entry() -> None:
    new = [*log(15, 15), *log(16, 18, term=2)]
    pieces = [piece(log(0, 10), None), piece(log(10, 20), at(10)), piece(new, at(15), note="taken back")]
    assert read_back(pieces, 0, 18, term=2) == log(0, 15) + log(16, 18, term=2)
    (run,) = runs_of(one for one, _ in pieces)
    assert run.notes == ["taken back"]
    # And it goes on from there.
    pieces.append(piece([*log(18, 18, term=2), *log(19, 25, term=2)], at(18, 2)))
    assert read_back(pieces, 0, 25, term=2) == log(0, 15) + log(16, 25, term=2)


def test_a_rollback_whose_common_entry_nobody_saw_parts_the_runs() -> None:
    runs = runs_of(one for one, _ in [piece(log(0, 20), None), piece(log(20, 30, term=2), at(20))])
    assert len(runs) == 2
    assert "term 2" in runs[1].why_begins


def test_slices_that_only_claim_to_meet_are_damage() -> None:
    first, second = piece(log(0, 10), None), piece(log(10, 20), at(10))
    with pytest.raises(IntegrityError, match="do not meet"):
        read_back([(first[0], log(0, 9)), second], 0, 20)
    with pytest.raises(IntegrityError, match="do not meet"):
        read_back([first, (second[0], [entry(at(10).ts, text="other"), *log(11, 20)])], 0, 20)


def test_entries_of_one_timestamp_may_be_cut_apart() -> None:
    same = [entry(Ts(1001, 1), text=str(n)) for n in range(6)]
    ahead = [entry(Ts(1000, 1))]
    pieces = [piece(ahead + same[:4], None), piece([*same, entry(Ts(1002, 1))], Position(Ts(1001, 1), 1))]
    content = {one.node.name: entries for one, entries in pieces}
    (run,) = runs_of(one for one, _ in pieces)
    found = list(entries_of_run(lambda one: iter(content[one.node.name]), run, Ts(0, 0), Ts(2000, 0)))
    assert found == [*ahead, *same, entry(Ts(1002, 1))]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=8),
    st.integers(0, 80), st.integers(0, 80),
)  # fmt: skip
def test_whatever_was_read_is_there_and_nothing_else_is_claimed(
    spans: list[tuple[int, int]], first: int, last: int
) -> None:
    """Tails at any places: a run is what the union of ranges is, where ranges share an entry."""
    covered: set[int] = set()
    pieces = []
    for start, length in spans:
        pieces.append(piece(log(start, start + length), at(start) if start in covered else None))
        covered |= set(range(start, start + length + 1))
    # Ranges join where they share an entry; [0..4] and [5..9] do not, though nothing lies in between.
    joins = {n for start, length in spans for n in range(start, start + length)}
    content = {one.node.name: entries for one, entries in pieces}
    first, last = min(first, last), max(first, last)
    fitting = [
        run for run in runs_of(one for one, _ in pieces)
        if run.start.ts <= at(first).ts and at(last).ts <= run.end.ts
    ]  # fmt: skip
    assert bool(fitting) == ({*range(first, last)} <= joins and {first, last} <= covered)
    for run in fitting:
        found = entries_of_run(lambda one: iter(content[one.node.name]), run, at(first).ts, at(last).ts)
        assert list(found) == log(first, last)


@pytest.fixture
def repo(tmp_path: Path) -> Iterable[Repository]:
    with create(MemoryStore(), tmp_path) as made:
        yield made


def timeline_of(repo: Repository, *bases: tuple[int, int]) -> Timeline:
    made = [base(repo, 100 + n, at(start), at(end)) for n, (start, end) in enumerate(bases)]
    return Timeline(repo, [*repo.snapshots(), *made])


def test_a_tail_that_began_where_no_entry_is_proves_all_behind_that_place(repo: Repository) -> None:
    """Some servers count on without writing; a snapshot's position may be such a place."""
    place = Position(Ts(1000, 500), 1)
    store(repo, cut(log(10, 30), None, since=place))
    (run,) = Timeline(repo, repo.snapshots()).runs
    assert (run.start, run.end) == (place, at(30))
    timeline = Timeline(repo, [*repo.snapshots(), base(repo, 9, place, place)])
    assert list(timeline.choose(Moment.upto(at(12).ts)).entries()) == log(10, 12)
    assert list(timeline.entries(place.ts, at(11).ts)) == log(10, 11)
    (interval,) = timeline.ranges()
    assert interval.start == place.ts


def test_a_tail_that_began_behind_what_is_known_joins_it_without_a_common_entry(repo: Repository) -> None:
    before, after = piece(log(0, 19), None), piece(log(30, 40), None)
    until = Position(Ts(1002, 500), 1)
    own = Slice(replace(before[0].facts, until=until), before[0].node)
    tail = Slice(replace(after[0].facts, since=until), after[0].node)
    content = {own.node.name: before[1], tail.node.name: after[1]}
    (run,) = runs_of([tail, own])
    assert (run.start, run.end) == (at(0), at(40))
    found = entries_of_run(lambda one: iter(content[one.node.name]), run, at(5).ts, at(33).ts)
    assert list(found) == [*log(5, 19), *log(30, 33)]
    assert len(runs_of([before[0], tail])) == 2  # nothing says that there is nothing in between


def test_a_tail_that_began_in_the_middle_of_what_is_known_takes_over_there(repo: Repository) -> None:
    place = Position(Ts(1001, 500), 1)
    before, after = piece(log(0, 30), None), piece(log(20, 40), None)
    tail = Slice(replace(after[0].facts, since=place), after[0].node)
    content = {before[0].node.name: before[1], tail.node.name: after[1]}
    (run,) = runs_of([tail, before[0]])
    found = entries_of_run(lambda one: iter(content[one.node.name]), run, at(5).ts, at(33).ts)
    assert list(found) == log(5, 33)
    found = entries_of_run(lambda one: iter(content[one.node.name]), run, at(5).ts, at(12).ts)
    assert list(found) == log(5, 12)


def test_the_newest_base_that_had_ended_is_taken(repo: Repository) -> None:
    store(repo, cut(log(0, 50), None))
    timeline = timeline_of(repo, (5, 5), (20, 28))
    early = timeline.choose(Moment.upto(at(27).ts))
    assert (early.base.end, early.after, early.fuzzy_until) == (at(5).ts, at(5).ts, None)
    assert list(early.entries()) == log(5, 27)
    late = timeline.choose(Moment.upto(at(28).ts))
    assert (late.base.end, late.after, late.fuzzy_until) == (at(28).ts, at(20).ts, at(28).ts)
    assert list(late.entries()) == log(20, 28)
    assert list(late.entries()) == log(20, 28)  # again


def test_before_an_operation_leaves_it_out(repo: Repository) -> None:
    store(repo, cut(log(0, 50), None))
    timeline = timeline_of(repo, (5, 5))
    assert list(timeline.choose(Moment.before(at(27).ts)).entries()) == log(5, 26)
    with pytest.raises(NotFoundError):
        timeline.choose(Moment.before(at(5).ts))


def test_a_time_of_day_takes_the_whole_second_or_up_to_the_millisecond(repo: Repository) -> None:
    store(repo, cut(log(0, 25), None))
    store(repo, cut(log(25, 55), at(25)))
    timeline = timeline_of(repo, (5, 5))

    def had(when: float) -> list[bytes]:
        chosen = timeline.choose(Moment.at_time(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=when)))
        return list(chosen.entries())

    assert had(1002) == log(5, 29)
    assert had(1001.004) == log(5, 13)  # entry n of a second has n + 1 for milliseconds
    assert had(1002.008) == log(5, 27)
    assert had(1005.006) == log(5, 55)
    with pytest.raises(NotFoundError, match="known until 1005:6"):
        had(1005)  # more of this second may come
    with pytest.raises(NotFoundError, match="known until"):
        had(1005.007)


def test_before_the_first_base_the_earliest_instant_is_named(repo: Repository) -> None:
    store(repo, cut(log(0, 50), None))
    timeline = timeline_of(repo, (20, 28))
    with pytest.raises(NotFoundError, match=str(at(28).ts)) as caught:
        timeline.choose(Moment.upto(at(10).ts))
    assert caught.value.data["earliest"] == at(28).ts


@pytest.mark.parametrize("exclusive", [False, True])
def test_in_the_second_of_the_first_base_the_earliest_instant_is_named_too(
    repo: Repository, exclusive: bool
) -> None:
    """Whether what the base holds had happened by that millisecond nobody knows."""
    store(repo, cut(log(4, 40), None))
    line = Timeline(repo, [*repo.snapshots(), base(repo, 9, at(4), at(4))])
    early = datetime.fromtimestamp(1000, UTC) + timedelta(milliseconds=3)
    moment = Moment.before(at(4).ts) if exclusive else Moment.at_time(early)
    with pytest.raises(NotFoundError, match=f"the earliest instant is {at(4).ts}") as caught:
        line.choose(moment)
    assert caught.value.data["earliest"] == at(4).ts


def test_in_a_hole_both_ends_are_named(repo: Repository) -> None:
    store(repo, cut(log(0, 20), None))
    store(repo, cut(log(30, 60), at(20)))
    timeline = timeline_of(repo, (5, 5), (35, 40))
    assert [(one.start, one.end) for one in timeline.ranges()] == [
        (at(5).ts, at(20).ts),
        (at(40).ts, at(60).ts),
    ]
    assert "no longer had" in timeline.ranges()[0].why_ends
    for number in (25, 33, 39):  # in the hole of the log, and before the base behind it had ended
        with pytest.raises(NotFoundError, match="hole") as caught:
            timeline.choose(Moment.upto(at(number).ts))
        assert (caught.value.data["before"], caught.value.data["after"]) == (at(20).ts, at(40).ts)
    assert list(timeline.choose(Moment.upto(at(40).ts)).entries()) == log(35, 40)


def test_a_base_across_a_hole_is_no_base(repo: Repository) -> None:
    store(repo, cut(log(0, 20), None))
    store(repo, cut(log(30, 60), at(20)))
    timeline = timeline_of(repo, (15, 35))
    assert timeline.ranges() == []
    with pytest.raises(NotFoundError):
        timeline.choose(Moment.upto(at(40).ts))


def test_an_exact_base_needs_no_log_for_its_own_moment(repo: Repository) -> None:
    timeline = timeline_of(repo, (7, 7))
    chosen = timeline.choose(Moment.upto(at(7).ts))
    assert list(chosen.entries()) == []
    (only,) = timeline.ranges()
    assert (only.start, only.end) == (at(7).ts, at(7).ts)
    with pytest.raises(NotFoundError, match="known until"):
        timeline.choose(Moment.upto(at(8).ts))


def test_only_bases_that_hold_what_is_wanted_are_taken(repo: Repository) -> None:
    store(repo, cut(log(0, 50), None))
    timeline = timeline_of(repo, (5, 5), (20, 20))
    chosen = timeline.choose(Moment.upto(at(30).ts), covers=lambda snapshot: snapshot.sequence == 100)
    assert chosen.base.span.start == at(5)


def test_without_a_base_nothing_is_offered(repo: Repository) -> None:
    store(repo, cut(log(0, 50), None))
    timeline = timeline_of(repo)
    assert timeline.ranges() == []
    assert timeline.last == at(50)
    with pytest.raises(NotFoundError, match="no snapshot"):
        timeline.choose(Moment.upto(at(5).ts))


def test_entries_across_a_hole_are_refused(repo: Repository) -> None:
    store(repo, cut(log(0, 20), None))
    store(repo, cut(log(30, 60), at(20)))
    timeline = timeline_of(repo)
    assert positions(timeline.entries(at(3).ts, at(9).ts)) == [at(n) for n in range(4, 10)]
    with pytest.raises(NotFoundError, match="hole"):
        timeline.entries(at(15).ts, at(40).ts)


def test_sets_of_one_name_are_told_apart_by_what_each_made_for_itself() -> None:
    sets = [
        {"set": "rs0", "id": "aa"},
        {"set": "rs0", "id": "bb"},
        {"set": "rs0"},
        {"set": "rs1", "id": "aa"},
    ]
    specs = [SourceSpec("mongo", (b"/",), {"uri": "mongodb://one:27017"} | one) for one in sets]
    assert len({lineage(spec) for spec in specs}) == len(sets)
    moved = SourceSpec("mongo", (b"/",), sets[0] | {"uri": "mongodb://two:27017"})
    assert lineage(moved) == lineage(specs[0])


def test_servers_are_told_apart(repo: Repository) -> None:
    store(repo, cut(log(0, 20), None))
    found = timelines(repo, [*repo.snapshots(), base(repo, 9, at(1), at(1))])
    assert list(found) == ["rs"]
    assert len(found["rs"].bases) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1000:5", "1000:5"),
        ("2026-11-20T10:00:00.250Z", "2026-11-20T10:00:00.250Z"),
        ("@77", "1970-01-01T00:01:17Z"),
    ],
)
def test_moments_are_read_and_said(text: str, said: str) -> None:
    assert str(Moment.parse(text, datetime.now(UTC), UTC)) == said


@pytest.mark.parametrize("text", ["9999999999:1", "1:", "soon", "1960-01-01", ""])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Moment.parse(text, datetime.now(UTC), UTC)


@given(st.text(max_size=30) | st.from_regex(r"\d{1,12}:\d{1,12}"))
def test_any_words_are_a_moment_or_refused(text: str) -> None:
    try:
        moment = Moment.parse(text, datetime.now(UTC), UTC)
    except UsageError:
        return
    assert moment.includes(Ts(0, 0), 0)
    assert str(moment)


def test_nothing_of_the_log_is_held_twice() -> None:
    """Three tails over the same stretch: one run, cut where the later one takes over."""
    pieces = [piece(log(0, 30), None), piece(log(5, 20), at(5)), piece(log(12, 40), at(12))]
    (run,) = runs_of(one for one, _ in pieces)
    assert len(run.pieces) == 2
    assert list(chain(read_back(pieces, 0, 40))) == log(0, 40)
