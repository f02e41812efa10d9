"""What collections a server has, byte for byte as it says it."""

import bson
import pymongo
import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.catalog import Listed, Selection, is_still, name_of, read_catalog
from dedupstore.sources.mongo.client import connect
from tests.support import servers


def listed(server: servers.Server, *names: str) -> dict[str, Listed]:
    deployment = connect(server.uri)
    try:
        catalog = read_catalog(deployment.node(), Selection(names))
    finally:
        deployment.close()
    assert catalog.refused == ()
    return {one.info.namespace: one for one in catalog.collections}


def test_options_and_indexes_are_raw(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        made = client[database]
        made.create_collection(
            "strict", validator={"z": {"$exists": True}, "a": {"$gt": 1}}, validationLevel="moderate"
        )
        made["strict"].create_index(
            [("z", 1), ("a", -1)], unique=True, partialFilterExpression={"a": {"$gt": 5}}
        )
        made["strict"].create_index([("t", 1)], expireAfterSeconds=3600)
        expected = made.command("listIndexes", "strict")["cursor"]["firstBatch"]
    found = listed(mongo, database)[f"{database}.strict"]
    assert [bson.decode(index) for index in found.info.indexes] == expected
    options = bson.decode(found.info.options)
    assert list(options["validator"]) == ["z", "a"]
    assert options["validationLevel"] == "moderate"
    assert len(found.info.uuid) == 16
    assert found.id_index


def test_kinds(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        made = client[database]
        made["plain"].insert_one({"_id": 1})
        made.create_collection("seen", viewOn="plain", pipeline=[{"$match": {"a": 1}}])
        made.create_collection("ring", capped=True, size=4096, max=10)
        made.create_collection("series", timeseries={"timeField": "t", "metaField": "m"})
        made.create_collection("spoken", collation=pymongo.collation.Collation("sv"))
    found = listed(mongo, database)
    kinds = {one.info.name: one.info.kind for one in found.values()}
    assert kinds == {
        "plain": "collection",
        "ring": "collection",
        "seen": "view",
        "series": "timeseries" if mongo.kind == "real" else "collection",  # SecantusDB has no buckets
        "spoken": "collection",
    }
    assert found[f"{database}.ring"].capped
    assert found[f"{database}.spoken"].collation
    assert not found[f"{database}.plain"].collation
    assert found[f"{database}.seen"].data == ""
    assert bson.decode(found[f"{database}.seen"].info.options)["viewOn"] == "plain"
    assert found[f"{database}.series"].data in {"series", "system.buckets.series"}


def test_what_belongs_to_one_server_is_left_out(fresh_secantus: servers.Server) -> None:
    with fresh_secantus.client() as client:
        client["config"]["transactions"].insert_one({"_id": 1})
        client["d"]["c"].insert_one({"_id": 1})
        client["admin"].command("createUser", "joe", pwd="x", roles=["root"])
        client["admin"].command("createRole", "own", privileges=[], roles=[])
    found = set(listed(fresh_secantus))
    # SecantusDB does not show its roles as a collection.
    assert found - {"admin.system.roles"} == {"admin.system.users", "admin.system.version", "d.c"}


def test_users_can_be_left_out(fresh_secantus: servers.Server) -> None:
    with fresh_secantus.client() as client:
        client["admin"].command("createUser", "joe", pwd="x", roles=["root"])
        client["d"]["c"].insert_one({"_id": 1})
    deployment = connect(fresh_secantus.uri)
    catalog = read_catalog(deployment.node(), Selection(users=False))
    deployment.close()
    assert [one.info.namespace for one in catalog.collections] == ["d.c"]


def test_a_selection(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        for name in ("a", "b", "b.c"):
            client[database][name].insert_one({"_id": 1})
    assert set(listed(mongo, f"{database}.b")) == {f"{database}.b"}
    assert set(listed(mongo, f"{database}.b.c", f"{database}.a")) == {f"{database}.a", f"{database}.b.c"}
    with pytest.raises(SourceError, match=f"has no {database}.x"):
        listed(mongo, database, f"{database}.x")


def test_many_collections_come_in_several_replies(mongo: servers.Server, database: str) -> None:
    names = [f"c{number:04}" for number in range(130)]
    with mongo.client() as client:
        for name in names:
            client[database].create_collection(name)
    assert [one.info.name for one in listed(mongo, database).values()] == names


def test_a_collection_is_known_by_its_uuid(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client:
        client[database]["c"].insert_one({"_id": 1})
        uuid = listed(mongo, database)[f"{database}.c"].info.uuid
        deployment = connect(mongo.uri)
        assert name_of(deployment.node(), database, uuid) == "c"
        assert is_still(deployment.node(), database, "c", uuid)
        client[database].drop_collection("c")
        client[database]["c"].insert_one({"_id": 1})
        assert name_of(deployment.node(), database, uuid) is None
        assert not is_still(deployment.node(), database, "c", uuid)
        deployment.close()


def test_names_of_any_kind(mongo: servers.Server, database: str) -> None:
    names = ["with space", "sl/ash", "dötted.nåme", "per%cent", "x" * 90]
    with mongo.client() as client:
        for name in names:
            client[database][name].insert_one({"_id": name})
    found = listed(mongo, database)
    assert {one.info.name for one in found.values()} == set(names)
    for one in found.values():
        assert raw.field(one.info.indexes[0], b"key") is not None
