"""Which collection an entry means, and what commands make of collections, options, indexes and views."""

from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.catalog import DEFINITIONS, ELSEWHERE, Catalog
from dedupstore.sources.oplog.commands import apply_command
from dedupstore.sources.oplog.entry import parse_entry
from tests.unit.oplog.log_entries import (
    A,
    B,
    C,
    collection,
    command,
    deleted,
    diff,
    doc,
    inserted,
    long,
    updated,
    uuid,
)  # fmt: skip

ID = doc({"v": 2, "key": {"_id": 1}, "name": "_id_"})
Fields = dict[str, Any]


def index(field: str, /, **more: Any) -> Fields:
    return {"v": 2, "key": {field: 1}, "name": f"{field}_1"} | more


def run(catalog: Catalog, *commands: bytes, strict: bool = True) -> list[bytes]:
    gone = []
    for one in commands:
        gone += apply_command(catalog, parse_entry(one), strict=strict)
    return gone


def names(catalog: Catalog) -> dict[str, bytes]:
    return {info.namespace: info.uuid for info in catalog.collections()}


def only(catalog: Catalog) -> CollectionInfo:
    (info,) = catalog.collections()
    return info


def test_collections_are_created() -> None:
    catalog = Catalog()
    run(
        catalog,
        command(1, {"create": "a", "capped": True, "size": 4096, "idIndex": index("_id", name="_id_")}, ui=A),
        command(
            2,
            {"create": "b", "clusteredIndex": {"v": 2, "key": {"_id": 1}, "name": "k", "unique": True}},
            ui=B,
        ),
        command(3, {"create": "c.d", "clusteredIndex": True}, ui=C, db="other"),
        command(4, {"create": "v", "viewOn": "a", "pipeline": []}, ui=None),
    )
    found = {info.namespace: info for info in catalog.collections()}
    assert list(found) == ["db.a", "db.b", "db.v", "other.c.d"]
    assert found["db.a"] == CollectionInfo("db", "a", "collection", A, doc(capped=True, size=4096), (ID,))
    clustered = {"v": 2, "key": {"_id": 1}, "name": "k", "unique": True}
    assert found["db.b"].options == doc(clusteredIndex=clustered)
    assert found["db.b"].indexes == (doc(clustered | {"clustered": True}),)
    ordered = {"v": 2, "key": {"_id": 1}, "name": "_id_", "unique": True, "clustered": True}
    assert found["other.c.d"].indexes == (doc(ordered),)
    assert found["db.v"] == CollectionInfo("db", "v", "view", b"", doc(viewOn="a", pipeline=[]), ())


def test_an_entry_means_its_uuid_whatever_it_is_called() -> None:
    catalog = Catalog([collection("a", A), collection("b", B)])
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.b", ui=A))) == A
    run(catalog, command(2, {"renameCollection": "db.a", "to": "db.x"}, ui=A))
    assert catalog.route(parse_entry(inserted(3, {"_id": 1}, ns="db.a", ui=A))) == A
    assert names(catalog) == {"db.x": A, "db.b": B}


def test_without_a_uuid_a_name_counts() -> None:
    catalog = Catalog([CollectionInfo("db", "a"), collection("b", B)])
    key = catalog.find("db", "a")
    assert key is not None
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.a", ui=None))) == key
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.b", ui=None))) == B
    run(catalog, command(2, {"renameCollection": "db.a", "to": "db.x"}, ui=None))
    new = catalog.route(parse_entry(inserted(3, {"_id": 1}, ns="db.a", ui=None)))
    assert new not in {key, B}
    assert catalog.route(parse_entry(inserted(3, {"_id": 1}, ns="db.x", ui=None))) == key
    assert run(catalog, command(4, {"drop": "x"}, ui=None)) == [key]
    assert list(names(catalog)) == ["db.a", "db.b"]


def test_a_uuid_that_the_base_did_not_say() -> None:
    catalog = Catalog([CollectionInfo("db", "a")])
    key = catalog.find("db", "a")
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.a", ui=A))) == key
    assert catalog.key_of_uuid(A) == key
    assert only(catalog).uuid == A
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.old", ui=A))) == key
    assert run(catalog, command(2, {"drop": "a"}, ui=A)) == [key]


