"""Finds and pipelines over a collection: order, projection, what is read, what may be held."""

from typing import Any

import bson
import pytest
from bson import Decimal128, Int64

from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.work import Pool
from tests.unit.query.query_inputs import Doc, Ordered, aggregate, collection, find, work

NUMBERS = [{"_id": n, "n": n % 3} for n in range(100)]


def ids(found: list[dict[str, Any]]) -> list[Any]:
    return [one["_id"] for one in found]


@pytest.mark.parametrize(
    ("query", "wanted", "most"),
    [
        ({"_id": 7}, [7], 1),
        ({"_id": 7.0, "n": 1}, [7], 1),
        ({"_id": 7, "n": 2}, [], 1),
        ({"_id": "7"}, [], 1),
        ({"_id": {"$in": [9, 3, 1000]}}, [3, 9], 3),
        ({"_id": {"$gt": 95}}, [96, 97, 98, 99], 4),
        ({"_id": {"$gte": 5, "$lt": 8}}, [5, 6, 7], 4),
        ({"$and": [{"_id": {"$gt": 5}}, {"_id": {"$lte": 7}}]}, [6, 7], 3),
        ({"_id": {"$lt": 2}}, [0, 1], 3),
        ({"_id": {"$gt": 97}, "n": 0}, [99], 2),
        ({"_id": {"$not": {"$gt": 1}}}, [0, 1], 100),
    ],
    ids=repr,
)
def test_only_what_the_id_allows_is_read(query: Doc, wanted: list[int], most: int) -> None:
    held = collection(NUMBERS)
    assert ids(find(held, filter=query)) == wanted
    assert held.read <= most


def test_ranges_end_with_their_type() -> None:
    held = collection([{"_id": 1}, {"_id": 2}, *({"_id": f"x{n}"} for n in range(50))])
    assert ids(find(held, filter={"_id": {"$gt": 1}})) == [2]
    assert held.read == 2
    assert ids(find(held, min={"_id": 2}, max={"_id": "x1"}, hint={"_id": 1})) == [2, "x0"]


def test_a_natural_collection_is_read_through() -> None:
    held = Ordered(collection([]).info, [bson.encode({"_id": n}) for n in (5, 1, 3)], natural=True)
    assert ids(find(held, filter={"_id": {"$gt": 1}})) == [5, 3]
    assert ids(find(held, filter={"_id": {"$in": [1, 5]}})) == [5, 1]
    assert ids(find(held, sort={"_id": 1})) == [1, 3, 5]
    assert ids(find(held, sort={"$natural": -1}, limit=2)) == [3, 1]


VALUES: list[Any] = [
    {"_id": 0, "a": 5},
    {"_id": 1, "a": "x"},
    {"_id": 2},
    {"_id": 3, "a": None},
    {"_id": 4, "a": []},
    {"_id": 5, "a": [9, 1]},
    {"_id": 6, "a": {"b": 1}},
    {"_id": 7, "a": True},
    {"_id": 8, "a": [{"b": 7}, {"b": 0}]},
    {"_id": 9, "a": Decimal128("4.5")},
    {"_id": 10, "a": {"b": 3}},
]


@pytest.mark.parametrize(
    ("sort", "wanted"),
    [
        ({"a": 1}, [4, 2, 3, 5, 9, 0, 1, 8, 6, 10, 7]),
        ({"a": -1}, [7, 8, 10, 6, 1, 5, 0, 9, 2, 3, 4]),
        ({"a.b": -1, "_id": -1}, [8, 10, 6, 9, 7, 5, 4, 3, 2, 1, 0]),
        ({"a.0": -1, "_id": 1}, [8, 5, 0, 1, 2, 3, 4, 6, 7, 9, 10]),
    ],
    ids=repr,
)
def test_values_sort_as_the_server_sorts_them(sort: Doc, wanted: list[int]) -> None:
    held = collection(VALUES)
    assert ids(find(held, sort=sort)) == wanted
    assert ids(find(held, sort=sort, skip=2, limit=3)) == wanted[2:5]


def test_a_sort_through_two_arrays_is_refused() -> None:
    held = collection([{"_id": 1, "a": [1, 2], "b": [3, 4]}])
    with pytest.raises(QueryError, match="more than one leads through an array"):
        find(held, sort={"a": 1, "b": 1})


