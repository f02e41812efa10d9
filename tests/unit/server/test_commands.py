"""Commands as drivers and tools ask them, over a view in memory."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import bson
import pymongo
import pytest
from bson import Int64
from bson.raw_bson import RawBSONDocument
from pymongo.errors import CursorNotFound, OperationFailure

from dedupstore.query.work import Pool
from dedupstore.server.mongowire.commands import COMMANDS, GREETINGS, WRITES
from dedupstore.server.mongowire.service import Version
from tests.support.wireserver import Client, serving
from tests.unit.export.views import ListedView
from tests.unit.server.server_inputs import ID_INDEX, made, numbers, small_view

RAW: bson.CodecOptions[RawBSONDocument] = bson.CodecOptions(document_class=RawBSONDocument)


@pytest.fixture
def client() -> Any:
    with serving(small_view()) as running, running.client() as found:
        yield found


def code(client: Client, db: str, command: dict[str, Any]) -> int:
    with pytest.raises(OperationFailure) as caught:
        client[db].command(command)
    assert caught.value.code is not None
    return caught.value.code


def test_what_there_is(client: Client) -> None:
    assert client.list_database_names() == ["admin", "shop", "stock"]
    shop = {one["name"]: one for one in client.shop.list_collections()}
    assert list(shop) == ["french", "odd", "orders", "threes"]
    assert shop["orders"]["info"] == {"readOnly": False, "uuid": bson.Binary(bytes(range(16)), 4)}
    assert shop["orders"]["idIndex"] == bson.decode(ID_INDEX)
    assert shop["threes"]["type"] == "view"
    assert shop["threes"]["options"]["viewOn"] == "orders"
    assert client.shop.list_collection_names(filter={"type": "view"}) == ["odd", "threes"]
    assert client.stock.list_collection_names() == ["times", "system.buckets.times"]
    assert list(client.shop.orders.list_indexes()) == [bson.decode(ID_INDEX)]
    assert code(client, "shop", {"listIndexes": "none"}) == 26
    assert code(client, "shop", {"listIndexes": "threes"}) == 166
    rows = client.admin.command({"listDatabases": 1, "filter": {"name": "shop"}, "nameOnly": True})[
        "databases"
    ]
    assert rows == [{"name": "shop"}]


def test_views_run_what_they_are_made_of(client: Client) -> None:
    assert client.shop.threes.find_one() == {"_id": 3, "n": 3}
    assert client.shop.threes.count_documents({"_id": {"$lt": 20}}) == 3
    assert client.shop.threes.estimated_document_count() == 143
    assert client.shop.threes.find(sort=[("_id", -1)], limit=1)[0]["_id"] == 997
    assert client.shop.threes.distinct("n") == [3]
    with pytest.raises(OperationFailure, match=r"view shop.odd: .*\$lookup"):
        client.shop.odd.find_one()


def test_a_time_series_shows_its_buckets(client: Client) -> None:
    with pytest.raises(OperationFailure, match=r"stock\.system\.buckets\.times"):
        client.stock.times.find_one()
    assert client.stock["system.buckets.times"].count_documents({}) == 5
    assert client.stock.command({"count": "system.buckets.times"})["n"] == 5
    assert len(client.stock.command({"find": "times", "rawData": True})["cursor"]["firstBatch"]) == 5


def test_another_collation_is_not_passed_over(client: Client) -> None:
    assert len(list(client.shop.french.find())) == 3
    assert client.shop.french.count_documents({"n": 1}) == 1
    for attempt in ({"filter": {"text": "x"}}, {"sort": {"text": 1}}):
        assert code(client, "shop", {"find": "french", **attempt}) == 238
    assert (
        client.shop.command({"find": "french", "sort": {"text": 1}, "collation": {"locale": "simple"}})["ok"]
        == 1
    )
    assert code(client, "shop", {"find": "orders", "collation": {"locale": "fr"}}) == 238
    assert code(client, "shop", {"distinct": "french", "key": "text"}) == 238
    assert (
        code(
            client, "shop", {"aggregate": "french", "pipeline": [{"$group": {"_id": "$text"}}], "cursor": {}}
        )
        == 238
    )


@pytest.mark.parametrize("name", sorted(WRITES))
def test_writes_are_refused_by_name(client: Client, name: str) -> None:
    with pytest.raises(OperationFailure, match=f"{name} is refused: this server is read-only") as caught:
        client.shop.command({name: "orders"})
    assert caught.value.code == 115


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ({"frobnicate": 1}, 59),
        ({"find": "orders", "odd": 1}, 40415),
        ({"find": "orders", "filter": 5}, 14),
        ({"find": "orders", "limit": "x"}, 14),
        ({"find": "orders", "skip": -1}, 2),
        ({"find": "orders", "hint": "none"}, 2),
        ({"find": "orders", "tailable": True}, 238),
        (
            {"find": "orders", "readConcern": {"level": "snapshot", "atClusterTime": bson.Timestamp(1, 1)}},
            238,
        ),
        ({"find": ""}, 73),
        ({"find": 5}, 73),
        ({"find": "orders", "txnNumber": Int64(1), "autocommit": False, "startTransaction": True}, 20),
        ({"find": "orders", "let": {"a": 1}}, 238),
        ({"find": "orders", "projection": {"a": 1, "b": 0}}, 31253),
        ({"find": "orders", "batchSize": -1}, 2),
        ({"aggregate": "orders", "pipeline": []}, 9),
        ({"aggregate": 1, "pipeline": [], "cursor": {}}, 238),
        ({"aggregate": "orders", "pipeline": [{"$odd": 1}], "cursor": {}}, 40324),
        ({"aggregate": "orders", "pipeline": [{"$indexStats": {}}], "cursor": {}}, 238),
        ({"aggregate": "none", "pipeline": [{"$collStats": {"count": {}}}], "cursor": {}}, 26),
        ({"explain": {"find": "orders"}}, 115),
        ({"getMore": Int64(5), "collection": "orders"}, 43),
        ({"getParameter": 1, "odd": 1}, 72),
        ({"listDatabases": 1}, 13),
    ],
    ids=repr,
)
def test_what_can_not_be_answered_has_its_number(
    client: Client, command: dict[str, Any], wanted: int
) -> None:
    assert code(client, "shop", command) == wanted


def test_every_other_command_is_answered(client: Client) -> None:
    asked: dict[str, dict[str, Any]] = {
        "find": {"find": "orders"},
        "aggregate": {"aggregate": "orders", "pipeline": [], "cursor": {}},
        "count": {"count": "orders"},
        "distinct": {"distinct": "orders", "key": "n"},
        "killCursors": {"killCursors": "orders", "cursors": [Int64(1)]},
        "listIndexes": {"listIndexes": "orders"},
        "collStats": {"collStats": "orders"},
        "collstats": {"collstats": "orders"},
        "getLog": {"getLog": "startupWarnings"},
        "getParameter": {"getParameter": 1, "featureCompatibilityVersion": 1},
    }
    for name in set(GREETINGS | COMMANDS) - {
        "saslStart",
        "saslContinue",
        "getMore",
        "explain",
        "listDatabases",
    }:
        assert client.shop.command(asked.get(name, {name: 1}))["ok"] == 1, name
    assert client.shop.command("collStats", "orders")["count"] == 1000
    stats = next(client.shop.orders.aggregate([{"$collStats": {"count": {}, "storageStats": {}}}]))
    assert stats["count"] == stats["storageStats"]["count"] == 1000
    assert client.shop.command("dbStats")["objects"] == 1003
    assert client.server_info()["versionArray"] == [8, 0, 4, 0]


@pytest.mark.parametrize(
    ("text", "told", "wire"),
    [
        ("8.0.4", "8.0.4", 25),
        ("8.3.1", "8.2.0", 27),
        ("4.2.1", "4.4.0", 9),
        ("unknown", "8.0.0", 25),
        ("7.0.5-rc1", "7.0.5", 21),
    ],
)
def test_the_version_is_that_of_the_source_where_it_can_be(text: str, told: str, wire: int) -> None:
    assert (str(Version.of(text)), Version.of(text).wire) == (told, wire)


def test_batches_and_cursors(client: Client) -> None:
    first = client.shop.command({"find": "orders"})["cursor"]
    assert len(first["firstBatch"]) == 101
    more = client.shop.command({"getMore": first["id"], "collection": "orders", "batchSize": 50})["cursor"]
    assert [one["_id"] for one in more["nextBatch"]] == list(range(101, 151))
    assert code(client, "shop", {"getMore": first["id"], "collection": "other"}) == 13
    rest = client.shop.command({"getMore": first["id"], "collection": "orders"})["cursor"]
    assert (len(rest["nextBatch"]), rest["id"]) == (849, 0)
    assert code(client, "shop", {"getMore": first["id"], "collection": "orders"}) == 43
    assert client.shop.command({"find": "orders", "limit": 5, "batchSize": 5})["cursor"]["id"] == 0
    assert client.shop.command({"find": "orders", "batchSize": 5, "singleBatch": True})["cursor"]["id"] == 0
    empty = client.shop.command({"find": "orders", "batchSize": 0})["cursor"]
    assert empty["firstBatch"] == []
    killed = client.shop.command({"killCursors": "orders", "cursors": [empty["id"], Int64(7)]})
    assert (killed["cursorsKilled"], killed["cursorsNotFound"]) == ([empty["id"]], [7])
    assert [one["_id"] for one in client.shop.orders.find(batch_size=7, skip=3, limit=20)] == list(
        range(3, 23)
    )


class Slow:
    """A clock that a test puts on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.seconds

    def random(self, size: int) -> bytes:
        import os  # noqa: PLC0415

        return os.urandom(size)


