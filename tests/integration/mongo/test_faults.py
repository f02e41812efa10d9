"""Servers that answer with errors: elections, lost cursors, history that is gone, no rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bson
import pytest

from dedupstore.documents.replay import replay
from dedupstore.errors import SourceError, TargetError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.mongo import consistency, ranges
from dedupstore.sources.mongo.catalog import Selection
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.consistency import Consistency
from dedupstore.sources.mongo.load import Loader
from dedupstore.sources.mongo.oplog import OplogTail, majority_point
from dedupstore.sources.mongo.source import MongoOptions
from dedupstore.sources.oplog.position import Position
from tests.support import live, repos, servers

COUNT = 3000
CURSOR_NOT_FOUND, STEPPED_DOWN, SHUTTING_DOWN, NETWORK = 43, 189, 91, 9001
TOO_OLD, UNAVAILABLE, UNAUTHORIZED, POSITION_LOST = 239, 246, 13, 136


@pytest.fixture(scope="module")
def faulty() -> Iterator[servers.Server]:
    with servers.secantus("--enable-test-commands") as server:
        with server.client() as client:
            client["d"]["c"].insert_many([{"_id": n, "t": "x" * 100} for n in range(COUNT)])
            client["d"]["other"].insert_one({"_id": 1})
        yield server


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    found = repos.create(MemoryStore(), tmp_path / "cache")
    yield found
    found.close()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies of a few hundred documents."""
    monkeypatch.setattr(ranges, "REPLY_TARGET", 128 << 10)


