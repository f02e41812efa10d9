"""Collections read in ranges, ahead, across lost connections; each document once and in order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import MaxKey, MinKey, ObjectId
from bson.binary import Binary

from dedupstore.errors import Interrupted, SourceError, SourceVanished
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.mongo import ranges
from dedupstore.sources.mongo.catalog import Listed, Selection, read_catalog
from dedupstore.sources.mongo.client import Deployment, Node, connect
from dedupstore.sources.mongo.ranges import BOUNDS, NATURAL, SORTED, plan_of
from dedupstore.sources.mongo.scan import Scan
from tests.support import live, servers
from tests.support.relay import Relay

MIXED = [
    *({"_id": n, "t": "x" * 200} for n in range(400)),
    *({"_id": f"{n:04}", "t": "y" * 200} for n in range(400)),
    *({"_id": n + 0.5, "t": "w" * 50} for n in range(200)),
    *({"_id": {"a": n}, "t": "z" * 200} for n in range(100)),
    *({"_id": Binary(bytes([n]), 5)} for n in range(50)),
    *({"_id": ObjectId(f"{n:024x}")} for n in range(100)),
    {"_id": None},
    {"_id": False},
    {"_id": MinKey()},
    {"_id": MaxKey()},
]


class Now:
    """Things as they are; without a log unless said otherwise."""

    def __init__(self, *, logged: bool = False) -> None:
        self.logged = logged

    def concern_of(self, capped: bool) -> dict[str, Any] | None:
        return None

    def pass_over(self) -> bool:
        return False

    def check(self, node: Node) -> None:
        pass


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges and replies so small that a small collection has many."""
    monkeypatch.setattr(ranges, "RANGE_TARGET", 16 << 10)
    monkeypatch.setattr(ranges, "REPLY_TARGET", 4 << 10)
    monkeypatch.setattr(ranges, "SAMPLE_SHARE", 2)


@contextmanager
def opened(uri: str, *names: str) -> Iterator[tuple[Deployment, list[Listed]]]:
    deployment = connect(uri)
    try:
        yield deployment, list(read_catalog(deployment.node(), Selection(names)).collections)
    finally:
        deployment.close()


def read(scan: Scan, number: int, *, step: int = 5000) -> list[bytes]:
    documents = scan.open(number)
    buffer, found = memoryview(bytearray(step)), bytearray()
    while size := documents.fill(buffer):
        found += buffer[:size]
    documents.close()
    return list(raw.documents(bytes(found)))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.usefixtures("small")
def test_mixed_ids_are_all_there_once(mongo: servers.Server, database: str, split: bool) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_many(MIXED)
    with opened(mongo.uri, database) as (deployment, listed):
        plan = plan_of(deployment.node(), listed[0], None, split=split)
        assert plan.order == (BOUNDS if split else SORTED)
        assert (len(plan.ranges) > 3) == split
        scan = Scan(deployment, Now(), listed, split=split)
        found = read(scan, 0)
        scan.close()
    assert found == live.on_server(mongo.uri, database, "c")
    assert len(found) == len(MIXED)


@pytest.mark.usefixtures("small")
def test_a_server_that_lies_about_bounds_is_read_in_one_range(ferretdb_server: servers.Server) -> None:
    with ferretdb_server.client() as client:
        client["lies"]["c"].insert_many([{"_id": n, "t": "x" * 300} for n in range(500)])
    with opened(ferretdb_server.uri, "lies") as (deployment, listed):
        assert plan_of(deployment.node(), listed[0], None, split=True).order == SORTED
        scan = Scan(deployment, Now(), listed, split=True)
        assert read(scan, 0) == live.on_server(ferretdb_server.uri, "lies", "c")
        scan.close()


def test_capped_collections_keep_their_order(mongo: servers.Server, database: str) -> None:
    order = [5, 3, 9, 1, 7]
    with mongo.client() as client:
        client[database].create_collection("ring", capped=True, size=1 << 20)
        client[database]["ring"].insert_many([{"_id": n} for n in order])
    with opened(mongo.uri, database) as (deployment, listed):
        assert plan_of(deployment.node(), listed[0], None).order == NATURAL
        scan = Scan(deployment, Now(), listed)
        assert [int.from_bytes(raw.id_of(doc)[1:], "little") for doc in read(scan, 0)] == order
        scan.close()


