"""A server backed up while it is at rest and while it is written to."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bson
import pytest
from bson import Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.code import Code

from dedupstore.documents.replay import replay
from dedupstore.errors import SourceError, UsageError
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import read_facts
from dedupstore.sources.mongo.catalog import Selection, read_catalog
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.consistency import Consistency
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.oplog import OplogTail
from dedupstore.sources.mongo.source import MongoOptions
from dedupstore.sources.oplog.position import Position, header_of
from tests.support import live, repos, servers

AWKWARD = [
    {"_id": MinKey(), "": 1, "a.b": {"$x": 2}, "a": None},
    {"_id": None, "d": Decimal128("1.10"), "n": float("nan"), "z": -0.0},
    {"_id": 3, "t": Timestamp(0, 0), "l": Int64(1)},
    {"_id": 2.5, "r": Regex("a.*", "im"), "c": Code("x", {"y": 1})},
    {"_id": "text", "nested": [[], {}, [{}]]},
    {"_id": {"a": 1, "b": [1, 2]}},
    {"_id": Binary(b"bytes", 5)},
    {"_id": ObjectId("0123456789abcdef01234567")},
    {"_id": True},
    {"_id": Timestamp(1, 2)},
    {"_id": MaxKey()},
]


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    found = repos.create(MemoryStore(), tmp_path / "cache")
    yield found
    found.close()


@contextmanager
def writing(server: servers.Server, db: str, name: str) -> Iterator[None]:
    """Insert, change and delete documents, beside one another, until the block ends."""
    stop = threading.Event()

    def work() -> None:
        with server.client() as client:
            collection = client[db][name]
            for number in range(1_000_000):
                if stop.is_set():
                    return
                collection.insert_one({"_id": ObjectId(), "n": number})
                collection.update_one({"n": number % 50}, {"$set": {"changed": number, f"f{number % 7}": 1}})
                collection.update_one({"n": number % 30}, {"$push": {"l": number}, "$unset": {"changed": 1}})
                if number % 3 == 0:
                    collection.delete_one({"n": number // 2})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_documents_come_back_byte_for_byte(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["awkward"].insert_many(AWKWARD)
        client[database]["empty"].insert_one({"_id": 1})
        client[database]["empty"].delete_many({})
    result = live.snapshot(repo, mongo.uri, MongoOptions(Selection((database,))))
    assert result.findings == ()
    dump = live.dump(repo, result)
    assert live.in_view(dump, database, "awkward") == live.on_server(mongo.uri, database, "awkward")
    assert live.in_view(dump, database, "empty") == []


def test_one_document_is_found_by_its_id(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_many([{"_id": n, "text": "x" * 300} for n in range(3000)])
    result = live.snapshot(repo, mongo.uri, MongoOptions(Selection((f"{database}.c",))))
    found = live.dump(repo, result).find(database, "c")
    assert found is not None
    assert found.get(b"\x10" + (1234).to_bytes(4, "little")) == bson.encode({"_id": 1234, "text": "x" * 300})
    assert found.count == 3000
    assert len(list(found.leaves())) > 10


def test_the_tree_is_that_of_a_dump(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["a b/c"].insert_one({"_id": 1})
        client[database].create_collection("seen", viewOn="a b/c", pipeline=[{"$match": {}}])
        client[database].create_collection("ring", capped=True, size=4096)
        client[database]["ring"].insert_many([{"_id": n} for n in (3, 1, 2)])
    result = live.snapshot(repo, mongo.uri, MongoOptions(Selection((database,))))
    found = dict(repos.walk(repo, result.snapshot.root))
    folder = b"/" + database.encode()
    names = {path for path, node in found.items() if node.subtree is None}
    assert names == {
        b"/prelude.json",
        b"/oplog.bson",
        folder + b"/a+b%2Fc.bson",
        folder + b"/a+b%2Fc.metadata.json",
        folder + b"/ring.bson",
        folder + b"/ring.metadata.json",
        folder + b"/seen.metadata.json",
    }
    ring = read_facts(found[folder + b"/ring.bson"])
    assert ring is not None
    assert not ring.in_order
    assert [bson.decode(doc)["_id"] for doc in live.in_view(live.dump(repo, result), database, "ring")] == [
        3,
        1,
        2,
    ]


def test_a_second_snapshot_stores_what_changed(
    mongo: servers.Server, database: str, repo: Repository
) -> None:
    options = MongoOptions(Selection((database,)))
    with mongo.client() as client:
        client[database]["c"].insert_many([{"_id": n, "text": f"{n:06}" * 40} for n in range(5000)])
        first = live.snapshot(repo, mongo.uri, options).snapshot
        client[database]["c"].update_one({"_id": 2500}, {"$set": {"text": "other"}})
    second = live.snapshot(repo, mongo.uri, options).snapshot
    assert first.statistics.bytes_new > 1_000_000
    assert second.statistics.bytes_new < 100_000
    assert second.parent is not None


def test_at_rest_it_is_of_one_moment(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_one({"_id": 1})
    if mongo.kind == "real":
        pytest.skip("others may write to a real deployment meanwhile")
    snapshot = live.snapshot(repo, mongo.uri, MongoOptions(Selection((database,)))).snapshot
    assert snapshot.position is not None
    position = Position.unpack(snapshot.position)
    assert snapshot.time.timestamp() == position.ts.seconds
    assert snapshot.source.options["set"] == "secantus"
    assert live.log_of(repo, snapshot)[0].size == 0


def test_under_way_the_log_makes_it_exact(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_many([{"_id": ObjectId(), "n": n, "t": "x" * 200} for n in range(4000)])
    with writing(mongo, database, "c"):
        result = live.snapshot(repo, mongo.uri, MongoOptions(Selection((database,))))
    snapshot = result.snapshot
    assert result.findings == ()
    assert snapshot.position is not None
    start, end = (Position.unpack(snapshot.position[at : at + 16]) for at in (0, 16))
    assert start.ts < end.ts

    node, entries = live.log_of(repo, snapshot)
    log = list(entries)
    assert node.extra is not None
    assert "oplog" in node.extra
    assert start.ts <= header_of(log[0])[0].ts
    assert header_of(log[-1])[0].ts <= end.ts

    # Replay to the edge gives one state; the log from there on must lead from it to what the server has now.
    after = tail_from(mongo, end)
    whole = replay(live.dump(repo, result), [*log, *after], fuzzy_until=end.ts)
    with whole:
        assert normal(live.in_view(whole, database, "c")) == normal(live.on_server(mongo.uri, database, "c"))


def tail_from(server: servers.Server, end: Position) -> list[bytes]:
    """The rest of the log, in mongod's words."""
    deployment = connect(server.uri)
    dialect = None
    if server.kind == "secantus":
        dialect = ChangeStreamDialect(read_catalog(deployment.node(), Selection()))
    tail = OplogTail(deployment, end, exact=False, dialect=dialect)
    found: list[bytes] = []
    try:
        while entries := tail.poll(0.3):
            found += entries
    finally:
        tail.close()
        deployment.close()
    return [entry for entry in found if header_of(entry)[0].ts > end.ts]