PROJECTED = {"_id": 1, "a": {"b": 1, "c": [{"d": 1, "e": 2}, 3, [{"d": 4}]]}, "f": [1, 2, 3, 4], "g": 5}


@pytest.mark.parametrize(
    ("projection", "wanted"),
    [
        ({}, PROJECTED),
        ({"g": 1}, {"_id": 1, "g": 5}),
        ({"g": 1, "_id": 0}, {"g": 5}),
        ({"_id": 1}, {"_id": 1}),
        ({"_id": 0}, {key: value for key, value in PROJECTED.items() if key != "_id"}),
        ({"a": 0, "f": 0}, {"_id": 1, "g": 5}),
        ({"a.c.d": 1}, {"_id": 1, "a": {"c": [{"d": 1}, [{"d": 4}]]}}),
        ({"a": {"c": {"d": 1}}}, {"_id": 1, "a": {"c": [{"d": 1}, [{"d": 4}]]}}),
        ({"a.c.d": 0, "f": False, "g": 0}, {"_id": 1, "a": {"b": 1, "c": [{"e": 2}, 3, [{}]]}}),
        ({"f": {"$slice": 2}, "a": 0}, {"_id": 1, "f": [1, 2], "g": 5}),
        ({"f": {"$slice": -1}, "g": 1}, {"_id": 1, "f": [4], "g": 5}),
        ({"f": {"$slice": [1, 2]}, "_id": 0, "a": 0, "g": 0}, {"f": [2, 3]}),
        ({"f": {"$elemMatch": {"$gt": 2}}}, {"_id": 1, "f": [3]}),
        ({"f": {"$elemMatch": {"$gt": 9}}}, {"_id": 1}),
        ({"x": "$g", "_id": 0}, {"x": 5}),
        ({"g": 1, "x": {"$add": ["$g", 1.5]}}, {"_id": 1, "g": 5, "x": 6.5}),
        ({"g.h": 1}, {"_id": 1}),
        ({"none": 1}, {"_id": 1}),
    ],
    ids=repr,
)
def test_projections(projection: Doc, wanted: Doc) -> None:
    found = find(collection([PROJECTED]), projection=projection)
    assert found == [wanted]
    assert list(found[0]) == list(wanted)


@pytest.mark.parametrize(
    "projection",
    [
        {"a": 1, "b": 0},
        {"a": 0, "b": 1},
        {"a.$": 1},
        {"a": {"$meta": "textScore"}},
        {"a": 1, "a.b": 1},
        {"a.b": 1, "a": 1},
        {"a": {}},
        {"a..b": 1},
        {"$a": 1},
        {"a": {"$odd": 1}},
        {"b": 0, "a": {"$add": [1, 2]}},
        {"a.b": {"$elemMatch": {"c": 1}}},
        {"a": "$$odd"},
    ],
    ids=repr,
)
def test_projections_that_make_no_sense_are_refused(projection: Doc) -> None:
    with pytest.raises(QueryError):
        find(collection([PROJECTED]), projection=projection)


def test_what_is_not_touched_keeps_its_bytes() -> None:
    odd = bson.encode({"_id": 1, "": -0.0, "n": Int64(1)})[:-1] + b"\x10n\0\x07\0\0\0\0"  # a name twice
    odd = len(odd).to_bytes(4, "little") + odd[4:]
    held = Ordered(collection([]).info, [odd])
    assert list(held.documents()) == [odd]
    from dedupstore.query.finding import found, parse_find  # noqa: PLC0415 - beside what it is compared with
    from dedupstore.query.targets import Target  # noqa: PLC0415

    assert list(found(Target(held), parse_find({}), work())) == [odd]