def test_a_collection_that_nobody_created() -> None:
    catalog = Catalog()
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.a", ui=A))) == A
    assert only(catalog) == CollectionInfo("db", "a", "collection", A, doc(), (ID,))
    assert catalog.origin(A) is None
    run(catalog, command(2, {"createIndexes": "b", **index("x")}, ui=B))
    assert names(catalog) == {"db.a": A, "db.b": B}


def test_what_does_not_count() -> None:
    catalog = Catalog()
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="config.transactions", ui=A))) == ELSEWHERE
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="db.whatever", ui=A))) == ELSEWHERE
    run(
        catalog,
        command(1, {"create": "transactions"}, db="config"),
        command(1, {"createIndexes": "transactions", **index("x")}, db="config"),
        command(1, {"drop": "transactions"}, db="config"),
        command(1, {"dropIndexes": "image_collection", "index": "x"}, db="config"),
        command(1, {"create": "system.views"}, ui=B),
        command(1, {"renameCollection": "local.a", "to": "local.b"}, db="local"),
        *[command(1, {name: "c"}) for name in ("dbCheck", "createDatabaseMetadata", "dropDatabaseMetadata")],
        *[command(1, {name: "c"}) for name in ("dropIdent", "setMultikeyMetadata")],
        command(1, {"modifyCollectionShardingIndexCatalog": "c"}),
    )
    assert catalog.collections() == ()


def test_collections_are_dropped() -> None:
    catalog = Catalog([collection("a", A), collection("b", B), collection("a", C, db="other")])
    assert run(catalog, command(1, {"drop": "a"}, ui=A), command(1, {"drop": "gone"}, ui=bytes(16))) == [A]
    assert names(catalog) == {"db.b": B, "other.a": C}
    assert run(catalog, command(2, {"dropDatabase": 1}, ui=None, db="other")) == [C]
    assert names(catalog) == {"db.b": B}
    assert catalog.info(A) is None
    assert catalog.origin(A) == collection("a", A)


def test_a_name_is_used_again() -> None:
    catalog = Catalog([collection("a", A)])
    run(
        catalog, command(1, {"drop": "a"}, ui=A), command(2, {"create": "a", "capped": True, "size": 1}, ui=B)
    )
    assert only(catalog).uuid == B
    assert catalog.origin(B) is None


def test_renames() -> None:
    catalog = Catalog(
        [collection("a", A, temp=True, validationLevel="off"), collection("b", B), collection("c", C)]
    )
    gone = run(
        catalog,
        command(1, {"renameCollection": "db.a", "to": "db.b", "dropTarget": uuid(B), "stayTemp": False}),
    )
    assert gone == [B]
    assert names(catalog) == {"db.b": A, "db.c": C}
    renamed = catalog.info(A)
    assert renamed is not None
    assert renamed.options == doc(validationLevel="off")
    assert run(catalog, command(2, {"renameCollection": "db.b", "to": "Über.x.y", "stayTemp": False})) == []
    assert run(
        catalog, command(3, {"renameCollection": "Über.x.y", "to": "db.c", "dropTarget": True}, db="Über")
    ) == [C]
    assert names(catalog) == {"db.c": A}
    assert run(catalog, command(4, {"renameCollection": "db.c", "to": "db.system.drop.1.c"})) == [A]
    assert catalog.collections() == ()


def test_a_temporary_collection_may_stay_one() -> None:
    catalog = Catalog([collection("a", A, temp=True)])
    run(catalog, command(1, {"renameCollection": "db.a", "to": "db.b", "stayTemp": True}))
    assert only(catalog).options == doc(temp=True)


