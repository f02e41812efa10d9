"""A snapshot moved forward by slices and by a server's own log, or refused with the reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.timeline import Timeline
from dedupstore.errors import NotFoundError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.catchup import caught_up, is_stored, newest_base
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.position import NO_TERM, Position, Ts
from dedupstore.testing.oplog.fuzzy import Reader, exact
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.model import VIEWS
from tests.support.generated import SERVER, place, put_base, put_collections, put_slices
from tests.support.listserver import ListServer
from tests.support.repos import create, run
from tests.unit.documents.log_samples import at, log
from tests.unit.export.views import Listed

HISTORY = History(3, 700)
BASE = 100


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path / "cache") as made:
        yield made


def server(first: int, last: int) -> ListServer:
    """A server whose log has these entries; nothing more comes."""
    found = ListServer(HISTORY.entries[first : last + 1], options=dict(SERVER))
    found.steps = [lambda: None] * 20
    return found


def check(repo: Repository, whose: ListServer, index: int) -> None:
    """The snapshot that is made by the log is what the server held then."""
    timeline = Timeline(repo, repo.snapshots())
    base = newest_base(timeline, "")
    assert base is not None
    with caught_up(repo, timeline, base, whose) as view:
        found = {(one.info.db, one.info.name): sorted(one.documents()) for one in view.collections()}
        result = run(repo, AdvancedSource(view))
    wanted = {
        name: sorted(one.documents.values())
        for name, one in HISTORY.state(index).described().items()
        if name[1] != VIEWS
    }
    assert found == wanted
    assert not result.findings
    assert newest_base(Timeline(repo, repo.snapshots()), "").end == place(HISTORY, index).ts  # type: ignore[union-attr]


@pytest.mark.parametrize("fuzzy", [False, True])
def test_by_the_servers_own_log(repo: Repository, tmp_path: Path, fuzzy: bool) -> None:
    base = Reader(HISTORY, 1).scan(BASE - 40, BASE) if fuzzy else exact(HISTORY, BASE)
    put_base(repo, tmp_path, HISTORY, base)
    check(repo, server(0, 300), 300)
    check(repo, server(120, 400), 400)


def test_by_slices_and_what_came_after_them(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, exact(HISTORY, BASE))
    put_slices(repo, HISTORY, BASE - 20, 200, number=3)
    check(repo, server(200, 300), 300)
    check(repo, server(300, 300), 300)


def refused(repo: Repository, whose: ListServer) -> str:
    timeline = Timeline(repo, repo.snapshots())
    base = newest_base(timeline, "")
    assert base is not None
    with pytest.raises(NotFoundError) as caught, caught_up(repo, timeline, base, whose):
        pass
    return str(caught.value)


def test_a_log_that_no_longer_reaches_back(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, exact(HISTORY, BASE))
    assert f"no longer has operation {place(HISTORY, BASE).ts}" in refused(repo, server(BASE + 1, 300))
    put_slices(repo, HISTORY, BASE, 200)
    assert f"no longer has operation {place(HISTORY, 200).ts}" in refused(repo, server(201, 300))


def in_term(entry: bytes, term: int) -> bytes:
    """The same entry as written by another primary; one without a term is left as it is."""
    found = raw.field(entry, b"t")
    return entry if found is None else entry[: found.start] + raw.int64(term) + entry[found.end :]


@pytest.mark.parametrize("fuzzy", [False, True])
def test_a_log_that_was_taken_back(repo: Repository, tmp_path: Path, fuzzy: bool) -> None:
    base = Reader(HISTORY, 1).scan(BASE - 40, BASE) if fuzzy else exact(HISTORY, BASE)
    put_base(repo, tmp_path, HISTORY, base)
    other = server(0, 300)
    other.entries[BASE:] = [in_term(entry, 99) for entry in other.entries[BASE + 1 :]]
    assert f"has taken back operation {place(HISTORY, BASE).ts}" in refused(repo, other)


@pytest.mark.parametrize("term", [NO_TERM, 1])
@pytest.mark.parametrize("news", [False, True])
def test_a_place_need_not_be_an_entry(repo: Repository, tmp_path: Path, news: bool, term: int) -> None:
    """Some servers count on without writing anything."""
    shown = [Listed(CollectionInfo("shop", "orders"))]
    counted = Position(Ts(at(5).ts.seconds, 7_000), term)
    put_collections(repo, tmp_path, shown, ends=(counted, counted), options=SERVER)
    entries = [in_term(one, term) for one in log(0, 29 if news else 5)]
    whose = ListServer(entries, options=dict(SERVER), counted=counted)
    whose.steps = [lambda: None] * 20
    timeline = Timeline(repo, repo.snapshots())
    base = newest_base(timeline, "")
    assert base is not None
    with caught_up(repo, timeline, base, whose) as view:
        assert view.collapsed.position == (Position(at(29).ts, term) if news else None)


def test_a_server_that_is_not_as_far_as_the_snapshot(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, Reader(HISTORY, 1).scan(BASE - 40, BASE))
    assert f"does not have operation {place(HISTORY, BASE).ts}" in refused(repo, server(0, BASE - 1))


def test_by_what_is_stored_alone(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, exact(HISTORY, BASE))
    timeline = Timeline(repo, repo.snapshots())
    base = newest_base(timeline, "")
    assert base is not None
    assert not is_stored(timeline, base)
    with pytest.raises(NotFoundError, match="is not stored"), caught_up(repo, timeline, base, None):
        pass
    put_slices(repo, HISTORY, BASE, 200)
    timeline = Timeline(repo, repo.snapshots())
    assert is_stored(timeline, base)
    with caught_up(repo, timeline, base, None) as view:
        assert view.at == place(HISTORY, 200).ts


def test_only_a_snapshot_of_the_same_collections_is_moved(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, exact(HISTORY, BASE))
    timeline = Timeline(repo, repo.snapshots())
    assert newest_base(timeline, "shop") is None
    assert newest_base(timeline, "") is not None
    assert isinstance(timeline.bases[0].span.end, Position)
