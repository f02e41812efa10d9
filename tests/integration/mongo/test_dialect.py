"""The log of SecantusDB in mongod's words: replayed, it gives what the server has."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from pymongo.errors import OperationFailure

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.catalog import Catalog, Selection, read_catalog
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.oplog import OplogTail, majority_point
from dedupstore.sources.oplog.diff import apply_update
from dedupstore.sources.oplog.entry import command_of, parse_entry
from tests.support import live, servers

UPDATES: list[dict[str, Any]] = [
    {"$set": {"a": 1, "deep.er.est": 2}},
    {"$set": {"list.1": "one", "new": {"x": 1}}},
    {"$push": {"list": 9}},
    {"$pop": {"list": 1}},
    {"$pop": {"list": -1}},
    {"$unset": {"a": 1, "deep.er": 1}},
    {"$inc": {"n": 1, "deep.count": 2}},
    {"$rename": {"n": "m"}},
    {"$set": {"list": [[1, 2], {"b": [3]}]}},
    {"$set": {"list.1.b.0": "inner"}},
    {"$push": {"list.0": 4}},
    {"$set": {"numbers.0": "a name"}},
    {"$set": {"numbers.7.x": 1}},
]


@contextlib.contextmanager
def followed(server: servers.Server) -> Iterator[OplogTail]:
    deployment = connect(server.uri)
    dialect = ChangeStreamDialect(read_catalog(deployment.node(), Selection()))
    point = majority_point(deployment.node())
    assert point is not None
    tail = OplogTail(deployment, point, exact=False, dialect=dialect)
    try:
        yield tail
    finally:
        tail.close()
        deployment.close()


def drained(tail: OplogTail) -> list[bytes]:
    found: list[bytes] = []
    while entries := tail.poll(0.3):
        found += entries
    return found


def test_any_updates(fresh_secantus: servers.Server) -> None:
    chance = random.Random(7)
    with fresh_secantus.client() as client, followed(fresh_secantus) as tail:
        made = client["d"]["c"]
        made.insert_many([{"_id": n, "list": [1, 2, 3], "numbers": {"0": 1, "7": {}}} for n in range(6)])
        for _ in range(400):
            update = chance.choice(UPDATES)
            with contextlib.suppress(OperationFailure):  # a path that leads nowhere in that document
                made.update_one({"_id": chance.randrange(6)}, update, upsert=chance.random() < 0.1)
            if chance.random() < 0.05:
                made.replace_one({"_id": chance.randrange(6)}, {"list": [1], "n": 0})
            if chance.random() < 0.02:
                made.delete_one({"_id": chance.randrange(6)})
        documents: dict[bytes, bytes] = {}
        for entry in drained(tail):
            apply(documents, entry)
    found = {raw.id_of(document): document for document in live.on_server(fresh_secantus.uri, "d", "c")}
    assert documents.keys() == found.keys()
    for identity, document in documents.items():
        assert bson.decode(document) == bson.decode(found[identity])


def apply(documents: dict[bytes, bytes], entry: bytes) -> None:
    parsed = parse_entry(entry)
    if parsed.op == "i":
        documents[raw.id_of(parsed.o)] = parsed.o
    elif parsed.op == "u":
        identity = raw.id_of(parsed.o2)
        documents[identity] = apply_update(documents[identity], parsed.o)
    elif parsed.op == "d":
        del documents[raw.id_of(parsed.o)]


def test_definitions(fresh_secantus: servers.Server) -> None:
    with fresh_secantus.client() as client, followed(fresh_secantus) as tail:
        made = client["d"]
        made["implicit"].insert_one({"_id": 1})
        made.create_collection("seen", viewOn="implicit", pipeline=[{"$match": {}}])
        made["implicit"].create_index([("a", 1)], unique=True)
        made["implicit"].rename("renamed")
        made["renamed"].insert_one({"_id": 2, "a": 2})
        made.drop_collection("seen")
        entries = [parse_entry(entry) for entry in drained(tail)]
    said = [(e.op, e.ns, command_of(e) if e.op == "c" else "") for e in entries if e.op != "n"]
    assert said == [
        ("c", "d.$cmd", "create"),
        ("i", "d.implicit", ""),
        ("i", "d.system.views", ""),
        ("c", "d.$cmd", "createIndexes"),
        ("c", "d.$cmd", "renameCollection"),
        ("i", "d.renamed", ""),
        ("d", "d.system.views", ""),
    ]
    written = [e for e in entries if e.op != "n" and not e.ns.endswith("system.views")]
    assert len({e.ui for e in written}) == 1
    index = bson.decode(written[2].o)
    assert list(index) == ["createIndexes", "v", "key", "name", "unique"]
    view = bson.decode(next(e.o for e in entries if e.ns == "d.system.views"))
    assert view == {"_id": "d.seen", "viewOn": "implicit", "pipeline": [{"$match": {}}]}


@pytest.mark.parametrize(
    "o",
    [
        {"$v": 2, "diff": {"u": {"a": 1}}},
        {"$v": 2, "diff": {"sx": {"u": {"a": 1}}}},
        {"$v": 1, "$set": {"a": 1}},
        {"$v": 2, "diff": 1},
        {"$v": 2, "diff": {"updatedFields": 1}},
        {"$v": 2, "diff": {"truncatedArrays": [1]}},
    ],
)
def test_another_servers_words_are_refused(o: dict[str, object]) -> None:
    entry = {"op": "u", "ns": "d.c", "ui": bson.Binary(b"u" * 16, 4), "o": o, "o2": {"_id": 1}}
    with pytest.raises(SourceError, match="--oplog-dialect"):
        ChangeStreamDialect(Catalog(())).translated(bson.encode(entry | {"ts": bson.Timestamp(1, 1)}))