def test_options_are_changed() -> None:
    catalog = Catalog([collection("c", A, capped=True, size=5, validationLevel="off", timeseries={"a": 1})])

    def after(**fields: Any) -> bytes:
        run(catalog, command(1, {"collMod": "c", **fields}))
        return only(catalog).options

    assert after(validationLevel="strict", validator={"a": 1}) == doc(
        capped=True, size=5, validator={"a": 1}, validationLevel="strict", timeseries={"a": 1}
    )
    assert after(validator={}, cappedSize=long(9), cappedMax=long(3)) == doc(
        capped=True, size=long(9), max=long(3), validationLevel="strict", timeseries={"a": 1}
    )
    assert after(changeStreamPreAndPostImages={"enabled": True}, recordPreImages=True, cappedSize=5) == doc(
        {"capped": True, "size": 5, "max": long(3), "recordPreImages": True},
        changeStreamPreAndPostImages={"enabled": True}, validationLevel="strict", timeseries={"a": 1},
    )  # fmt: skip
    assert after(changeStreamPreAndPostImages={"enabled": False}, recordPreImages=False) == doc(
        capped=True, size=5, max=long(3), validationLevel="strict", timeseries={"a": 1}
    )
    assert after(expireAfterSeconds=long(60), validationLevel="off") == doc(
        capped=True,
        size=5,
        max=long(3),
        validationLevel="off",
        expireAfterSeconds=long(60),
        timeseries={"a": 1},
    )
    assert after(expireAfterSeconds="off", dryRun=False) == doc(
        capped=True, size=5, max=long(3), validationLevel="off", timeseries={"a": 1}
    )


def test_indexes_are_changed() -> None:
    spec = index("a", unique=True, sparse=True)
    catalog = Catalog()
    run(catalog, command(1, {"create": "c"}), command(2, {"createIndexes": "c", **spec}))

    def after(**fields: Any) -> bytes:
        run(catalog, command(3, {"collMod": "c", "index": {"name": "a_1", **fields}}))
        first, second = only(catalog).indexes
        assert first == ID
        return second

    assert after(hidden=True) == doc(spec | {"hidden": True})
    assert after(hidden=False) == doc(spec)
    assert after(expireAfterSeconds=long(5)) == doc(spec | {"expireAfterSeconds": long(5)})
    assert after(hidden=True, expireAfterSeconds=long(6)) == doc(
        spec | {"hidden": True, "expireAfterSeconds": long(6)}
    )
    assert after(hidden=False, forceNonUnique=True, prepareUnique=True) == doc(
        index("a", sparse=True, expireAfterSeconds=long(6), prepareUnique=True)
    )
    assert after(unique=True) == doc(index("a", sparse=True, expireAfterSeconds=long(6), unique=True))
    run(catalog, command(4, {"collMod": "c", "index": {"keyPattern": {"a": 1}, "hidden": True}}))
    assert only(catalog).indexes[1].endswith(b"hidden\0\1\0")


def test_indexes_are_built() -> None:
    catalog = Catalog([collection()])
    spec, other, third = index("a", partialFilterExpression={"x": 1.5}), index("b"), index("c")
    build = {"indexBuildUUID": uuid(C), "indexes": [other, third]}
    run(
        catalog,
        command(1, {"createIndexes": "c", **spec}),
        command(2, {"startIndexBuild": "c", **build}),
    )
    assert only(catalog).indexes == (ID, doc(spec))
    run(catalog, command(3, {"commitIndexBuild": "c", **build}))
    assert only(catalog).indexes == (ID, doc(spec), doc(other), doc(third))
    run(catalog, command(4, {"createIndexes": "c", "indexes": [index("d"), index("e")], "entryFormat": 1}))
    assert [info.count(b"name") for info in only(catalog).indexes] == [1] * 6


def test_a_build_that_is_given_up() -> None:
    catalog = Catalog([collection()])
    build = {"indexBuildUUID": uuid(C), "indexes": [index("a")], "cause": {"ok": False}}
    run(catalog, command(1, {"startIndexBuild": "c", **build}), command(2, {"abortIndexBuild": "c", **build}))
    assert only(catalog).indexes == (ID,)


@pytest.mark.parametrize(
    ("which", "left"),
    [
        ("a_1", ["b_1", "c_1"]),
        (["a_1", "c_1"], ["b_1"]),
        ({"b": 1}, ["a_1", "c_1"]),
        ("*", []),
        ("gone", ["a_1", "b_1", "c_1"]),
    ],
)
@pytest.mark.parametrize("name", ["dropIndexes", "deleteIndexes"])
def test_indexes_are_dropped(which: Any, left: list[str], name: str) -> None:
    catalog = Catalog([collection()])
    run(catalog, command(1, {"createIndexes": "c", "indexes": [index("a"), index("b"), index("c")]}))
    run(catalog, command(2, {name: "c", "index": which}))
    assert only(catalog).indexes == (ID, *(doc(index(one[0])) for one in left))


