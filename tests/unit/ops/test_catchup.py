"""A snapshot moved forward by slices and by a server's own log, or refused with the reason."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.timeline import Timeline
from dedupstore.errors import NotFoundError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.catchup import caught_up, newest_base
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import Position
from dedupstore.testing.oplog.fuzzy import Reader, exact
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.model import VIEWS
from tests.support.generated import SERVER, place, put_base, put_slices
from tests.support.listserver import ListServer
from tests.support.repos import create, run

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


@pytest.mark.parametrize("fuzzy", [False, True])
def test_a_log_that_was_taken_back(repo: Repository, tmp_path: Path, fuzzy: bool) -> None:
    base = Reader(HISTORY, 1).scan(BASE - 40, BASE) if fuzzy else exact(HISTORY, BASE)
    put_base(repo, tmp_path, HISTORY, base)
    other = server(0, 300)
    del other.entries[BASE]
    assert f"taken back operation {place(HISTORY, BASE).ts}" in refused(repo, other)


def test_a_fuzzy_snapshot_and_a_log_that_ends_before_it_did(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, Reader(HISTORY, 1).scan(BASE - 40, BASE))
    assert f"does not have operation {place(HISTORY, BASE).ts}" in refused(repo, server(0, BASE - 1))


def test_only_a_snapshot_of_the_same_collections_is_moved(repo: Repository, tmp_path: Path) -> None:
    put_base(repo, tmp_path, HISTORY, exact(HISTORY, BASE))
    timeline = Timeline(repo, repo.snapshots())
    assert newest_base(timeline, "shop") is None
    assert newest_base(timeline, "") is not None
    assert isinstance(timeline.bases[0].span.end, Position)