def test_cursors_that_nobody_asks_for_end() -> None:
    clock = Slow()
    with serving(small_view(), clock=clock) as running, running.client() as client:
        cursor = client.shop.orders.find(batch_size=10)
        next(cursor)
        clock.seconds = 590
        for _ in range(15):
            next(cursor)
        clock.seconds = 1180
        for _ in range(15):
            next(cursor)
        clock.seconds = 1781
        with pytest.raises(CursorNotFound):
            list(cursor)
        assert len(running.service.cursors) == 0


def test_cursors_have_a_number_beyond_which_there_are_none() -> None:
    with serving(small_view()) as running, running.client() as client:
        cursors = [client.shop.orders.find(batch_size=2) for _ in range(200)]
        for cursor in cursors:
            next(cursor)
        with pytest.raises(OperationFailure, match="200 cursors are open"):
            next(client.shop.orders.find(batch_size=2))
        assert [len(list(cursor)) for cursor in cursors[:3]] == [999] * 3  # paused ones go on
        for cursor in cursors:
            cursor.close()
        assert len(running.service.cursors) == 0


def test_more_than_one_answer_can_hold_comes_byte_for_byte() -> None:
    documents = [bson.encode({"_id": n, "data": bytes((n,)) * 3_000_000}) for n in range(12)]
    documents.append(bson.encode({"_id": 12, "data": bytes(16_700_000)}))
    with serving(ListedView([made("db", "big", documents)])) as running, running.client() as client:
        found = [one.raw for one in client.db.get_collection("big", codec_options=RAW).find()]
        assert found == documents
        assert b"".join(client.db.big.find_raw_batches()) == b"".join(documents)


