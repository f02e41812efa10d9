"""Time series: the log speaks of buckets, the catalog of the series."""

from typing import Any

import pytest

from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.catalog import DEFINITIONS, Catalog
from dedupstore.sources.oplog.entry import parse_entry
from tests.unit.oplog.log_entries import A, B, command, deleted, diff, doc, inserted, long, updated
from tests.unit.oplog.test_catalog import define, index, only, run

SERIES = {"timeField": "t", "metaField": "sensor", "granularity": "seconds", "bucketMaxSpanSeconds": 3600}
CREATION: dict[str, Any] = {
    "create": "system.buckets.s",
    "validator": {"$jsonSchema": {}},
    "clusteredIndex": True,
    "expireAfterSeconds": long(60),
    "timeseries": SERIES,
}


def created() -> Catalog:
    catalog = Catalog()
    run(catalog, command(1, CREATION))
    return catalog


def test_a_series_is_what_users_created() -> None:
    catalog = created()
    options = doc(expireAfterSeconds=long(60), timeseries=SERIES)
    assert only(catalog) == CollectionInfo("db", "s", "timeseries", A, options, ())
    facade = {"_id": "db.s", "viewOn": "system.buckets.s", "pipeline": [{"$_internalUnpackBucket": {}}]}
    define(catalog, inserted(2, facade, ns="db.system.views", ui=B))
    define(catalog, updated(3, "db.s", diff({"u": {"pipeline": []}}), ns="db.system.views", ui=B))
    assert only(catalog).kind == "timeseries"
    assert catalog.route(parse_entry(inserted(4, {"_id": 1}, ns="db.system.buckets.s", ui=A))) == A
    assert catalog.route(parse_entry(inserted(4, {"_id": 1}, ns="db.system.buckets.s", ui=None))) == A
    define(catalog, deleted(5, "db.s", ns="db.system.views", ui=B))
    assert run(catalog, command(6, {"drop": "system.buckets.s"}, ui=None)) == [A]
    assert catalog.collections() == ()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ({"meta": 1, "control.min.t": 1, "control.max.t": 1}, {"sensor": 1, "t": 1}),
        ({"meta.a.b": -1}, {"sensor.a.b": -1}),
        ({"control.max.x": -1, "control.min.x": -1}, {"x": -1}),
        ({"data.where": "2dsphere_bucket"}, {"where": "2dsphere"}),
        ({"sensor": 1, "t": 1}, {"sensor": 1, "t": 1}),
        ({"metadata": 1}, {"metadata": 1}),
        ({"control.min.t": 1}, None),
        ({"control.min.t": 1, "control.max.u": 1}, None),
        ({"control.min.t": 1, "control.max.t": -1}, None),
        ({"control.version": 1}, None),
    ],
)
def test_indexes_of_buckets_are_indexes_of_measurements(
    key: dict[str, Any], shown: dict[str, Any] | None
) -> None:
    catalog = created()
    spec = {"v": 2, "key": key, "name": "i", "hidden": True}
    run(catalog, command(2, {"createIndexes": "system.buckets.s", **spec}))
    assert only(catalog).indexes == (() if shown is None else (doc(spec | {"key": shown}),))


def test_an_index_that_says_what_it_was() -> None:
    catalog = created()
    original = index("x", partialFilterExpression={"x": 5})
    spec = {"v": 2, "key": {"control.min.x": 1, "control.max.x": 1}, "name": "x_1", "originalSpec": original}
    run(catalog, command(2, {"createIndexes": "system.buckets.s", **spec}))
    assert only(catalog).indexes == (doc(original),)
    run(catalog, command(3, {"dropIndexes": "system.buckets.s", "index": "x_1"}))
    assert only(catalog).indexes == ()


def test_options_are_changed() -> None:
    catalog = created()

    def after(**fields: Any) -> bytes:
        run(catalog, command(2, {"collMod": "system.buckets.s", **fields}))
        return only(catalog).options

    minutes = SERIES | {"granularity": "minutes", "bucketMaxSpanSeconds": 86_400}
    assert after(timeseries={"granularity": "minutes"}) == doc(
        expireAfterSeconds=long(60), timeseries=minutes
    )
    assert after(expireAfterSeconds="off", isTimeseriesNamespace=True) == doc(timeseries=minutes)
    custom = {
        "timeField": "t",
        "metaField": "sensor",
        "bucketMaxSpanSeconds": 100,
        "bucketRoundingSeconds": 100,
    }
    changed = {"bucketMaxSpanSeconds": 100, "bucketRoundingSeconds": 100}
    assert after(timeseries=changed) == doc(timeseries=custom)


def test_a_series_is_renamed() -> None:
    catalog = created()
    run(catalog, command(2, {"renameCollection": "db.system.buckets.s", "to": "db.system.buckets.z"}))
    assert only(catalog).name == "z"


def test_servers_that_have_no_buckets_beside() -> None:
    catalog = Catalog()
    run(
        catalog,
        command(1, {"create": "s", "timeseries": SERIES}),
        command(2, {"createIndexes": "s", **index("t")}),
    )
    assert only(catalog) == CollectionInfo(
        "db", "s", "timeseries", A, doc(timeseries=SERIES), (doc(index("t")),)
    )
    assert catalog.route(parse_entry(inserted(3, {"_id": 1}, ns="db.s", ui=A))) == A
    assert catalog.route(parse_entry(inserted(3, {"_id": 1}, ns="db.system.views", ui=B))) == DEFINITIONS
