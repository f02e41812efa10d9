"""What command lines mean, and what is said of those that make no sense."""

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from cli import interrupt
from cli.mongouri import has_password, mongo_uri
from cli.quantities import parse_duration
from dedupstore.errors import UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW, CollectionInfo, metadata_json, prelude_json
from tests.integration.mongo_cli.conftest import Place
from tests.support.generated import put_collections
from tests.unit.export.views import Listed

LOCAL = "mongodb://127.0.0.1:1/"
VIEW_ON_HITS = raw.document([(b"viewOn", raw.STRING, raw.string("hits"))])


def numbered(count: int) -> list[bytes]:
    return [raw.document([(b"_id", raw.INT32, raw.int32(n))]) for n in range(count)]


@pytest.fixture
def stored(place: Place) -> Place:
    with place.open() as repo:
        collections = [
            Listed(CollectionInfo("shop", "orders"), numbered(5)),
            Listed(CollectionInfo("shop", "users"), numbered(2)),
            Listed(CollectionInfo("web", "hits"), numbered(3)),
            Listed(CollectionInfo("web", "seen", VIEW, options=VIEW_ON_HITS)),
        ]
        put_collections(repo, place.folder, collections)
    return place


ORDER_1 = ["mongo", "get", "shop.orders", "--id", "1"]
USER_9 = ["--include", "shop.users", "--id", "9"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["restore"], 2, "Give --target DIR, or --to-mongo URI"),
        (["restore", "--target", "x", "--to-mongo", LOCAL], 2, "contradict each other"),
        (["restore", "--target", "x", "--resume"], 2, "are for --to-mongo"),
        (["restore", "--to-mongo", LOCAL, "--delete"], 2, "--delete is for files"),
        (["restore", "--to-mongo", LOCAL, "/shop"], 2, "named by --include database.collection"),
        (["restore", "--to-mongo", "-"], 2, "set DSTORE_MONGO_URI"),
        (["restore", "--to-mongo", ""], 2, "an empty URI"),
        (["restore", "--to-mongo", "localhost"], 2, "the MongoDB URI can not be read"),
        (["restore", "--to-mongo", LOCAL, "--existing", "maybe"], 2, "write refuse, drop, replace"),
        (["restore", "--target", "x", "--id", "1"], 2, "name it by --include"),
        (["restore", "--target", "x", "--id", "1", "--include", "shop"], 2, "2 fit"),
        (["restore", "--target", "x", *USER_9], 1, "no document with the _id 9"),
        (["restore", "--target", "x", "--rename", "shop=web", "--include", "nix"], 2, "no collection fits"),
        (["restore", "--target", "x", "--rename", "shop.users=shop.orders"], 2, "would both be called"),
        (["restore", "--target", "x", "--rename", "shop.user=shop.copy"], 2, "fits no collection that is"),
        (["restore", "--target", "x", "--include", "shop", "--rename", "web=w"], 2, "'web=w' fits no"),
        (["mongo", "dump", "--archive", ""], 2, "--archive needs a name"),
        (["mongo", "dump", "--archive", "/"], 2, "is a folder"),
        (["mongo", "get", "shop", "--id", "1"], 2, "names no collection"),
        (["mongo", "get", "shop.orders", "--id", "{"], 2, "is no _id"),
        ([*ORDER_1, "--raw", "--canonical"], 2, "--raw writes BSON"),
        ([*ORDER_1, "--at", "soon"], 2, "is not a time"),
        ([*ORDER_1, "latest", "--at", "now"], 2, "leave 'latest' or --at out"),
        ([*ORDER_1, "--at", "now", "--before-op"], 2, "of one operation"),
        ([*ORDER_1, "--at", "1700000000:1"], 1, "no server's log is stored"),
        (["mongo", "get", "shop.orders", "--id", "9"], 1, "has no document with the _id 9"),
        (["mongo", "get", "web.seen", "--id", "1"], 1, "is a view and holds no"),
        (["mongo", "tail"], 2, "set DSTORE_MONGO_URI"),
        (["mongo", "tail", "--every", "often"], 2, "is no duration"),
        (["mongo", "tail", "--every", "0s"], 2, "slices that small"),
        (["mongo", "tail", "--mongo", LOCAL, "--oplog-dialect", "x"], 2, "--oplog-dialect x is unknown"),
        (["snapshot", "--db", "shop"], 2, "name it by --mongo URI"),
        (["snapshot", "--mongo", LOCAL, "--collection", "x"], 2, "name that by --db"),
        (["snapshot", "--mongo", LOCAL, "--db", "a b"], 2, "names no collection"),
        (["snapshot", "--mongo", LOCAL, "/etc"], 2, "nothing else is backed up"),
        (["snapshot", "--mongo", LOCAL, "--exclude", "x"], 2, "there are no files"),
        (["snapshot", "--mongo", LOCAL, "--archive", "x"], 2, "contradict each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_said_in_one_sentence(
    stored: Place, arguments: list[str], status: int, sentence: str
) -> None:
    ran = stored.program.run(*arguments, status=status)
    assert sentence in ran.last
    assert ran.out == b""
    assert "Traceback" not in ran.err