def test_the_order_of_a_clustered_collection_is_never_dropped() -> None:
    catalog = Catalog()
    key = {"v": 2, "key": {"_id": 1}, "name": "mine", "unique": True}
    run(
        catalog,
        command(1, {"create": "c", "clusteredIndex": key}),
        command(2, {"createIndexes": "c", **index("a")}),
    )
    run(catalog, command(3, {"dropIndexes": "c", "index": "*"}))
    assert only(catalog).indexes == (doc(key | {"clustered": True}),)


def test_made_capped_and_emptied() -> None:
    catalog = Catalog([collection("c", A, collation={"locale": "de"})])
    run(catalog, command(1, {"createIndexes": "c", **index("a")}))
    run(catalog, command(2, {"convertToCapped": "c", "size": long(100)}))
    assert only(catalog).options == doc(capped=True, size=long(100), collation={"locale": "de"})
    assert only(catalog).indexes == (ID,)
    assert run(catalog, command(3, {"emptycapped": "c"})) == [A]
    assert names(catalog) == {"db.c": A}


def view(name: str = "v", **more: Any) -> Fields:
    return {"_id": f"db.{name}", "viewOn": "a", "pipeline": [], **more}


def define(catalog: Catalog, entry: bytes, *, strict: bool = True) -> None:
    parsed = parse_entry(entry)
    assert catalog.route(parsed) == DEFINITIONS
    catalog.define(parsed, strict=strict)


def test_views_are_documents() -> None:
    catalog = Catalog([CollectionInfo("db", "old", "view", b"", doc(viewOn="x", pipeline=[]))])
    ns = "db.system.views"
    define(catalog, inserted(1, view("v.w", collation={"locale": "de"}), ns=ns))
    assert [(one.name, one.options) for one in catalog.collections()] == [
        ("old", doc(viewOn="x", pipeline=[])),
        ("v.w", doc(viewOn="a", pipeline=[], collation={"locale": "de"})),
    ]
    define(catalog, updated(2, "db.old", diff({"u": {"viewOn": "y"}}), ns=ns))
    define(catalog, updated(3, "db.v.w", view("v.w", viewOn="z"), ns=ns))
    assert [one.options for one in catalog.collections()] == [
        doc(viewOn="y", pipeline=[]),
        doc(viewOn="z", pipeline=[]),
    ]
    define(catalog, deleted(4, "db.old", ns=ns))
    assert only(catalog).name == "v.w"
    run(catalog, command(5, {"drop": "system.views"}))
    assert catalog.collections() == ()


def test_views_of_servers_that_log_them_as_collections() -> None:
    catalog = Catalog()
    run(catalog, command(1, {"create": "v", "viewOn": "a", "pipeline": []}, ui=None))
    run(catalog, command(2, {"collMod": "v", "viewOn": "b", "pipeline": [{"$match": {}}]}, ui=None))
    assert only(catalog).options == doc(viewOn="b", pipeline=[{"$match": {}}])
    run(catalog, command(3, {"drop": "v"}, ui=None))
    assert catalog.collections() == ()


def test_views_go_with_their_database() -> None:
    catalog = Catalog([CollectionInfo("db", "v", "view", b"", doc(viewOn="x"))])
    run(catalog, command(1, {"dropDatabase": 1}, ui=None))
    assert catalog.collections() == ()


def test_a_view_that_is_not_there() -> None:
    catalog = Catalog()
    change = updated(2, "db.v", diff({"u": {"viewOn": "y"}}), ns="db.system.views")
    define(catalog, change, strict=False)
    with pytest.raises(
        SourceError, match=r"1000:2 on db.system.views changes the view db.v, which is not there"
    ):
        define(catalog, change)
    with pytest.raises(SourceError, match="without a name"):
        define(catalog, inserted(3, {"_id": 5}, ns="db.system.views"))


def test_users_and_roles_are_documents() -> None:
    catalog = Catalog()
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="admin.system.users", ui=A))) == A
    assert names(catalog) == {"admin.system.users": A}


