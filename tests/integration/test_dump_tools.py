"""Dumps of the real mongodump into a repository, and what comes out of it into the real mongorestore."""

import gzip
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import bson
import pymongo
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from dedupstore.sources.bson.archiveout import ArchiveWriter
from dedupstore.sources.bson.collection import CollectionInfo, metadata_json
from dedupstore.sources.bson.prelude import Entry, Namespace, Prelude
from dedupstore.sources.bson.source import DumpSource, archive_file
from tests.support import repos
from tests.support.dumps import LEAVES, numbered
from tests.support.servers import Server

Document: TypeAlias = dict[str, object]
COUNT = 3000


@pytest.fixture
def filled(mongo: Server, database: str) -> str:
    """A database: a collection out of order with an index, a capped one, an empty one, a view."""
    with mongo.client() as client:
        found = client[database]
        found.orders.insert_many([{"_id": n * 7 % COUNT, "text": "x" * (n % 300)} for n in range(COUNT)])
        found.orders.create_index([("text", 1), ("_id", -1)], name="by text", sparse=True)
        found.create_collection("log é/%", capped=True, size=1 << 20)
        found["log é/%"].insert_many([{"_id": -n, "n": n} for n in range(100)])
        found.create_collection("empty")
        found.create_collection("view", viewOn="orders", pipeline=[{"$match": {"_id": 1}}])
    return database


def run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()


def documents(server: Server, database: str, name: str) -> list[bytes]:
    options = CodecOptions(document_class=RawBSONDocument)
    with server.client() as client:
        collection = client[database].get_collection(name, codec_options=options)
        return [document.raw for document in collection.find()]


def catalog(server: Server, database: str) -> dict[str, tuple[str, object, object]]:
    with server.client() as client:
        found = {}
        for each in client[database].list_collections():
            name, kind = str(each["name"]), str(each["type"])
            indexes = {} if kind == "view" else client[database][name].index_information()
            options = {key: value for key, value in each["options"].items() if key != "autoIndexId"}
            found[name] = (kind, options, {key: index["key"] for key, index in indexes.items()})
        return found


def drop(server: Server, database: str) -> None:
    with server.client() as client:
        client.drop_database(database)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("as_archive", [False, True])
def test_what_mongodump_wrote_comes_back_through_mongorestore(
    mongo: Server,
    filled: str,
    mongodump: Path,
    mongorestore: Path,
    tmp_path: Path,
    packed: bool,
    as_archive: bool,
) -> None:
    place = tmp_path / ("archive" if as_archive else "dump")
    how = f"--archive={place}" if as_archive else f"--out={place}"
    run(mongodump, "--uri", mongo.uri, "--db", filled, how, *(["--gzip"] if packed else []))
    with repos.reopen(repos.prepared(tmp_path / "cache"), tmp_path / "cache") as repo:
        path = bytes(place)
        result = repos.run(repo, archive_file(path, LEAVES) if as_archive else DumpSource([path], LEAVES))
        files = repos.files_in(repo, result.snapshot, b"" if as_archive else path)
    assert result.findings == ()
    for name, data in files.items():
        target = tmp_path / "restored" / name.decode().lstrip("/")
        if data is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    before = (
        catalog(mongo, filled),
        {name: documents(mongo, filled, name) for name in ("orders", "log é/%", "empty")},
    )
    drop(mongo, filled)
    run(mongorestore, "--uri", mongo.uri, tmp_path / "restored")
    assert catalog(mongo, filled) == before[0]
    assert documents(mongo, filled, "log é/%") == before[1]["log é/%"]
    assert sorted(documents(mongo, filled, "orders")) == sorted(before[1]["orders"])
    assert documents(mongo, filled, "empty") == []


@pytest.mark.parametrize("packed", [False, True])
def test_mongorestore_takes_our_archive(
    mongo: Server, database: str, mongorestore: Path, tmp_path: Path, packed: bool
) -> None:
    names = ["one", "two é/%", "empty"]
    view = CollectionInfo(
        database, "view", "view", options=bson.encode({"viewOn": "one", "pipeline": [{"$match": {"_id": 1}}]})
    )
    index = bson.encode({"v": 2, "key": {"_id": 1}, "name": "_id_"})
    infos = [*(CollectionInfo(database, name, indexes=(index,)) for name in names), view]
    entries = tuple(
        Entry(Namespace(database, info.name), metadata_json(info), 0, info.kind) for info in infos
    )
    path = tmp_path / "archive"
    opener: Callable[..., object] = gzip.open if packed else open
    with opener(path, "wb") as out:  # type: ignore[attr-defined]
        writer = ArchiveWriter(out, Prelude(entries, "8.0.4", "100.16.1"))
        for n in range(COUNT):
            writer.write(entries[n % 2].namespace, numbered(n))
        writer.finish()
    run(mongorestore, "--uri", mongo.uri, f"--archive={path}", *(["--gzip"] if packed else []))
    for number, name in enumerate(names[:2]):
        found = documents(mongo, database, name)
        assert sorted(found) == sorted(numbered(n) for n in range(number, COUNT, 2))
    assert documents(mongo, database, "empty") == []
    assert catalog(mongo, database)["view"][0] == "view"
    if not packed:
        data = bytearray(path.read_bytes())
        data[data.index(numbered(99)) + 30] ^= 1
        path.write_bytes(data)
        drop(mongo, database)
        done = subprocess.run(
            [mongorestore, "--uri", mongo.uri, f"--archive={path}"],
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode != 0
        assert b"CRC" in done.stderr


def test_bsondump_reads_what_is_stored_of_a_collection(bsondump: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.bson"
    path.write_bytes(b"".join(map(numbered, range(100))))
    done = subprocess.run([bsondump, "--quiet", path], capture_output=True, timeout=100, check=True)
    assert len(done.stdout.splitlines()) == 100


def test_the_server_of_the_tests_answers(mongo: Server, filled: str) -> None:
    with mongo.client() as client:
        assert isinstance(client, pymongo.MongoClient)
    assert len(documents(mongo, filled, "orders")) == COUNT
    assert set(catalog(mongo, filled)) >= {"orders", "log é/%", "empty", "view"}
