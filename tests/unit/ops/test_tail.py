"""Following a log that lies in memory: slices, holes, rollbacks, trouble on the way."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.runs import entries_of_run
from dedupstore.documents.slices import SliceFacts, entries_in
from dedupstore.documents.timeline import Timeline
from dedupstore.errors import AccessError, DedupstoreError, SourceError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops import tail as tails
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.ops.tail import Tail, TailOptions, TailResult
from dedupstore.progress import NullReporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.position import Position
from dedupstore.testing.stores import WRITES, FaultyStore
from tests.support.generated import put_collections
from tests.support.listserver import ListServer
from tests.support.repos import OPTIONS, create, reopen
from tests.unit.documents.log_samples import SERVER, at, entry, log, positions
from tests.unit.export.views import Listed


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "PAUSES", (0.001,))
    monkeypatch.setattr(tails, "PAUSE", 0.001)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path) as made:
        yield made


@dataclass
class Heard:
    slices: list[SliceFacts] = field(default_factory=list)
    breaks: list[str] = field(default_factory=list)
    errors: list[DedupstoreError] = field(default_factory=list)

    def began(self, start: Position, *, exact: bool) -> None:
        pass

    def stored(self, facts: SliceFacts, size: int, result: BackupResult) -> None:
        self.slices.append(facts)

    def broke(self, sentence: str) -> None:
        self.breaks.append(sentence)

    def waits(self, error: DedupstoreError, seconds: float) -> None:
        self.errors.append(error)


def follow(
    repo: Repository, server: ListServer, *, heard: Heard | None = None, **options: object
) -> TailResult:
    """Follow until the steps are used up, then stop."""
    tail = Tail(
        repo,
        server,
        TailOptions(OPTIONS, **options),
        heard or Heard(),
        NullReporter(),
        SYSTEM_CLOCK,  # type: ignore[arg-type]
    )
    server.steps.append(tail.stop)
    return tail.run()


def grow(server: ListServer, first: int, last: int) -> None:
    server.entries += log(first, last)


def line(repo: Repository) -> Timeline:
    return Timeline(repo, repo.snapshots())


def archived(repo: Repository) -> list[list[Position]]:
    """What is archived, stretch by stretch."""
    return [
        positions(entries_of_run(lambda one: entries_in(repo, one.node), run, run.start.ts, run.end.ts))
        for run in line(repo).runs
    ]


def test_what_is_there_and_what_comes(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    server.steps = [lambda: server.entries.extend(log(10, 14))]
    result = follow(repo, server, heard=(heard := Heard()))
    # Nothing was archived and no snapshot is there, so what lies behind us is of no use.
    assert archived(repo) == [[at(n) for n in range(9, 15)]]
    assert (result.slices, result.entries, result.until) == (1, 6, at(14))
    assert [facts.why for facts in heard.slices] == ["the first slice of this log"]


def test_it_goes_on_where_it_ended_and_says_so(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    follow(repo, server)
    server.entries.extend(log(10, 19))
    heard = Heard()
    follow(repo, server, heard=heard)
    assert heard.slices[0].proven
    assert heard.slices[0].start == at(9)
    assert archived(repo) == [[at(n) for n in range(9, 20)]]


def test_nothing_new_stores_nothing(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    follow(repo, server)
    before = repo.snapshots()
    result = follow(repo, server)
    assert result.slices == 0
    assert result.until == at(9)
    assert repo.snapshots() == before


def test_slices_end_by_size_and_join(repo: Repository) -> None:
    server = ListServer(log(0, 0))
    server.steps = [partial(grow, server, first, first + 4) for first in range(1, 31, 5)]
    heard = Heard()
    follow(repo, server, heard=heard, max_size=len(entry(at(0).ts, text="1/0")) * 8)
    assert len(heard.slices) > 2
    assert all(facts.proven for facts in heard.slices[1:])
    assert archived(repo) == [[at(n) for n in range(31)]]


def test_slices_end_by_time(repo: Repository) -> None:
    server = ListServer(log(0, 0))
    server.steps = [lambda: server.entries.extend(log(1, 3)), lambda: server.entries.extend(log(4, 5))]
    result = follow(repo, server, every=0.0)
    assert result.slices == 3
    assert archived(repo) == [[at(n) for n in range(6)]]


def test_once_stores_what_is_there_and_ends(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    result = Tail(repo, server, TailOptions(OPTIONS, once=True), Heard(), NullReporter(), SYSTEM_CLOCK).run()
    assert result.until == at(9)
    server.entries.extend(log(10, 12))
    Tail(repo, server, TailOptions(OPTIONS, once=True), Heard(), NullReporter(), SYSTEM_CLOCK).run()
    assert archived(repo) == [[at(n) for n in range(9, 13)]]


def test_asked_to_finish_it_reads_what_there_is_by_then(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    tail = Tail(repo, server, TailOptions(OPTIONS), Heard(), NullReporter(), SYSTEM_CLOCK)

    def finish() -> None:
        tail.finish()
        server.entries += log(10, 19)

    server.steps = [finish]
    assert tail.run().until == at(19)
    assert archived(repo) == [[at(n) for n in range(9, 20)]]


def test_asked_to_finish_it_does_not_wait_for_what_never_comes(repo: Repository) -> None:
    server = ListServer(log(0, 9), counted=at(15))
    tail = Tail(repo, server, TailOptions(OPTIONS), Heard(), NullReporter(), SYSTEM_CLOCK)
    server.steps = [lambda: None, tail.finish, lambda: None]
    assert tail.run().slices == 0


def test_asked_to_finish_it_has_so_many_seconds(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """More comes all the time, faster than it is read."""
    monkeypatch.setattr(tails, "LAST", 0.0)
    server = ListServer(log(0, 9))
    tail = Tail(repo, server, TailOptions(OPTIONS), Heard(), NullReporter(), SYSTEM_CLOCK)

    def finish() -> None:
        tail.finish()
        server.counted = at(99)

    server.steps = [finish, lambda: grow(server, 10, 12), lambda: pytest.fail("it goes on")]
    assert tail.run().until == at(9)


def test_asked_to_finish_while_the_server_is_away_it_stores_what_was_read(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    heard = Heard()
    tail = Tail(repo, server, TailOptions(OPTIONS), heard, NullReporter(), SYSTEM_CLOCK)

    def fail() -> None:
        tail.finish()
        raise SourceError("the connection was lost", transient=True)

    server.steps = [lambda: server.entries.extend(log(10, 12)), fail]
    assert tail.run().until == at(12)
    assert not heard.errors


def test_a_log_that_was_thrown_away_leaves_a_hole_that_is_said(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    follow(repo, server)
    server.entries = log(20, 29)
    heard = Heard()
    follow(repo, server, heard=heard)
    assert "a hole in the log: 1000:10 is no longer there, it begins at 1002:1" in heard.breaks[0]
    assert archived(repo) == [[at(9)], [at(29)]]
    assert line(repo).runs[1].why_begins == "the log no longer had 1000:10; it began at 1002:10"


def test_a_rollback_is_cut_at_the_common_point(repo: Repository) -> None:
    server = ListServer(log(0, 9))
    server.steps = [lambda: server.entries.extend(log(10, 19))]
    follow(repo, server)
    server.entries = [*log(0, 14), *log(15, 24, term=2)]
    heard = Heard()
    follow(repo, server, heard=heard)
    (said,) = heard.breaks
    assert "took back what it had written after 1001:5, up to 1001:10 of term 1" in said
    assert archived(repo) == [[*(at(n) for n in range(9, 15)), *(at(n, 2) for n in range(15, 25))]]
    assert len(line(repo).runs[0].notes) == 1


def test_a_rollback_while_following_stores_first_what_was_read(repo: Repository) -> None:
    server = ListServer(log(0, 9))

    def fail() -> None:
        server.entries = [*log(0, 9), *log(10, 11, term=2)]
        raise SourceError("the connection was lost", transient=True)

    server.steps = [lambda: server.entries.extend(log(10, 19)), fail]
    heard = Heard()
    follow(repo, server, heard=heard)
    assert archived(repo) == [[at(9), at(10, 2), at(11, 2)]]
    assert len(heard.errors) == 1
    assert len(heard.slices) == 2


def test_a_lost_connection_is_waited_out_and_nothing_comes_twice(repo: Repository) -> None:
    server = ListServer(log(0, 9))

    def fail() -> None:
        raise SourceError("the connection was lost", transient=True)

    server.steps = [
        lambda: server.entries.extend(log(10, 12)),
        fail,
        lambda: server.entries.extend(log(13, 15)),
    ]
    heard = Heard()
    result = follow(repo, server, heard=heard)
    assert len(heard.errors) == 1
    assert result.slices == 1
    assert archived(repo) == [[at(n) for n in range(9, 16)]]


def test_what_can_not_be_waited_out_ends_it_after_storing_what_was_read(repo: Repository) -> None:
    server = ListServer(log(0, 9))

    def refuse() -> None:
        raise AccessError("the user may not: give the role backup")

    server.steps = [lambda: server.entries.extend(log(10, 12)), refuse]
    with pytest.raises(AccessError):
        follow(repo, server)
    assert archived(repo) == [[at(n) for n in range(9, 13)]]


def test_where_a_snapshot_is_the_log_begins_with_it(repo: Repository, tmp_path: Path) -> None:
    put_collections(
        repo, tmp_path, [Listed(CollectionInfo("shop", "orders"))], ends=(at(3), at(5)), options=SERVER
    )
    server = ListServer(log(0, 9))
    follow(repo, server)
    assert archived(repo) == [[at(n) for n in range(3, 10)]]
    assert [(one.start, one.end) for one in line(repo).ranges()] == [(at(5).ts, at(9).ts)]


def test_a_log_that_reaches_no_snapshot_is_said_at_once(repo: Repository, tmp_path: Path) -> None:
    shown = [Listed(CollectionInfo("shop", "orders"))]
    put_collections(repo, tmp_path, shown, ends=(at(3), at(5)), options=SERVER)
    server = ListServer(log(20, 29))
    heard = Heard()
    follow(repo, server, heard=heard)
    assert "no longer reaches back to a snapshot" in heard.breaks[0]
    assert archived(repo) == [[at(29)]]


@pytest.mark.parametrize("after_effect", [False, True])
def test_a_store_that_fails_once_costs_nothing(tmp_path: Path, after_effect: bool) -> None:
    memory = MemoryStore()
    create(memory, tmp_path / "made").close()
    for number in range(1, 30):
        store = FaultyStore(memory, fail_at=number, only=WRITES, after_effect=after_effect)
        with reopen(store, tmp_path / "cache") as repo:
            server = ListServer(log(0, 9 * number))
            server.steps = [partial(grow, server, 9 * number + 1, 9 * number + 8)]
            heard = Heard()
            result = follow(repo, server, heard=heard, every=0.0)
            assert result.until == at(9 * number + 8)
            (stretch,) = archived(repo)
            assert stretch == [at(n) for n in range(9, 9 * number + 9)]
        if not store.failures:
            return
    pytest.fail("there is no end to it")