def normal(documents: list[bytes]) -> list[object]:
    """Documents without the order of their fields, which SecantusDB does not log."""
    return [sorted(bson.decode(document).items(), key=repr) for document in documents]


def test_a_collection_dropped_meanwhile_is_told_of_by_the_log(
    fresh_secantus: servers.Server, repo: Repository
) -> None:
    with fresh_secantus.client() as client:
        for name in ("a", "b", "c"):
            client["d"][name].insert_many([{"_id": n, "t": "x" * 100} for n in range(500)])
        source = live.source(repo, fresh_secantus.uri)
        top = source.top()
        client["d"].drop_collection("b")
        source.top = lambda: top  # type: ignore[method-assign]
        result = repos.run(repo, source)
    assert result.findings == ()
    dump = live.dump(repo, result)
    assert [one.info.name for one in dump.collections() if one.info.db == "d"] == ["a", "b", "c"]
    assert result.snapshot.position is not None
    end = Position.unpack(result.snapshot.position[16:])
    with replay(dump, live.log_of(repo, result.snapshot)[1], fuzzy_until=end.ts) as view:
        assert view.find("d", "b") is None
        assert len(live.in_view(view, "d", "c")) == 500


def test_without_a_log_a_dropped_collection_is_a_finding(repo: Repository) -> None:
    with servers.secantus("--standalone") as server, server.client() as client:
        for name in ("a", "b", "c"):
            client["d"][name].insert_many([{"_id": n} for n in range(50)])
        source = live.source(repo, server.uri)
        top = source.top()
        client["d"].drop_collection("b")
        source.top = lambda: top  # type: ignore[method-assign]
        result = repos.run(repo, source)
    assert sorted(finding.where for finding in result.findings) == ["/d/b.bson", "/d/b.metadata.json"]
    assert result.snapshot.position is None
    assert result.snapshot.source.options.get("set") is None
    paths = {path for path, _ in repos.walk(repo, result.snapshot.root)}
    assert b"/d/c.bson" in paths
    assert b"/d/b.bson" not in paths
    assert b"/oplog.bson" not in paths