def test_many_clients_at_once() -> None:
    wanted = numbers(3000)
    failures: list[object] = []

    def read(client: Client, number: int) -> None:
        try:
            assert [one.raw for one in client.db.get_collection("c", codec_options=RAW).find()] == wanted
            assert client.db.c.find_one({"_id": number})["n"] == number % 7  # type: ignore[index]
            assert client.db.c.count_documents({"n": 3}) == 429
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    with serving(ListedView([made("db", "c", wanted)])) as running, running.client() as client:
        threads = [threading.Thread(target=read, args=(client, n)) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_damage_is_told_and_the_rest_is_served() -> None:
    broken = made("db", "broken", numbers(500))
    whole = made("db", "whole", numbers(500))

    def documents(after: bytes | None = None) -> Any:
        from dedupstore.errors import ChunkDamaged  # noqa: PLC0415

        yield from broken.held[:200]
        raise ChunkDamaged("chunk 0badcafe does not open; run `dstore verify`")

    broken.documents = documents  # type: ignore[method-assign]
    with serving(ListedView([broken, whole])) as running, running.client() as client:
        cursor = client.db.broken.find()
        assert [next(cursor)["_id"] for _ in range(101)] == list(range(101))
        with pytest.raises(OperationFailure, match="0badcafe") as caught:
            list(cursor)
        assert caught.value.details is not None
        assert caught.value.details["codeName"] == "DataCorruptionDetected"
        assert len(list(client.db.whole.find())) == 500
        assert len(running.service.cursors) == 0


def test_time_and_memory_have_limits() -> None:
    held = made("db", "c", numbers(2000, 1000))
    with serving(ListedView([held]), pool=Pool(1 << 20)) as running, running.client() as client:
        with pytest.raises(OperationFailure) as caught:
            list(client.db.c.find(sort=[("text", 1)]))
        assert caught.value.code == 292
        assert [one["_id"] for one in client.db.c.find(sort=[("n", -1)], limit=2)] == [6, 13]

        def slowly(after: bytes | None = None) -> Any:
            for document in held.held:
                time.sleep(0.001)
                yield document

        held.documents = slowly  # type: ignore[method-assign]
        with pytest.raises(pymongo.errors.ExecutionTimeout):
            list(client.db.c.find({"n": 99}, max_time_ms=20))


def test_stopping_ends_what_is_under_way() -> None:
    held = made("db", "c", numbers(600))
    begun = threading.Event()

    def endlessly(after: bytes | None = None) -> Any:
        while True:
            begun.set()
            yield held.held[0]

    held.documents = endlessly  # type: ignore[method-assign]
    with serving(ListedView([held])) as running, running.wire() as wire:
        wire.send({"find": "c", "filter": {"n": 99}, "$db": "db"})
        assert begun.wait(10)
        running.listener.stop()
        assert wire.read()["code"] == 11600
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("client-")]
