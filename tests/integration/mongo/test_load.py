"""A server loaded: everything as it was, nothing touched that is not to be, gone on with after a break."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from bson import Decimal128, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument

from dedupstore.errors import TargetError
from dedupstore.findings import Finding
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.mongo.catalog import Selection, read_catalog
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.load import Existing, Loader, LoadOptions
from tests.support import live, servers
from tests.support.relay import Relay

DOCUMENTS = [
    bson.encode({"_id": n, "t": "x" * 100, "": Decimal128("1.0"), "z": Timestamp(0, 0) if n % 99 == 5 else n})
    for n in range(3000)
]


def info(db: str, name: str, kind: str = "collection", **options: Any) -> CollectionInfo:
    return CollectionInfo(db, name, kind, b"", bson.encode(options))


def load(
    uri: str, wanted: Sequence[tuple[CollectionInfo, list[bytes]]], options: LoadOptions | None = None
) -> Sequence[Finding]:
    loader = Loader(connect(uri, family=TargetError), options, job="a job")
    try:
        loader.begin([one for one, _ in wanted])
        for one, documents in wanted:
            loader.collection(one, iter(documents))
        return loader.finish()
    finally:
        loader.close()


def test_documents_arrive_byte_for_byte(mongo: servers.Server, database: str) -> None:
    assert load(mongo.uri, [(info(database, "c"), DOCUMENTS), (info(database, "none"), [])]) == []
    assert live.on_server(mongo.uri, database, "c") == DOCUMENTS
    assert live.on_server(mongo.uri, database, "none") == []


def test_the_catalog_of_one_server_on_another(
    mongo: servers.Server, database: str, fresh_secantus: servers.Server
) -> None:
    with fresh_secantus.client() as client:
        made = client[database]
        made.create_collection("strict", validator={"a": {"$gt": 5}}, validationAction="error")
        made.command("insert", "strict", documents=[{"_id": 1, "a": 1}], bypassDocumentValidation=True)
        made["strict"].create_index([("b", 1), ("a", -1)], unique=True)
        made["strict"].create_index([("t", 1)], expireAfterSeconds=1000)
        made.create_collection("spoken", collation=pymongo.collation.Collation("sv", strength=2))
        made.create_collection("ring", capped=True, size=8192, max=100)
        made["ring"].insert_many([{"_id": n} for n in (3, 1, 2)])
        made.create_collection("packed", clusteredIndex={"key": {"_id": 1}, "unique": True, "name": "order"})
        made.create_collection("seen", viewOn="strict", pipeline=[{"$match": {"a": {"$gt": 0}}}])
    source = connect(fresh_secantus.uri)
    listed = read_catalog(source.node(), Selection((database,))).collections
    source.close()
    wanted = []
    for one in listed:
        natural = one.capped
        documents = [] if not one.data else in_order(fresh_secantus, database, one.data, natural=natural)
        wanted.append((one.info, documents))
    assert load(mongo.uri, wanted) == []

    target = connect(mongo.uri)
    found = {one.info.name: one for one in read_catalog(target.node(), Selection((database,))).collections}
    target.close()
    for one in listed:
        same = found[one.info.name].info
        assert bson.decode(same.options) == bson.decode(one.info.options)
        assert {bson.decode(i)["name"]: bson.decode(i) for i in same.indexes} == {
            bson.decode(i)["name"]: bson.decode(i) for i in one.info.indexes
        }
        assert same.kind == one.info.kind
    assert [raw.id_of(d) for d in in_order(mongo, database, "ring", natural=True)] == [
        b"\x10" + n.to_bytes(4, "little") for n in (3, 1, 2)
    ]


def in_order(server: servers.Server, db: str, name: str, *, natural: bool) -> list[bytes]:
    if not natural:
        return live.on_server(server.uri, db, name)
    with server.client() as client:
        collection = client[db].get_collection(name, codec_options=live.RAW)
        return [document.raw for document in collection.find()]


def test_nothing_is_touched_that_is_there(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["b"].insert_one({"_id": 1})
        wanted = [(info(database, "a"), DOCUMENTS[:5]), (info(database, "b"), DOCUMENTS[:5])]
        with pytest.raises(TargetError, match=f"{database}.b is there already"):
            load(mongo.uri, wanted)
        assert client[database].list_collection_names() == ["b"]
        assert list(client[database]["b"].find()) == [{"_id": 1}]


def test_what_is_there_can_be_dropped(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["b"].insert_many([{"_id": 1}, {"_id": "other"}])
    assert load(mongo.uri, [(info(database, "b"), DOCUMENTS[:5])], LoadOptions(Existing.DROP)) == []
    assert live.on_server(mongo.uri, database, "b") == DOCUMENTS[:5]


def test_what_is_there_can_be_replaced(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["b"].insert_many([{"_id": 1, "old": True}, {"_id": "other"}])
    assert load(mongo.uri, [(info(database, "b"), DOCUMENTS[:5])], LoadOptions(Existing.REPLACE)) == []
    assert live.on_server(mongo.uri, database, "b") == [*DOCUMENTS[:5], bson.encode({"_id": "other"})]


def test_a_dry_run_writes_nothing(mongo: servers.Server, database: str, tmp_path: Path) -> None:
    options = LoadOptions(dry_run=True, state=tmp_path / "state")
    assert load(mongo.uri, [(info(database, "c"), DOCUMENTS)], options) == []
    with mongo.client() as client:
        assert client[database].list_collection_names() == []
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_can_not_be_built_is_a_finding(mongo: servers.Server, database: str) -> None:
    indexes = tuple(
        bson.encode({"v": 2, "key": {field: 1}, "name": field, "unique": field == "twice"})
        for field in ("twice", "good")
    )
    one = CollectionInfo(database, "c", indexes=indexes)
    documents = [bson.encode({"_id": n, "twice": 1}) for n in range(3)]
    findings = load(mongo.uri, [(one, documents)])
    assert [finding.where for finding in findings] == [f"{database}.c twice"]
    with mongo.client() as client:
        assert "good" in client[database]["c"].index_information()
        assert client[database]["c"].count_documents({}) == 3


def test_a_load_goes_on_where_it_broke_off(mongo: servers.Server, database: str, tmp_path: Path) -> None:
    options = LoadOptions(state=tmp_path / "state")
    wanted = [(info(database, name), DOCUMENTS) for name in ("a", "b", "c")]

    def broken() -> Iterator[bytes]:
        yield from DOCUMENTS[:2500]
        raise TargetError("the repository is gone")

    loader = Loader(connect(mongo.uri, family=TargetError), options, job="a job")
    loader.begin([one for one, _ in wanted])
    loader.collection(wanted[0][0], iter(DOCUMENTS))
    with pytest.raises(TargetError, match="repository is gone"):
        loader.collection(wanted[1][0], broken())
    loader.close()
    assert (tmp_path / "state").exists()

    again = Loader(connect(mongo.uri, family=TargetError), options, job="a job")
    again.begin([one for one, _ in wanted])
    assert again.is_done(wanted[0][0])
    again.collection(wanted[0][0], iter([]))
    for one, documents in wanted[1:]:
        upto = again.after(one)
        assert upto is None or raw.id_of(DOCUMENTS[0]) <= upto
        again.collection(one, iter(documents))
    assert again.finish() == []
    again.close()
    for name in ("a", "b", "c"):
        assert live.on_server(mongo.uri, database, name) == DOCUMENTS
    assert list(tmp_path.iterdir()) == []


def test_a_load_that_is_not_gone_on_with_leaves_what_is_known_of_it(
    mongo: servers.Server, database: str, tmp_path: Path
) -> None:
    one = info(database, "a")
    options = LoadOptions(state=tmp_path / "state")
    first = Loader(connect(mongo.uri, family=TargetError), options, job="a job")
    first.begin([one])
    first.collection(one, iter(DOCUMENTS[:2500]))
    first.close()
    with pytest.raises(TargetError, match=r"go on with the load that broke off \(--resume\)"):
        load(mongo.uri, [(one, DOCUMENTS)], replace(options, anew=True))
    again = Loader(connect(mongo.uri, family=TargetError), options, job="a job")
    again.begin([one])
    again.close()
    anew = replace(options, anew=True, existing=Existing.DROP)
    assert load(mongo.uri, [(one, DOCUMENTS)], anew) == []
    assert live.on_server(mongo.uri, database, "a") == DOCUMENTS


def test_a_lost_connection_is_made_good(fresh_secantus: servers.Server) -> None:
    target = fresh_secantus.uri.removeprefix("mongodb://").partition("/")[0]
    with Relay(target) as relay:

        def cutting() -> Iterator[bytes]:
            for number, document in enumerate(DOCUMENTS * 1):
                if number in {1, 900, 2200}:
                    relay.cut()
                yield document

        loader = Loader(connect(relay.uri, family=TargetError))
        one = info("d", "c")
        loader.begin([one])
        loader.collection(one, cutting())
        loader.finish()
        loader.close()
    assert live.on_server(fresh_secantus.uri, "d", "c") == DOCUMENTS


def test_a_document_of_sixteen_megabytes(mongo: servers.Server, database: str) -> None:
    large = bson.encode({"_id": 1, "t": "x" * ((16 << 20) - 40)})
    assert (16 << 20) - 40 < len(large) <= 16 << 20
    assert load(mongo.uri, [(info(database, "c"), [DOCUMENTS[0], large, DOCUMENTS[2]])]) == []
    assert live.on_server(mongo.uri, database, "c")[1] == large


def test_users_that_can_not_be_written_are_a_finding(fresh_secantus: servers.Server) -> None:
    """SecantusDB neither merges users nor has its own collection of them written to."""
    with servers.secantus() as server, server.client() as client:
        client["admin"].command("createUser", "joe", pwd="secret", roles=["root"])
        users = live.on_server(server.uri, "admin", "system.users")
    wanted = [(info("admin", "system.users"), users), (info("d", "c"), DOCUMENTS[:3])]
    assert [finding.where for finding in load(fresh_secantus.uri, wanted)] == ["admin.system.users"]
    assert live.on_server(fresh_secantus.uri, "d", "c") == DOCUMENTS[:3]
    assert load(fresh_secantus.uri, wanted, LoadOptions(Existing.REPLACE, users=False)) == []
    with fresh_secantus.client() as client:
        assert "dstore.temporary.users" not in client["admin"].list_collection_names()


def test_a_clusters_own_records_are_left_out(mongo: servers.Server, database: str) -> None:
    wanted = [(info("config", "settings"), [bson.encode({"_id": 1})]), (info(database, "c"), DOCUMENTS[:1])]
    findings = load(mongo.uri, wanted)
    assert [finding.where for finding in findings] == ["config.settings"]
    assert live.on_server(mongo.uri, database, "c") == DOCUMENTS[:1]


def test_a_server_that_can_do_less(ferretdb_server: servers.Server) -> None:
    documents = [bson.encode({"_id": ObjectId(f"{n:024x}"), "n": n}) for n in range(500)]
    assert load(ferretdb_server.uri, [(info("loaded", "c"), documents)]) == []
    assert live.on_server(ferretdb_server.uri, "loaded", "c") == documents
    assert isinstance(RawBSONDocument(documents[0])["n"], int)
