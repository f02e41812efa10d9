"""``mongo serve`` as a program, over a snapshot and its log, with a driver and what mongodump asks for."""

import contextlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from dedupstore.documents.stored import StoredDump
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW, CollectionInfo
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.bson.source import DumpSource
from dedupstore.testing.oplog.fuzzy import Reader
from tests.integration.mongo_cli.conftest import Place
from tests.integration.mongo_cli.test_mongo_at import (
    HISTORY,
    LAST,
    check_dump,
    collections,
    dump_in,
    operation,
)
from tests.support import repos
from tests.support.dumps import LEAVES, Dump, Made, write_folder
from tests.support.generated import put_base, put_slices

RAW: bson.CodecOptions[RawBSONDocument] = bson.CodecOptions(document_class=RawBSONDocument)
ROOT = Path(__file__).resolve().parents[3]
Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture
def chain(place: Place) -> Place:
    with place.open() as repo:
        put_slices(repo, HISTORY, 0, LAST, number=5)
        put_base(repo, place.folder, HISTORY, Reader(HISTORY, 1).scan(60, 90))
    return place


@contextlib.contextmanager
def served(place: Place, *words: str, end: int = signal.SIGTERM, **environ: str) -> Iterator[dict[str, Any]]:
    """Run the program until the end of the block; it must end by a signal with status 0."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
    command = [sys.executable, "-m", "cli", "--json", "mongo", "serve", "--listen", "127.0.0.1:0", *words]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean | place.program.environ | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, child.stderr.read() if child.stderr else ""
        told = json.loads(line)
        assert told["type"] == "listening"
        yield told
        child.send_signal(end)
        out, errors = child.communicate(timeout=20)
        assert (child.returncode, out, errors) == (0, "", "")
    finally:
        child.kill()
        child.communicate()


def only_id(document: bytes) -> RawBSONDocument:
    identity = id_of(document)
    return RawBSONDocument(raw.document([(b"_id", identity[0], identity[1:])]))


def documents(client: Client, db: str, name: str) -> list[bytes]:
    """All of a collection, asked as mongodump does: a driver would refuse names with a dollar sign."""
    found: list[bytes] = []
    with client.start_session() as session:
        command: dict[str, Any] = {"find": name, "noCursorTimeout": True}
        while True:
            cursor = client[db].command(command, codec_options=RAW, session=session)["cursor"]
            batch = cursor["firstBatch" if "find" in command else "nextBatch"]
            found += [bytes(document.raw) for document in batch]
            if not cursor["id"]:
                return found
            command = {"getMore": cursor["id"], "collection": name}


@pytest.mark.parametrize("index", [200, LAST])
def test_every_collection_at_any_operation(chain: Place, index: int) -> None:
    with served(chain, "--at", operation(index)) as told, pymongo.MongoClient(told["uri"]) as client:
        assert told["operation"] == operation(index)
        wanted = collections(index)
        listed = {
            (db, one["name"]): one
            for db in client.list_database_names()
            for one in client[db].list_collections()
            if not one["name"].startswith("system.buckets.")
        }
        assert listed.keys() == wanted.keys()
        for (db, name), one in wanted.items():
            assert listed[db, name]["type"] == one.kind
            if one.kind == VIEW:
                continue
            held = name if one.kind == "collection" else f"system.buckets.{name}"
            found = documents(client, db, held)
            assert sorted(found) == sorted(one.documents.values())
            assert client[db].command("count", held)["n"] == len(found)
            counted = {"aggregate": held, "pipeline": [{"$count": "n"}], "cursor": {}}
            assert client[db].command(counted)["cursor"]["firstBatch"] == (
                [{"n": len(found)}] if found else []
            )
            for document in found[:3]:
                command = {"find": held, "filter": only_id(document)}
                alone = client[db].command(command, codec_options=RAW)["cursor"]["firstBatch"]
                assert [bytes(one.raw) for one in alone] == [document]


def test_queries_over_a_replayed_collection(chain: Place) -> None:
    with served(chain, "--at", operation(LAST)) as told, pymongo.MongoClient(told["uri"]) as client:
        (db, name), one = max(
            (
                (n, c)
                for n, c in collections(LAST).items()
                if c.kind == "collection" and b"capped" not in c.options
            ),
            key=lambda pair: len(pair[1].documents),
        )
        stored = documents(client, db, name)
        assert len(stored) == len(one.documents) > 20
        held = client[db].get_collection(name, codec_options=RAW)
        middle = only_id(stored[len(stored) // 2])
        assert [bytes(d.raw) for d in held.find().min(list(middle.items())).hint("_id_")] == stored[
            len(stored) // 2 :
        ]
        assert [bytes(d.raw) for d in held.find().sort("_id", -1).limit(5)] == stored[:-6:-1]
        assert [bytes(d.raw) for d in held.find().skip(3).limit(4)] == stored[3:7]
        grouped = list(client[db][name].aggregate([{"$group": {"_id": {"$type": "$_id"}, "n": {"$sum": 1}}}]))
        assert sum(group["n"] for group in grouped) == len(stored)
        assert len({id_of(bytes(d.raw)) for d in held.aggregate([{"$sample": {"size": 10}}])}) == 10


def dump_by_commands(client: Client) -> dict[str, tuple[str, list[bytes], list[bytes]]]:
    """Ask what mongodump asks, in its order; returns kind, documents and indexes of each collection."""
    admin = client.admin
    admin.command("isMaster")
    admin.command("ping")
    with contextlib.suppress(OperationFailure):
        admin.command("atlasVersion")
    version = admin.command("buildInfo")["version"]
    assert version < "8.3"
    found = {}
    for database in admin.command("listDatabases", nameOnly=True)["databases"]:
        db = client[database["name"]]
        for one in db.command("listCollections", cursor={})["cursor"]["firstBatch"]:
            name, kind = one["name"], one["type"]
            if name.startswith("system.buckets."):
                continue
            held = f"system.buckets.{name}" if kind == "timeseries" else name
            data: list[bytes] = []
            indexes: list[bytes] = []
            if kind != VIEW:
                number = db.command("count", held)["n"]
                listed = db.command({"listIndexes": name, "cursor": {}}, codec_options=RAW)["cursor"][
                    "firstBatch"
                ]
                indexes = [bytes(index.raw) for index in listed]
                data = documents(client, database["name"], held)
                assert number == len(data)
            found[f"{database['name']}.{name}"] = kind, data, indexes
    return found


def test_what_mongodump_asks_for_in_its_order(chain: Place) -> None:
    with served(chain, "--at", operation(LAST)) as told, pymongo.MongoClient(told["uri"]) as client:
        found = dump_by_commands(client)
        for (db, name), one in collections(LAST).items():
            kind, data, indexes = found.pop(f"{db}.{name}")
            assert kind == one.kind
            assert sorted(data) == sorted(one.documents.values())
            assert indexes == ([] if kind == VIEW else list(one.indexes))
        assert not found


def test_the_real_mongodump(chain: Place, mongodump: Path, tmp_path: Path) -> None:
    with served(chain, "--at", operation(LAST)) as told:
        command = [str(mongodump), "--quiet", "--uri", told["uri"], "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
    check_dump(dump_in(tmp_path / "out"), LAST)


def test_damage_in_a_pack_leaves_the_rest(place: Place, tmp_path: Path) -> None:
    chance = random.Random(1)
    one, two = (
        Made(
            CollectionInfo("shop", name),
            tuple(bson.encode({"_id": n, "data": chance.randbytes(1000)}) for n in range(3000)),
        )
        for name in ("damaged", "whole")
    )
    folder = write_folder(Dump([one, two]), tmp_path / "dump")
    with place.open() as repo:
        result = repos.run(repo, DumpSource([os.fsencode(folder)], LEAVES))
        held = StoredDump(repo, result.snapshot).find("shop", "damaged")
        other = StoredDump(repo, result.snapshot).find("shop", "whole")
        assert held is not None
        assert other is not None
        spared = {at.record for at in repo.index.find([i for i, _, _ in other.leaves()]) if at}
        places = repo.index.find([chunk for chunk, _, _ in held.leaves()])
        where = next((at.record for at in reversed(places) if at and at.record not in spared), None)
        assert where is not None, "both collections lie in the same records"
    (pack,) = (place.folder / "repository" / "packs").rglob(where.pack.hex())
    data = bytearray(pack.read_bytes())
    data[where.offset + 200] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    with served(place) as told, pymongo.MongoClient(told["uri"]) as client:
        with pytest.raises(OperationFailure, match=where.pack.hex()[:8]) as caught:
            list(client.shop.damaged.find())
        assert caught.value.details is not None
        assert caught.value.details["codeName"] == "DataCorruptionDetected"
        assert documents(client, "shop", "whole") == list(two.documents)


def test_a_login_from_a_file_or_the_environment_and_encryption(chain: Place, tmp_path: Path) -> None:
    password, certificate = tmp_path / "password", tmp_path / "server.pem"
    password.write_text("s3cret\n")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout", str(certificate),
         "-out", str(tmp_path / "cert")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "cert").read_bytes())
    words = ["--user", "reader", "--user-password-file", str(password), "--tls-cert", str(certificate)]
    options: dict[str, Any] = {"tls": True, "tlsCAFile": str(tmp_path / "cert")}
    with (
        served(chain, *words, end=signal.SIGINT) as told,
        pymongo.MongoClient(told["uri"], username="reader", password="s3cret", **options) as client,
    ):
        assert told["tls"]
        assert client.list_database_names()
        with (
            socket.create_connection(tuple(told["address"].rsplit(":", 1))) as plain,
            contextlib.suppress(OSError),
        ):
            plain.sendall(bytes(100))
            assert not plain.recv(100).startswith(b"\x10")
        context = ssl.create_default_context(cafile=str(tmp_path / "cert"))
        with (
            pymongo.MongoClient(told["uri"], **options) as stranger,
            pytest.raises(OperationFailure) as caught,
        ):
            stranger.list_database_names()
        assert caught.value.code == 13
        assert context.check_hostname
    with (
        served(chain, "--user", "reader", DSTORE_SERVE_PASSWORD="other") as told,
        pymongo.MongoClient(told["uri"], username="reader", password="other") as client,
    ):
        assert client.list_database_names()


def test_only_a_part_is_served(chain: Place) -> None:
    (db, name), one = next((n, c) for n, c in collections(LAST).items() if c.kind == "collection")
    with (
        served(chain, "--at", operation(LAST), "--db", db, "--collection", name) as told,
        pymongo.MongoClient(told["uri"]) as client,
    ):
        assert told["collections"] == 1
        assert client.list_database_names() == [db]
        assert client[db].list_collection_names() == [name]
        assert len(documents(client, db, name)) == len(one.documents)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--listen", "0.0.0.0:0"], "so a login is required: give --user NAME"),
        (["--listen", "[::]:0"], "so a login is required"),
        (["--listen", "nowhere"], "no address to listen at"),
        (["--listen", "::1:27018"], "in brackets"),
        (["--listen", "127.0.0.1:99999"], "no address"),
        (["--user", "u"], "DSTORE_SERVE_PASSWORD"),
        (["--user-password-file", "x"], "name one by --user"),
        (["--tls-key", "x"], "--tls-cert"),
        (["--tls-cert", "/nowhere"], "certificate /nowhere"),
        (["--collection", "c"], "name it by --db"),
        (["--db", "nowhere"], "there is no nowhere"),
    ],
)
def test_words_that_make_no_sense(chain: Place, words: list[str], sentence: str) -> None:
    assert sentence in chain.program.error("mongo", "serve", *words, status=2)