def test_collections_are_read_in_any_number_and_can_be_left_out(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        for number in range(12):
            client[database][f"c{number:02}"].insert_many(
                [{"_id": n} for n in range(10 * number)] or [{"_id": 0}]
            )
    with opened(mongo.uri, database) as (deployment, listed):
        scan = Scan(deployment, Now(), listed, workers=3)
        for number in (0, 1, 4, 5, 11):
            assert read(scan, number) == live.on_server(mongo.uri, database, f"c{number:02}")
        with pytest.raises(SourceError, match="only once"):
            scan.open(4)
        scan.close()


@pytest.mark.usefixtures("small")
def test_little_is_held_ahead(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        for name in ("a", "b"):
            client[database][name].insert_many([{"_id": n, "t": "x" * 500} for n in range(1000)])
    with opened(mongo.uri, database) as (deployment, listed):
        scan = Scan(deployment, Now(), listed, split=True, ahead=20_000)
        documents = scan.open(0)
        buffer, size = memoryview(bytearray(700)), 0
        while filled := documents.fill(buffer):
            size += filled
            assert scan._held <= 20_000 + 4 * 8192
        documents.close()
        assert read(scan, 1) == live.on_server(mongo.uri, database, "b")
        scan.close()
    assert size > 500_000


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.usefixtures("small")
def test_a_lost_connection_loses_nothing(fresh_secantus: servers.Server, split: bool) -> None:
    with fresh_secantus.client() as client:
        client["d"]["c"].insert_many(MIXED)
        expected = live.on_server(fresh_secantus.uri, "d", "c")
    target = fresh_secantus.uri.removeprefix("mongodb://").partition("/")[0]
    with Relay(target) as relay, opened(relay.uri, "d") as (deployment, listed):
        for after in (1, 9_000, 40_000, 90_000):
            relay.cut_after(after)
            cuts = relay.cuts
            scan = Scan(deployment, Now(), listed, split=split)
            assert read(scan, 0) == expected
            scan.close()
            assert relay.cuts == cuts + 1


@pytest.mark.usefixtures("small")
def test_a_server_that_comes_back_is_read_on(tmp_path: Path) -> None:
    with servers.secantus(folder=tmp_path / "data") as server:
        with server.client() as client:
            client["d"]["c"].insert_many(MIXED)
        expected = live.on_server(server.uri, "d", "c")
        port = int(server.uri.removeprefix("mongodb://127.0.0.1:").partition("/")[0])
        deployment = connect(server.uri)
        listed = read_catalog(deployment.node(), Selection(("d",))).collections
        scan = Scan(deployment, Now(), listed, ahead=10_000)
        documents = scan.open(0)
        buffer = memoryview(bytearray(20_000))
        found = bytearray(buffer[: documents.fill(buffer)])
    with servers.secantus(folder=tmp_path / "data", port=port):
        while size := documents.fill(buffer):
            found += buffer[:size]
        documents.close()
        scan.close()
        deployment.close()
    assert list(raw.documents(bytes(found))) == expected


@pytest.mark.parametrize("logged", [False, True])
def test_a_collection_dropped_before_it_is_read(mongo: servers.Server, database: str, logged: bool) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_one({"_id": 1})
        with opened(mongo.uri, database) as (deployment, listed):
            client[database].drop_collection("c")
            scan = Scan(deployment, Now(logged=logged), listed)
            if logged:
                assert read(scan, 0) == []
            else:
                with pytest.raises(SourceVanished, match=f"{database}.c was dropped"):
                    read(scan, 0)
            scan.close()


def test_another_collection_of_that_name_is_not_it(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_one({"_id": 1})
        with opened(mongo.uri, database) as (deployment, listed):
            client[database].drop_collection("c")
            client[database]["c"].insert_one({"_id": 2})
            scan = Scan(deployment, Now(), listed)
            with pytest.raises(SourceVanished):
                read(scan, 0)
            scan.close()


def test_documents_out_of_order_are_refused(mongo: servers.Server, database: str) -> None:
    """A collection in natural order, said to be in that of ``_id``: what a server that lies would give."""
    with mongo.client() as client:
        client[database].create_collection("ring", capped=True, size=1 << 20)
        client[database]["ring"].insert_many([{"_id": n} for n in (2, 1)])
    with opened(mongo.uri, database) as (deployment, listed):
        scan = Scan(deployment, Now(), [listed[0], replace(listed[0], capped=False)])
        job = scan._jobs[1]
        documents = scan.open(1)
        assert documents.plan().order == SORTED
        first = raw.document([(b"_id", raw.INT32, raw.int32(9))])
        documents._key = sort_key(raw.id_of(first))
        with pytest.raises(SourceError, match="not in order of _id"):
            documents.fill(memoryview(bytearray(100)))
        assert job.listed.info.name == "ring"
        scan.close()


def test_whoever_waits_is_told_that_it_is_over(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_many([{"_id": n, "t": "x" * 1000} for n in range(200)])
    with opened(mongo.uri, database) as (deployment, listed):
        scan = Scan(deployment, Now(), listed)
        documents = scan.open(0)
        documents.fill(memoryview(bytearray(100)))
        scan.close()
        documents._rest = memoryview(b"")
        with pytest.raises(Interrupted):
            documents.fill(memoryview(bytearray(100)))