ORDERS: list[Any] = [
    {"_id": 1, "c": "a", "n": 1, "t": ["x", "y"]},
    {"_id": 2, "c": "b", "n": 2.5, "t": []},
    {"_id": 3, "c": "a", "n": Int64(4), "t": "z"},
    {"_id": 4, "c": None, "n": "no"},
    {"_id": 5, "n": None, "t": ["x"]},
]


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ([], ORDERS),
        ([{"$match": {"n": {"$gt": 1}}}, {"$count": "many"}], [{"many": 2}]),
        ([{"$match": {"n": 77}}, {"$count": "many"}], []),
        ([{"$match": {}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}], [{"_id": 1, "n": 5}]),
        (
            [{"$group": {"_id": "$c", "s": {"$sum": "$n"}, "a": {"$avg": "$n"}, "k": {"$count": {}}}}],
            [
                {"_id": "a", "s": 5, "a": 2.5, "k": 2},
                {"_id": "b", "s": 2.5, "a": 2.5, "k": 1},
                {"_id": None, "s": 0, "a": None, "k": 2},
            ],
        ),
        (
            [
                {
                    "$group": {
                        "_id": None,
                        "lo": {"$min": "$n"},
                        "hi": {"$max": "$n"},
                        "f": {"$first": "$n"},
                        "l": {"$last": "$n"},
                        "p": {"$push": "$c"},
                        "u": {"$addToSet": "$c"},
                    }
                }
            ],
            [
                {
                    "_id": None,
                    "lo": 1,
                    "hi": "no",
                    "f": 1,
                    "l": None,
                    "p": ["a", "b", "a", None],
                    "u": ["a", "b", None],
                }
            ],
        ),
        (
            [{"$unwind": "$t"}, {"$project": {"t": 1}}],
            [{"_id": 1, "t": "x"}, {"_id": 1, "t": "y"}, {"_id": 3, "t": "z"}, {"_id": 5, "t": "x"}],
        ),
        (
            [
                {"$unwind": {"path": "$t", "preserveNullAndEmptyArrays": True, "includeArrayIndex": "i"}},
                {"$project": {"t": 1, "i": 1}},
            ],
            [
                {"_id": 1, "t": "x", "i": 0},
                {"_id": 1, "t": "y", "i": 1},
                {"_id": 2, "i": None},
                {"_id": 3, "t": "z", "i": None},
                {"_id": 4, "i": None},
                {"_id": 5, "t": "x", "i": 0},
            ],
        ),
        (
            [
                {"$limit": 1},
                {"$addFields": {"n": {"$multiply": ["$n", 3]}, "z.y": "$c"}},
                {"$unset": ["t", "c"]},
            ],
            [{"_id": 1, "n": 3, "z": {"y": "a"}}],
        ),
        (
            [{"$sort": {"_id": -1}}, {"$skip": 1}, {"$limit": 2}, {"$project": {"_id": 1}}],
            [{"_id": 4}, {"_id": 3}],
        ),
        ([{"$sort": {"_id": -1}}, {"$limit": 2}, {"$project": {"_id": 1}}], [{"_id": 5}, {"_id": 4}]),
        (
            [{"$sortByCount": "$c"}],
            [{"_id": "a", "count": 2}, {"_id": None, "count": 2}, {"_id": "b", "count": 1}],
        ),
        ([{"$limit": 1}, {"$replaceRoot": {"newRoot": {"x": "$c", "y": "$none"}}}], [{"x": "a"}]),
        (
            [
                {"$limit": 1},
                {
                    "$project": {
                        "_id": 0,
                        "x": {"$cond": [{"$gte": ["$n", 1]}, {"$literal": "$n"}, 0]},
                        "y": {"$ifNull": ["$none", "$c"]},
                        "z": {"$size": "$t"},
                        "w": {"$concat": ["$c", "-", {"$toUpper": "$c"}]},
                    }
                },
            ],
            [{"x": "$n", "y": "a", "z": 2, "w": "a-A"}],
        ),
        (
            [
                {"$match": {"_id": 3}},
                {
                    "$project": {
                        "_id": 0,
                        "d": {"$divide": ["$n", 8]},
                        "m": {"$mod": ["$n", 3]},
                        "s": {"$subtract": [1, "$n"]},
                        "l": ["$n", "$none"],
                    }
                },
            ],
            [{"d": 0.5, "m": 1, "s": -3, "l": [4, None]}],
        ),
    ],
    ids=lambda value: repr(value)[:80],
)
def test_pipelines(stages: list[Doc], wanted: list[Doc]) -> None:
    assert aggregate(collection(ORDERS), *stages) == wanted