@contextmanager
def failing(server: servers.Server, command: str, mode: Any, **data: Any) -> Iterator[None]:
    """Have a command fail: ``mode`` is ``{"times": n}``, ``{"skip": n}`` or ``"alwaysOn"``."""
    point = {"configureFailPoint": "failCommand", "mode": mode, "data": {"failCommands": [command]} | data}
    with server.client() as client:
        client["admin"].command(point)
        try:
            yield
        finally:
            client["admin"].command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.parametrize(
    "how",
    [
        {"errorCode": CURSOR_NOT_FOUND},
        {"errorCode": STEPPED_DOWN},
        {"errorCode": SHUTTING_DOWN},
        {"errorCode": NETWORK},
        {"closeConnection": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["find", "getMore"])
def test_what_passes_is_waited_for(
    faulty: servers.Server, repo: Repository, command: str, how: dict[str, Any]
) -> None:
    source = live.source(repo, faulty.uri, MongoOptions(Selection(("d",)), consistency=Consistency.NONE))
    with failing(faulty, command, {"times": 2}, **how):
        result = repos.run(repo, source)
    assert result.findings == ()
    assert live.in_view(live.dump(repo, result), "d", "c") == live.on_server(faulty.uri, "d", "c")


def test_what_stays_is_an_error_in_the_end(
    faulty: servers.Server, repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dedupstore.sources.mongo.client._PAUSES", (0.01,))
    source = live.source(repo, faulty.uri, MongoOptions(Selection(("d",)), consistency=Consistency.NONE))
    top = source.top()
    source.top = lambda: top  # type: ignore[method-assign]
    with (
        failing(faulty, "find", "alwaysOn", errorCode=STEPPED_DOWN),
        pytest.raises(SourceError, match=r"reading d\.c"),
    ):
        repos.run(repo, source)
    assert repo.snapshots() == []


def test_no_right_to_read_is_a_finding(faulty: servers.Server, repo: Repository) -> None:
    source = live.source(repo, faulty.uri, MongoOptions(Selection(("d",)), workers=1))
    top = source.top()
    source.top = lambda: top  # type: ignore[method-assign]
    with failing(faulty, "find", {"times": 1}, errorCode=UNAUTHORIZED):
        result = repos.run(repo, source)
    assert sorted(finding.where for finding in result.findings) == ["/d/c.bson", "/d/c.metadata.json"]
    assert all("give the user the role" in finding.error.message for finding in result.findings)
    assert result.snapshot.position is None
    assert live.dump(repo, result).find("d", "c") is None
    assert len(live.in_view(live.dump(repo, result), "d", "other")) == 1


@pytest.mark.parametrize("code", [TOO_OLD, UNAVAILABLE])
def test_a_cluster_time_that_is_gone_becomes_a_stretch_of_time(
    faulty: servers.Server, repo: Repository, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "can_read_snapshots", lambda _: True)
    source = live.source(repo, faulty.uri, MongoOptions(Selection(("d",))))
    top = source.top()
    source.top = lambda: top  # type: ignore[method-assign]
    with faulty.client() as client, failing(faulty, "getMore", {"skip": 2}, errorCode=code):
        client["d"]["other"].update_one({"_id": 1}, {"$inc": {"n": 1}})
        passing(monkeypatch, client)
        result = repos.run(repo, source)
    assert result.findings == ()
    assert result.snapshot.position is not None
    start, end = (Position.unpack(result.snapshot.position[at : at + 16]) for at in (0, 16))
    assert start.ts < end.ts
    dump = live.dump(repo, result)
    with replay(dump, live.log_of(repo, result.snapshot)[1], fuzzy_until=end.ts) as view:
        for name in ("c", "other"):
            assert live.in_view(view, "d", name) == live.on_server(faulty.uri, "d", name)


def passing(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    """Have the server obey again once the cluster time was given up."""
    give_up = consistency.Window.pass_over

    def pass_over(window: consistency.Window) -> bool:
        client["admin"].command({"configureFailPoint": "failCommand", "mode": "off"})
        return give_up(window)

    monkeypatch.setattr(consistency.Window, "pass_over", pass_over)


def test_a_cluster_time_that_was_insisted_on_is_not_given_up(
    faulty: servers.Server, repo: Repository
) -> None:
    options = MongoOptions(Selection(("d",)), consistency=Consistency.SNAPSHOT, workers=1)
    source = live.source(repo, faulty.uri, options)
    top = source.top()
    source.top = lambda: top  # type: ignore[method-assign]
    with failing(faulty, "find", {"times": 1}, errorCode=TOO_OLD):
        result = repos.run(repo, source)
    assert [finding.where for finding in result.findings] == ["/d/c.bson", "/d/c.metadata.json"]
    assert result.snapshot.position is None


def test_a_capped_collection_that_was_overtaken_is_said(faulty: servers.Server, repo: Repository) -> None:
    with faulty.client() as client:
        client["ring"].create_collection("r", capped=True, size=1 << 20)
        client["ring"]["r"].insert_many([{"_id": n} for n in range(20)])
    source = live.source(repo, faulty.uri, MongoOptions(Selection(("ring",))))
    top = source.top()
    source.top = lambda: top  # type: ignore[method-assign]
    with failing(faulty, "find", {"times": 1}, errorCode=POSITION_LOST):
        result = repos.run(repo, source)
    assert "fell behind" in result.findings[0].error.message


@pytest.mark.parametrize("how", [{"errorCode": STEPPED_DOWN}, {"closeConnection": True}], ids=str)
@pytest.mark.parametrize("command", ["find", "getMore"])
def test_a_tail_goes_on(faulty: servers.Server, command: str, how: dict[str, Any]) -> None:
    deployment = connect(faulty.uri)
    point = majority_point(deployment.node())
    assert point is not None
    tail = OplogTail(deployment, point, exact=False)
    with faulty.client() as client, failing(faulty, command, {"times": 2}, **how):
        client["tailed"]["c"].insert_many([{"_id": n} for n in range(10)])
        found: list[bytes] = []
        while entries := tail.poll(0.3):
            found += entries
        client.drop_database("tailed")
    tail.close()
    deployment.close()
    assert [bson.decode(entry)["o"]["_id"] for entry in found if b"tailed.c" in entry] == list(range(10))


@pytest.mark.parametrize("how", [{"errorCode": STEPPED_DOWN}, {"closeConnection": True}], ids=str)
def test_a_load_goes_on(faulty: servers.Server, how: dict[str, Any]) -> None:
    documents = [bson.encode({"_id": n, "t": "y" * 500}) for n in range(9000)]
    one = CollectionInfo("loaded", "c")
    loader = Loader(connect(faulty.uri, family=TargetError))
    loader.begin([one])
    with failing(faulty, "insert", {"times": 3}, **how):
        loader.collection(one, iter(documents))
    assert loader.finish() == []
    loader.close()
    assert live.on_server(faulty.uri, "loaded", "c") == documents
    with faulty.client() as client:
        client.drop_database("loaded")