def test_a_standalone_has_no_position(ferretdb_server: servers.Server, repo: Repository) -> None:
    with ferretdb_server.client() as client:
        client["plain"]["c"].insert_many([{"_id": n} for n in range(300)])
    result = live.snapshot(repo, ferretdb_server.uri, MongoOptions(Selection(("plain",))))
    assert result.findings == ()
    assert result.snapshot.position is None
    dump = live.dump(repo, result)
    assert live.in_view(dump, "plain", "c") == live.on_server(ferretdb_server.uri, "plain", "c")
    with pytest.raises(UsageError, match="without a log"):
        live.snapshot(repo, ferretdb_server.uri, MongoOptions(consistency=Consistency.FUZZY))


def test_one_cluster_time_when_it_is_asked_for(
    mongo: servers.Server, database: str, repo: Repository
) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_many([{"_id": n} for n in range(300)])
    options = MongoOptions(Selection((database,)), consistency=Consistency.SNAPSHOT)
    snapshot = live.snapshot(repo, mongo.uri, options).snapshot
    assert snapshot.position is not None
    assert len(snapshot.position) == 16


def test_the_log_can_be_left_out(mongo: servers.Server, database: str, repo: Repository) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_one({"_id": 1})
    options = MongoOptions(Selection((database,)), consistency=Consistency.NONE)
    snapshot = live.snapshot(repo, mongo.uri, options).snapshot
    assert snapshot.position is None
    assert b"/oplog.bson" not in {path for path, _ in repos.walk(repo, snapshot.root)}


def test_what_is_not_there_is_refused(mongo: servers.Server, database: str, repo: Repository) -> None:
    with pytest.raises(SourceError, match="has no"):
        live.snapshot(repo, mongo.uri, MongoOptions(Selection((database + ".nothing",))))
    for name in ("", ".c", "d.", "a b.c", "a$b"):
        with pytest.raises(UsageError):
            Selection((name,))


def test_no_secret_is_stored(repo: Repository) -> None:
    with servers.secantus() as server:
        with server.client() as client:
            client["d"]["c"].insert_one({"_id": 1})
            client["admin"].command("createUser", "joe", pwd="se/cret", roles=["root"])
        uri = server.uri.replace("mongodb://", "mongodb://joe:se%2Fcret@") + "&authSource=admin"
        snapshot = live.snapshot(repo, uri).snapshot
        assert "cret" not in repr(snapshot)
        assert "joe" not in repr(snapshot.source)
        users = live.in_view(live.dump(repo, live.snapshot(repo, uri)), "admin", "system.users")
        assert [bson.decode(user)["user"] for user in users] == ["joe"]