def test_sums_keep_the_wider_type_and_its_digits() -> None:
    def total(*numbers: Any) -> Any:
        held = collection([{"_id": place, "n": number} for place, number in enumerate(numbers)])
        found = aggregate(held, {"$group": {"_id": 1, "s": {"$sum": "$n"}}})[0]["s"]
        return type(found).__name__, str(found)

    assert total(1, 2) == ("int", "3")
    assert total(2**31 - 1, 1) == ("Int64", str(2**31))
    assert total(1, Int64(2)) == ("Int64", "3")
    assert total(2**63 - 1, 1) == ("float", str(2.0**63))
    assert total(0.1, 0.2, 0.3, 10**16, -(10**16)) == ("float", "0.6")
    assert total(1, Decimal128("2")) == ("Decimal128", "3")
    assert total(Decimal128("0.10"), 1) == ("Decimal128", "1.10")
    assert total(float("inf"), 1) == ("float", "inf")
    assert total("x", None) == ("int", "0")


def test_a_sample_is_of_different_documents() -> None:
    found = ids(aggregate(collection(NUMBERS), {"$sample": {"size": 20}}))
    assert len(set(found)) == 20
    assert sorted(ids(aggregate(collection(NUMBERS), {"$sample": {"size": 500}}))) == list(range(100))


@pytest.mark.parametrize(
    "stage",
    [
        "$lookup",
        "$facet",
        "$out",
        "$merge",
        "$unionWith",
        "$graphLookup",
        "$bucket",
        "$bucketAuto",
        "$indexStats",
        "$changeStream",
        "$geoNear",
        "$setWindowFields",
        "$redact",
        "$currentOp",
        "$documents",
    ],
)
def test_stages_that_are_not_done_are_refused_by_name(stage: str) -> None:
    with pytest.raises(QueryError) as caught:
        aggregate(collection([]), {stage: {}})
    assert caught.value.failure == Failure.NotImplemented
    assert stage in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "failure"),
    [
        ({"$odd": {}}, Failure.Location40324),
        ({"$match": {}, "$limit": 1}, Failure.Location40323),
        ({"$group": {"n": {"$sum": 1}}}, Failure.Location15955),
        ({"$group": {"_id": 1, "n": {"$stdDevPop": "$a"}}}, Failure.NotImplemented),
        ({"$group": {"_id": 1, "n": 1}}, Failure.Location40234),
        ({"$limit": 0}, Failure.Location15958),
        ({"$project": {}}, Failure.BadValue),
        ({"$sort": {}}, Failure.BadValue),
        ({"$sort": {"a": 2}}, Failure.BadValue),
        ({"$unwind": "t"}, Failure.Location28818),
        ({"$sample": {"size": -1}}, Failure.BadValue),
        ({"$match": {"$text": {}}}, Failure.NotImplemented),
    ],
    ids=repr,
)
def test_stages_that_make_no_sense_are_refused(stage: Doc, failure: Failure) -> None:
    with pytest.raises(QueryError) as caught:
        aggregate(collection([]), stage)
    assert caught.value.failure == failure


def test_memory_is_bounded_and_given_back() -> None:
    big = collection([{"_id": n, "n": -n, "text": "x" * 1000} for n in range(2000)])
    for stages in (
        [{"$sort": {"n": 1}}],
        [{"$group": {"_id": "$n"}}],
        [{"$group": {"_id": 1, "all": {"$push": "$text"}}}],
        [{"$sample": {"size": 1900}}],
    ):
        with pytest.raises(QueryError) as caught:
            aggregate(big, *stages, memory=300_000)
        assert caught.value.failure == Failure.QueryExceededMemoryLimitNoDiskUseAllowed
    assert ids(aggregate(big, {"$sort": {"n": 1}}, {"$limit": 2}, memory=3_000_000)) == [1999, 1998]
    pool = Pool(1000)
    one, two = work(900, pool), work(900, pool)
    one.hold(800)
    with pytest.raises(QueryError):
        two.hold(800)
    one.close()
    two.hold(800)


def test_a_paused_scan_goes_on_where_it_was() -> None:
    from dedupstore.query.finding import found, parse_find  # noqa: PLC0415
    from dedupstore.query.targets import Target  # noqa: PLC0415

    held = collection(NUMBERS)
    held.held.insert(6, held.held[5])  # a plain dump may hold a document twice
    answer = found(Target(held), parse_find({}), work())
    seen = []
    for document in answer:
        seen.append(document)
        answer.pause()
    assert seen == held.held