def test_a_name_with_a_dot_means_a_collection_of_a_server(stored: Place) -> None:
    target = stored.folder / "out"
    summary = stored.program.summary("restore", "--target", target, "--include", "shop.*")
    assert summary["collections"] == 2
    assert {path.name for path in (target / "shop").iterdir()} == {
        "orders.bson", "orders.metadata.json", "users.bson", "users.metadata.json",
    }  # fmt: skip
    files = stored.folder / "files"
    stored.program.run("restore", "--target", files, "--include", "*.bson")
    assert sorted(path.name for path in files.rglob("*.*")) == ["hits.bson", "orders.bson", "users.bson"]


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(stored: Place) -> None:
    target = stored.folder / "out"
    words = ["restore", "--target", target, "--rename", "shop.*=copy.*", "--exclude", "web", "--dry-run"]
    summary = stored.program.summary(*words)
    assert summary["plan"] == [
        {
            "collection": "shop.orders",
            "becomes": "copy.orders",
            "kind": "collection",
            "documents": 5,
            "bytes": 70,
        },
        {
            "collection": "shop.users",
            "becomes": "copy.users",
            "kind": "collection",
            "documents": 2,
            "bytes": 28,
        },
    ]
    assert "copy.users" in stored.program.text(*words)
    assert not target.exists()


def test_documents_by_id(stored: Place) -> None:
    target = stored.folder / "out"
    words = ["restore", "--target", target, "--include", "shop.orders", "--id", "3", "--id", "1"]
    assert stored.program.summary(*words)["documents"] == 2
    assert (target / "shop" / "orders.bson").read_bytes() == numbered(4)[1] + numbered(4)[3]


def test_an_archive_that_is_there_is_replaced_when_the_new_one_is_whole(stored: Place) -> None:
    out = stored.folder / "out.archive"
    out.write_bytes(b"before")
    stored.program.run("mongo", "dump", "--archive", out, "--include", "nix", status=2)
    assert out.read_bytes() == b"before"
    stored.program.run("mongo", "dump", "--archive", out, "--dry-run")
    assert out.read_bytes() == b"before"
    stored.program.run("mongo", "dump", "--archive", out)
    assert out.read_bytes().startswith(b"\x6d\xe2\x99\x81")
    said = stored.program.error("mongo", "dump", "--archive", stored.folder / "no" / "where", status=1)
    assert "can not be written: No such file or directory" in said


def test_an_archive_goes_through_links_and_into_what_is_no_file(stored: Place) -> None:
    out, link, pipe = (stored.folder / name for name in ("out.archive", "link", "pipe"))
    out.write_bytes(b"before")
    link.symlink_to(out)
    stored.program.run("mongo", "dump", "--archive", link)
    assert link.is_symlink()
    whole = out.read_bytes()
    assert whole.startswith(b"\x6d\xe2\x99\x81")
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    stored.program.run("mongo", "dump", "--archive", pipe)
    reader.join(60)
    assert pipe.is_fifo()
    assert [len(one) for one in found] == [len(whole)]
    said = stored.program.error("mongo", "dump", "--archive", "/dev/full", status=1)
    assert "No space left on device" in said
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert not list(stored.folder.glob("*.dstore-partial"))


def test_a_dump_folder_can_be_looked_into_as_well(place: Place, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    (dump / "shop").mkdir(parents=True)
    (dump / "prelude.json").write_bytes(prelude_json("6.0.1", "test"))
    info = CollectionInfo("shop", "orders")
    (dump / "shop" / "orders.metadata.json").write_bytes(metadata_json(info))
    (dump / "shop" / "orders.bson").write_bytes(b"".join(numbered(4)))
    place.program.run("snapshot", dump)
    assert place.program.text("mongo", "get", "shop.orders", "--id", "3") == '{"_id":3}\n'
    assert place.program.run("mongo", "get", "shop.orders", "--id", "3", "--raw").out == numbered(4)[3]
    out = place.program.run("mongo", "dump", "--archive", "-").out
    assert b"6.0.1" in out
    assert b"".join(numbered(4)) in out
    rows = place.program.rows("mongo", "log", "shop.orders", "--id", "3")
    assert [(row["op"], row["document"]) for row in rows] == [("snapshot", {"_id": 3})]


def test_where_the_uri_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"DSTORE_MONGO_URI": "mongodb://there/"}
    assert mongo_uri(None, environ) == mongo_uri("-", environ) == "mongodb://there/"
    assert mongo_uri("mongodb://here/", environ) == "mongodb://here/"
    assert capsys.readouterr().err == ""
    assert mongo_uri("mongodb://me:secret@here/", {}) == "mongodb://me:secret@here/"
    said = capsys.readouterr().err
    assert "everybody on this machine can see the password" in said
    assert "secret" not in said
    with pytest.raises(UsageError, match="DSTORE_MONGO_URI"):
        mongo_uri("-", {"DSTORE_MONGO_URI": ""})
    assert not has_password("mongodb://me@here/?x=:y@z")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("10m", 600), ("1.5h", 5400), ("1 D", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "1w", "10 minutes"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text)


def test_a_signal_asks_and_only_asks() -> None:
    asked: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with interrupt.asking(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGTERM)
        assert asked == [1]
    assert signal.getsignal(signal.SIGTERM) == before