COMMANDS_ON_NOTHING: list[Fields] = [
    {"collMod": "c", "validationLevel": "off"},
    {"dropIndexes": "c", "index": "*"},
    {"abortIndexBuild": "c", "indexes": [index("a")]},
    {"convertToCapped": "c", "size": 5},
    {"emptycapped": "c"},
    {"renameCollection": "db.c", "to": "db.d"},
]


@pytest.mark.parametrize("fields", COMMANDS_ON_NOTHING, ids=lambda fields: next(iter(fields)))
def test_a_change_of_what_is_not_there(fields: Fields) -> None:
    with pytest.raises(SourceError, match="which is not there"):
        run(Catalog(), command(1, fields))
    catalog = Catalog()
    run(catalog, command(1, fields), strict=False)
    assert names(catalog) == {"db.d" if "to" in fields else "db.c": A}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"importCollection": "c"}, "1000:1 on db.$cmd is the command 'importCollection', which no log"),
        ({"upgradeDowngradeViewlessTimeseries": "c"}, "'upgradeDowngradeViewlessTimeseries'"),
        ({"frobnicate": "c"}, "1000:1 on db.$cmd is the command 'frobnicate', which is not known"),
        ({"collMod": "c", "frob": 1}, "1000:1 on db.$cmd: a collMod changes 'frob'"),
        ({"collMod": "c", "index": {"name": "a_1", "frob": 1}}, "a collMod changes 'frob' of an index"),
        ({"createIndexes": "c", "v": 2, "key": {"a": 1}}, "1000:1 on db.$cmd: an index has no name"),
        ({"startIndexBuild": "c", "indexes": [5]}, "a list has a int where a document belongs"),
        ({"dropIndexes": "c"}, "drops indexes without saying which"),
        ({"dropIndexes": "c", "index": 5}, "indexes are dropped by a int"),
        ({"renameCollection": "db.c"}, "renames without saying what to what"),
        ({"create": 5}, "names no collection"),
        ({"drop": None}, "names no collection"),
    ],
)
def test_what_is_refused_by_name(fields: Fields, words: str) -> None:
    catalog = Catalog([collection()])
    run(catalog, command(1, {"createIndexes": "c", **index("a")}))
    with pytest.raises(SourceError) as caught:
        run(catalog, command(1, fields))
    assert words in caught.value.message


def test_two_collections_of_one_name() -> None:
    catalog = Catalog([collection("a", A)])
    run(catalog, command(1, {"create": "a"}, ui=B))
    with pytest.raises(SourceError, match=r"two collections are called db\.a"):
        catalog.collections()
    run(catalog, command(2, {"drop": "a"}, ui=A))
    assert names(catalog) == {"db.a": B}


def test_a_copy_goes_its_own_way() -> None:
    catalog = Catalog([collection("a", A)])
    twin = catalog.copy()
    run(twin, command(1, {"renameCollection": "db.a", "to": "db.b"}), command(2, {"create": "a"}, ui=B))
    assert names(catalog) == {"db.a": A}
    assert names(twin) == {"db.a": B, "db.b": A}
    assert twin.origin(A) == collection("a", A)


def only_db(db: str, name: str) -> bool:
    return db == "db" and name != "out"


def test_a_base_that_holds_a_part() -> None:
    catalog = Catalog([collection("a", A)], covers=only_db)
    assert catalog.route(parse_entry(inserted(1, {"_id": 1}, ns="other.x", ui=B))) == ELSEWHERE
    run(catalog, command(2, {"collMod": "x", "validationLevel": "off"}, db="other", ui=B))
    assert names(catalog) == {"db.a": A}
    with pytest.raises(SourceError, match=r"renames other.x to db.x, but the base does not hold it"):
        run(catalog, command(3, {"renameCollection": "other.x", "to": "db.x"}, ui=B))
    run(catalog, command(4, {"renameCollection": "db.a", "to": "db.out"}, ui=A))
    assert names(catalog) == {}


def test_what_is_created_outside_and_brought_in() -> None:
    catalog = Catalog([], covers=only_db)
    run(catalog, command(1, {"create": "x"}, db="other", ui=B))
    assert catalog.route(parse_entry(inserted(2, {"_id": 1}, ns="other.x", ui=B))) == B
    assert names(catalog) == {}
    run(catalog, command(3, {"renameCollection": "other.x", "to": "db.x"}, ui=B))
    assert names(catalog) == {"db.x": B}
