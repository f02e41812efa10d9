"""Which instants can be had, of one server and of several."""

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.testing.oplog.fuzzy import Reader, exact
from dedupstore.testing.oplog.history import History
from tests.integration.mongo_cli.conftest import Place
from tests.support.generated import place as place_of
from tests.support.generated import put_base, put_collections, put_slices, settled
from tests.unit.export.views import Listed

HISTORY = History(1, 600)
BASE = settled(HISTORY, 100)
OTHER = {"uri": "mongodb://three:27017/?replicaSet=other", "set": "other"}


def operation(index: int) -> str:
    return str(place_of(HISTORY, index).ts)


def orders(text: str) -> list[Listed]:
    document = raw.document([(b"_id", raw.INT32, raw.int32(1)), (b"text", raw.STRING, raw.string(text))])
    return [Listed(CollectionInfo("shop", "orders"), [document])]


def test_a_chain_is_one_interval(place: Place) -> None:
    with place.open() as repo:
        put_slices(repo, HISTORY, 0, 300, number=4)
        identifier = put_base(repo, place.folder, HISTORY, Reader(HISTORY, 1).scan(50, 90))
    (row,) = place.program.rows("mongo", "ranges")
    assert row["server"] == "rs"
    assert (row["start"], row["end"]) == (operation(90), operation(300))
    assert row["snapshots"] == [identifier.hex()]
    assert row["why_ends"] == "nothing after it is archived yet"
    assert str(row["start_time"]).endswith("Z")
    table = place.program.text("mongo", "ranges")
    assert operation(90) in table
    assert identifier.hex()[:8] in table


def test_nothing_and_slices_alone_are_said(place: Place) -> None:
    ran = place.program.run("mongo", "ranges")
    assert ran.out == b""
    assert "no snapshot of a server is here" in ran.last
    assert place.program.rows("mongo", "ranges") == []
    with place.open() as repo:
        put_slices(repo, HISTORY, 0, 50)
    ran = place.program.run("mongo", "ranges")
    assert ran.out == b""
    assert "1 slice of the log and no snapshot to replay them onto" in ran.last


def test_several_servers_are_told_apart_by_name(place: Place) -> None:
    with place.open() as repo:
        put_base(repo, place.folder, HISTORY, exact(HISTORY, BASE))
        put_slices(repo, HISTORY, BASE, 200)
        put_collections(repo, place.folder, orders("theirs"), options=OTHER)
    rows = place.program.rows("mongo", "ranges")
    assert [row["server"] for row in rows] == ["rs"]
    assert (
        "other (three:27017): its snapshots do not say where the log stood"
        in place.program.run("mongo", "ranges").last
    )
    assert place.program.rows("mongo", "ranges", "--server", "oth") == []

    get = ["mongo", "get", "shop.orders", "--id", "1"]
    said = place.program.error(*get, status=2)
    assert "say which one by --server, other (three:27017) or rs (one:27017,two:27017)" in said
    assert "theirs" in place.program.text(*get, "--server", "other")
    assert "theirs" in place.program.text(*get, "--server", "three")
    assert "there is other" in place.program.error(*get, "--server", "four", status=1)
    said = place.program.error("restore", "--at", operation(150), "--target", place.folder / "x", status=2)
    assert "--server" in said
    place.program.run("restore", "--at", operation(150), "--target", place.folder / "x", "--server", "rs")
    assert (place.folder / "x" / "prelude.json").exists()


def test_slices_are_never_the_latest_snapshot(place: Place) -> None:
    with place.open() as repo:
        put_base(repo, place.folder, HISTORY, exact(HISTORY, BASE))
        put_slices(repo, HISTORY, BASE, 200, number=3)
        put_slices(repo, HISTORY, 200, 250)
    assert b"prelude.json" in place.program.run("ls").out
    assert b"prelude.json" in place.program.run("ls", "--at", "now").out
    assert place.program.run("cat", "/prelude.json").out.startswith(b"{")
    rows = place.program.rows("snapshots")
    assert [row["kind"] for row in rows] == ["mongo", "oplog", "oplog", "oplog", "oplog"]
    slices = str(rows[-1]["id"])[:12]
    assert b".bson" in place.program.run("ls", slices).out
    shown = place.program.run("snapshots")
    assert shown.text.count("log of rs") == 1
    assert "3 earlier slices of logs are not shown" in shown.last
    assert "holds slices of a log, no collections" in place.program.error(
        "mongo", "get", "shop.orders", slices, "--id", "1", status=2
    )


def test_without_a_log_a_time_is_that_of_the_newest_snapshot_by_then(place: Place) -> None:
    with place.open() as repo:
        put_collections(repo, place.folder, orders("first"), ends=(place_of(HISTORY, 10),) * 2)
        put_collections(repo, place.folder, orders("second"), ends=(place_of(HISTORY, 500),) * 2)
    between = place_of(HISTORY, 500).ts.seconds - 1
    get = ["mongo", "get", "shop.orders", "--id", "1"]
    assert "first" in place.program.text(*get, "--at", f"@{between}")
    assert "second" in place.program.text(*get, "--at", "now")
    assert "second" in place.program.text(*get, "--at", operation(500))
    target = place.folder / "files"
    summary = place.program.summary("restore", "--at", f"@{between}", "--target", target)
    assert summary["files"] == 3
    assert b"first" in (target / "shop" / "orders.bson").read_bytes()
