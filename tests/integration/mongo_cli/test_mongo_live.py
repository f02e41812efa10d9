"""A server backed up, followed and loaded by the commands, as its users do it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.mongo_cli.conftest import Place
from tests.support import servers
from tests.support.live import on_server
from tests.support.relay import Relay
from tests.support.servers import Server

ROOT = Path(__file__).parents[3]
WORDS = ["--oplog-dialect", "changestream"]


@pytest.fixture
def live(place: Place, mongo: Server, database: str) -> Iterator[Place]:
    """A repository, and a database with two collections; its server is in the environment."""
    if mongo.kind != "secantus":
        pytest.skip("the log of a real server is not in the words of change streams")
    with mongo.client() as client:
        orders = client[database].orders
        orders.insert_many([{"_id": n, "total": n * 1.5} for n in range(200)])
        orders.create_index("total")
        client[database].users.insert_one({"_id": "ada", "tags": ["a", "b"]})
    place.program.environ["DSTORE_MONGO_URI"] = mongo.uri
    return place


def back_up(place: Place, database: str, *more: str, status: int = 0) -> str:
    """Take a snapshot; return what was said."""
    ran = place.program.run("snapshot", "--mongo", "-", "--db", database, *WORDS, *more, status=status)
    return ran.err


def dumped(place: Place, *words: str | Path) -> dict[str, bytes]:
    """The collections that a restore gives, by name."""
    target = place.folder / f"dump{time.monotonic_ns()}"
    place.program.run("restore", "--target", target, *words)
    return {path.name: path.read_bytes() for path in target.rglob("*.bson") if path.parent != target}


def check(place: Place, mongo: Server, database: str) -> None:
    """The newest snapshot is what the server holds."""
    with mongo.client() as client:
        names = set(client[database].list_collection_names())
    found = dumped(place)
    assert {name.removesuffix(".bson") for name in found} == names
    for name in names:
        assert found[f"{name}.bson"] == b"".join(on_server(mongo.uri, database, name))


@contextmanager
def writing_elsewhere(mongo: Server, db: str) -> Iterator[None]:
    """Give the log entries: this server says that it has come further than its log has."""
    stopped = threading.Event()

    def work() -> None:
        with mongo.client() as client:
            while not stopped.wait(0.02):
                client[db].ticks.insert_one({})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        with mongo.client() as client:
            client.drop_database(db)


def test_the_first_snapshot_reads_and_the_next_ones_need_the_log_only(
    live: Place, mongo: Server, database: str
) -> None:
    assert "moving" not in back_up(live, database)
    check(live, mongo, database)
    with mongo.client() as client:
        orders = client[database].orders
        orders.update_one({"_id": 7}, {"$set": {"note": "x"}, "$unset": {"total": 1}})
        orders.delete_one({"_id": 8})
        orders.insert_one({"_id": 1000})
        client[database].fresh.insert_one({"_id": 1})
        client[database].users.update_one({"_id": "ada"}, {"$push": {"tags": "c"}})
    assert "forward by" in back_up(live, database)
    check(live, mongo, database)
    with writing_elsewhere(mongo, f"{database}_busy"):
        said = back_up(live, database, "--verify-source")
    assert "no drift: it is what snapshot" in said
    check(live, mongo, database)
    kinds = [row["kind"] for row in live.program.rows("snapshots")]
    assert kinds.count("mongo") == 3
    # Comparing has stored the log, so now all of it can be proved.
    assert "2 snapshots proved to be what the one before" in live.program.text("verify", "--replay")
    summary = live.program.summary("verify", "--replay")
    assert summary["findings"] == 0


def test_every_operation_between_two_snapshots_can_be_had(live: Place, mongo: Server, database: str) -> None:
    back_up(live, database)
    with mongo.client() as client:
        orders = client[database].orders
        for number in range(3):
            orders.update_one({"_id": 7}, {"$set": {"step": number}})
        orders.delete_one({"_id": 7})
    ran = live.program.run("snapshot", "--mongo", "-", "--db", database, *WORDS)
    assert "forward by" in ran.err
    assert "stored the log until" in ran.text
    back_up(live, database)
    versions = live.program.rows("mongo", "log", f"{database}.orders", "--id", "7")
    assert [version["op"] for version in versions] == ["snapshot", "update", "update", "update", "delete"]
    for number, version in enumerate(versions[1:-1]):
        get = ["mongo", "get", f"{database}.orders", "--id", "7", "--at", str(version["operation"])]
        assert f'"step":{number}' in live.program.text(*get)
    (row,) = live.program.rows("mongo", "ranges")
    assert row["start"] != row["end"]
    proof = live.program.summary("verify", "--replay")
    assert (proof["findings"], proof["replay"][0]["not_replayable"]) == (0, [])
    assert len(proof["replay"][0]["proven"]) == 2


def test_the_log_need_not_be_stored(live: Place, mongo: Server, database: str) -> None:
    back_up(live, database)
    with mongo.client() as client:
        client[database].orders.update_one({"_id": 7}, {"$set": {"step": 1}})
    assert "forward by" in back_up(live, database, "--no-log")
    check(live, mongo, database)
    assert {row["kind"] for row in live.program.rows("snapshots")} == {"mongo"}
    assert "is not whole" in live.program.text("verify", "--replay")
    words = ["snapshot", ".", "--no-log"], ["snapshot", "--mongo", "-", "--no-log", "--verify-source"]
    for wrong in words:
        assert "--no-log" in live.program.error(*wrong, status=2)
    with mongo.client() as client:
        client[database].orders.update_one({"_id": 7}, {"$set": {"step": 2}})
    back_up(live, database, "--dry-run")
    assert {row["kind"] for row in live.program.rows("snapshots")} == {"mongo"}


def test_other_collections_are_another_lineage(live: Place, mongo: Server, database: str) -> None:
    back_up(live, database)
    said = back_up(live, database, "--collection", "users")
    assert "moving" not in said
    assert dumped(live).keys() == {"users.bson"}
    # The newest snapshot that holds the collection is taken, not the newest one.
    get = live.program.text("mongo", "get", f"{database}.orders", "--id", "7")
    assert get == '{"_id":7,"total":10.5}\n'
    assert "has no" in back_up(live, database, "--collection", "nothing", status=1)


def test_where_the_log_does_not_reach_back_all_is_read_again(place: Place) -> None:
    with servers.secantus("--oplog-max-entries", "60") as server:
        place.program.environ["DSTORE_MONGO_URI"] = server.uri
        with server.client() as client:
            client.shop.orders.insert_many([{"_id": n} for n in range(20)])
            back_up(place, "shop")
            client.shop.orders.insert_many([{"_id": n} for n in range(100, 1400)])
        said = back_up(place, "shop")
        assert "reading all collections: snapshot" in said
        assert "no longer has operation" in said or "has taken back operation" in said
        check(place, server, "shop")
        assert len(place.program.rows("mongo", "ranges")) == 2
        with server.client() as client:
            client.shop.orders.insert_one({"_id": 1999})
            place.program.run("mongo", "tail", "--once", *WORDS)
            client.shop.orders.insert_many([{"_id": n} for n in range(2000, 4000)])
        ran = place.program.run("mongo", "tail", "--once", *WORDS)
        assert "there is a hole in the log" in ran.err


def until(happens: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not happens():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen")
        time.sleep(0.05)


def started(place: Place, *arguments: str) -> "subprocess.Popen[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=clean | place.program.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_tail_stores_slices_and_the_last_one_when_it_is_ended(
    live: Place, mongo: Server, database: str
) -> None:
    back_up(live, database)
    tail = started(live, "mongo", "tail", "--every", "1s", *WORDS)
    try:
        with mongo.client() as client:
            orders = client[database].orders
            orders.insert_one({"_id": 5000})
            until(lambda: len(live.program.rows("snapshots")) > 1, "the first slice")
            before = on_server(mongo.uri, database, "orders")
            orders.delete_many({"_id": {"$lt": 150}})
            orders.insert_one({"_id": 6000})
        seen = ["mongo", "log", f"{database}.orders", "--id", "6000"]
        until(lambda: "6000" in live.program.run(*seen, status=None).text, "a slice with the last operation")
    finally:
        tail.send_signal(signal.SIGTERM)
    out, errors = tail.communicate(timeout=60)
    assert tail.returncode == 0, errors
    assert out.splitlines()[-1].startswith("the log is stored until")
    live.program.run("mongo", "tail", "--once", *WORDS)
    (row,) = live.program.rows("mongo", "ranges")
    after = on_server(mongo.uri, database, "orders")
    assert dumped(live, "--at", str(row["end"]))["orders.bson"] == b"".join(after)
    versions = live.program.rows("mongo", "log", f"{database}.orders", "--id", "7")
    assert [version["op"] for version in versions] == ["snapshot", "delete"]
    deleted = str(versions[-1]["operation"])
    said = live.program.text(
        "mongo", "get", f"{database}.orders", "--id", "7", "--at", deleted, "--before-op"
    )
    assert said == '{"_id":7,"total":10.5}\n'
    copy = f"{database}_copy"
    live.program.run(
        "restore", "--at", deleted, "--before-op", "--to-mongo", "-", "--rename", f"{database}={copy}"
    )
    try:
        restored = on_server(mongo.uri, copy, "orders")
        assert set(before) >= set(restored)
        assert len(restored) > 190
    finally:
        with mongo.client() as client:
            client.drop_database(copy)


def test_a_tail_outlives_a_lost_connection(live: Place, mongo: Server, database: str) -> None:
    back_up(live, database)
    address = mongo.uri.removeprefix("mongodb://").partition("/")[0]
    with Relay(address) as relay:
        uri = f"{relay.uri}&serverSelectionTimeoutMS=300"
        with_set = live.program.environ | {"DSTORE_MONGO_URI": uri}
        live.program.environ = with_set
        tail = started(live, "mongo", "tail", "--every", "1s", *WORDS)
        errors: list[str] = []
        assert tail.stderr is not None
        reader = threading.Thread(target=lambda: errors.extend(tail.stderr or ()))
        reader.start()
        try:
            until(lambda: any("following the log" in line for line in errors), "the beginning")
            relay.refuse = True
            relay.cut()
            until(lambda: any("trying again in" in line for line in errors), "a word about the loss")
            with mongo.client() as client:
                client[database].orders.insert_one({"_id": 7000})
            relay.refuse = False
            until(
                lambda: (
                    "7000"
                    in live.program.run(
                        "mongo", "log", f"{database}.orders", "--id", "7000", status=None
                    ).text
                ),
                "the slice after the loss",
            )
        finally:
            tail.send_signal(signal.SIGINT)
        tail.wait(60)
        reader.join(60)
        for stream in (tail.stdout, tail.stderr):
            assert stream is not None
            stream.close()
    assert tail.returncode == 0, errors
    assert len(live.program.rows("mongo", "ranges")) == 1


def test_what_is_there_already_is_refused_dropped_or_replaced(
    live: Place, mongo: Server, database: str
) -> None:
    back_up(live, database)
    wanted = on_server(mongo.uri, database, "orders")
    load = ["restore", "--to-mongo", "-", "--include", f"{database}.orders"]
    said = live.program.error(*load, status=1)
    assert f"{database}.orders is there already and holds documents" in said
    assert said == live.program.error(*load, "--dry-run", status=1)
    with mongo.client() as client:
        orders = client[database].orders
        orders.delete_one({"_id": 3})
        orders.update_one({"_id": 4}, {"$set": {"total": -1}})
        orders.insert_one({"_id": 9999})
        assert "would write 1 collection" in live.program.text(*load, "--existing", "replace", "--dry-run")
        assert orders.count_documents({}) == 200
        summary = live.program.summary(*load, "--existing", "replace")
        assert summary["documents"] == 200
        assert orders.count_documents({}) == 201
        live.program.run(*load, "--existing", "drop")
        assert on_server(mongo.uri, database, "orders") == wanted
        assert "total_1" in orders.index_information()
        orders.delete_many({"_id": {"$in": [5, 6]}})
        live.program.run(*load, "--id", "5")
        assert orders.count_documents({}) == 199


def test_mongo_load_is_restore_to_mongo(live: Place, mongo: Server, database: str) -> None:
    back_up(live, database)
    copy = f"{database}_copy"
    try:
        words = ["--rename", f"{database}.*={copy}.*", "--exclude", "admin"]
        summary = live.program.summary("mongo", "load", mongo.uri, "latest", *words)
        assert summary["collections"] == 2
        assert on_server(mongo.uri, copy, "orders") == on_server(mongo.uri, database, "orders")
    finally:
        with mongo.client() as client:
            client.drop_database(copy)


def test_a_load_that_broke_off_is_gone_on_with(live: Place, mongo: Server, database: str) -> None:
    with mongo.client() as client:
        client[database].big.insert_many([{"_id": n, "text": "x" * 1000} for n in range(12_000)])
        back_up(live, database, "--collection", "big")
        client[database].big.drop()
        words = ["restore", "--to-mongo", "-", "--include", f"{database}.big"]
        load = started(live, *words)
        big = client[database].big
        until(lambda: load.poll() is not None or big.estimated_document_count() > 0, "the first documents")
        load.send_signal(signal.SIGINT)
        _, errors = load.communicate(timeout=60)
        if load.returncode == 0:
            pytest.skip("it was faster than the signal")
        assert load.returncode == 130, errors
        there = client[database].big.count_documents({})
        assert there > 0
        assert "is there already" in live.program.error(*words, "--dry-run", status=1)
        live.program.run(*words, "--resume")
        assert client[database].big.count_documents({}) == 12_000


def test_no_word_holds_a_password(place: Place) -> None:
    uri = "mongodb://me:s3cr3t@127.0.0.1:1/?serverSelectionTimeoutMS=100"
    for words in (
        ["snapshot", "--mongo", uri],
        ["mongo", "tail", "--mongo", uri],
        ["restore", "--to-mongo", uri],
    ):
        ran = place.program.run(*words, status=None)
        assert ran.status != 0
        assert "s3cr3t" not in ran.err
    assert not any(b"s3cr3t" in path.read_bytes() for path in place.folder.rglob("*") if path.is_file())
