"""Random queries put to a live server and to ours, over the same documents: the answers are the same.

What one of the two refuses does not count, so it is checked how many were compared. Where SecantusDB is
known to differ from MongoDB, the queries are not asked: ``{$all: [null]}``, sorts and expressions along a way
through an array (it does not map over the items), ``$unset`` of such a path, ``$count`` of nothing, and
``$elemMatch`` of null over items that are arrays.
"""

import random
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.bson.raw import id_of
from tests.support.servers import PREFIX, Server
from tests.support.wireserver import Client, serving
from tests.unit.export.views import ListedView
from tests.unit.server.server_inputs import made

RAW: bson.CodecOptions[RawBSONDocument] = bson.CodecOptions(document_class=RawBSONDocument)
DB = PREFIX + "queries"
ROUNDS = 400
SCALARS: list[Any] = [
    0,
    1,
    2,
    3,
    -1,
    1.5,
    2.0,
    Int64(3),
    Decimal128("1.5"),
    "a",
    "b",
    "ab",
    "",
    None,
    True,
    False,
    ObjectId("65542139616263646501e240"),
    bson.Binary(b"x", 5),
]


def value(rnd: random.Random, depth: int = 2) -> Any:
    kind = rnd.random()
    if depth and kind < 0.2:
        return [value(rnd, depth - 1) for _ in range(rnd.randrange(4))]
    if depth and kind < 0.4:
        return {name: value(rnd, depth - 1) for name in rnd.sample("abc", rnd.randrange(1, 3))}
    return rnd.choice(SCALARS)


def documents(rnd: random.Random, count: int) -> list[dict[str, Any]]:
    return [{"_id": n, **{name: value(rnd) for name in "abcd" if rnd.random() < 0.8}} for n in range(count)]


def path(rnd: random.Random) -> str:
    return rnd.choice(["a", "b", "c", "d", "a.b", "b.a", "c.a", "a.b.c", "_id"])


def condition(rnd: random.Random) -> Any:
    scalar = rnd.choice(SCALARS)
    return rnd.choice(
        [
            value(rnd),
            {"$eq": value(rnd)},
            {"$ne": value(rnd)},
            {rnd.choice(["$gt", "$gte", "$lt", "$lte"]): rnd.choice([0, 1, 2.0, "a", "b", True, Int64(3)])},
            {"$gt": rnd.choice([0, 1]), "$lt": rnd.choice([2, 3.5])},
            {"$in": [value(rnd, 1) for _ in range(rnd.randrange(4))]},
            {"$nin": [scalar, rnd.choice(SCALARS)]},
            {"$exists": rnd.random() < 0.5},
            {
                "$type": rnd.choice(
                    [
                        "int",
                        "long",
                        "double",
                        "decimal",
                        "string",
                        "object",
                        "array",
                        "null",
                        "bool",
                        "number",
                    ]
                )
            },
            {"$size": rnd.randrange(3)},
            {
                "$all": [rnd.choice([one for one in SCALARS if one is not None])]
            },  # theirs: null is not missing
            {"$elemMatch": {"$gte": rnd.choice([0, 1]), "$lt": 3}},
            {"$elemMatch": {rnd.choice("abc"): rnd.choice([one for one in SCALARS if one is not None])}},
            {"$mod": [2, rnd.randrange(2)]},
            {"$not": {"$gt": rnd.choice([0, 1, "a"])}},
            {"$regex": rnd.choice(["a", "^a", "b$"])},
        ]
    )


def query(rnd: random.Random, depth: int = 1) -> dict[str, Any]:
    if depth and rnd.random() < 0.3:
        operator = rnd.choice(["$and", "$or", "$nor"])
        return {operator: [query(rnd, depth - 1) for _ in range(rnd.randrange(1, 3))]}
    return {path(rnd): condition(rnd) for _ in range(rnd.randrange(1, 3))}


def projection(rnd: random.Random) -> dict[str, Any] | None:
    kind = rnd.random()
    if kind < 0.4:
        return None
    names = rnd.sample(["a", "b", "c", "d"], rnd.randrange(1, 3))
    found: dict[str, Any] = dict.fromkeys(
        (name + rnd.choice(["", ".a", ".b"]) for name in names), int(kind < 0.7)
    )
    if rnd.random() < 0.3:
        found["_id"] = 0
    return found


@pytest.fixture(scope="module")
def both(secantus_server: Server) -> Iterator[tuple[Client, Client]]:
    given = documents(random.Random(5), 150)
    with secantus_server.client() as theirs:
        theirs.drop_database(DB)
        theirs[DB].c.insert_many(given)
        stored = [
            one.raw for one in theirs[DB].get_collection("c", codec_options=RAW).find().hint([("_id", 1)])
        ]
        assert stored == sorted(stored, key=lambda one: sort_key(id_of(one)))
        with serving(ListedView([made(DB, "c", stored)])) as running, running.client() as ours:
            yield theirs, ours
        theirs.drop_database(DB)


def answer(client: Client, command: dict[str, Any]) -> list[bytes] | None:
    try:
        sized = command if "cursor" in command else {**command, "batchSize": 1000}
        found = client[DB].command(sized, codec_options=RAW)
    except OperationFailure:
        return None
    return [one.raw for one in found["cursor"]["firstBatch"]]


def test_finds(both: tuple[Client, Client]) -> None:
    theirs, ours = both
    rnd = random.Random(11)
    compared, differing = 0, []
    for _ in range(ROUNDS):
        command: dict[str, Any] = {"find": "c", "filter": query(rnd), "sort": {"_id": 1}}
        if (fields := projection(rnd)) is not None:
            command["projection"] = fields
        left, right = answer(theirs, command), answer(ours, command)
        if left is None or right is None:
            continue
        compared += 1
        if left != right:
            differing.append((command, left, right))
    assert compared > ROUNDS * 0.9
    assert not differing, (
        "\n".join(describe(one) for one in differing[:12]) + f"\n{len(differing)} of {compared}"
    )


def test_sorts(both: tuple[Client, Client]) -> None:
    theirs, ours = both
    rnd = random.Random(12)
    compared, differing = 0, []
    for _ in range(100):
        order = {name: rnd.choice([1, -1]) for name in rnd.sample(["a", "b", "c", "d", "a.b", "b.a"], 1)}
        command = {
            "find": "c",
            "sort": {**order, "_id": 1},
            "projection": {"_id": 1},
            "skip": rnd.randrange(9),
        }
        (name,) = order
        if "." in name:  # theirs passes over items that are no documents, which an index has as null
            command["filter"] = {name.partition(".")[0]: {"$not": {"$type": "array"}}}
        left, right = answer(theirs, command), answer(ours, command)
        if left is None or right is None:
            continue
        compared += 1
        if left != right:
            differing.append((command, left, right))
    assert compared > 90
    assert not differing, (
        "\n".join(describe(one) for one in differing[:5]) + f"\n{len(differing)} of {compared}"
    )


def number(rnd: random.Random) -> Any:
    return {
        "$" + rnd.choice(["add", "subtract", "multiply"]): [
            rnd.choice(["$_id", 2, 1.5]),
            rnd.choice(["$_id", 3]),
        ]
    }


def stages(rnd: random.Random) -> list[dict[str, Any]]:
    accumulator = rnd.choice(["$sum", "$avg", "$min", "$max", "$first", "$last", "$push"])
    return [
        {"$match": query(rnd)},
        {"$sort": {"_id": rnd.choice([1, -1])}},
        *rnd.choice(
            [
                [{"$skip": rnd.randrange(5)}, {"$limit": rnd.randrange(1, 9)}],
                [
                    {"$group": {"_id": {"$mod": ["$_id", 3]}, "x": {accumulator: "$" + rnd.choice("abcd")}}},
                    {"$sort": {"_id": 1}},
                ],
                [
                    {
                        "$unwind": {
                            "path": "$" + rnd.choice("abcd"),
                            "preserveNullAndEmptyArrays": rnd.random() < 0.5,
                        }
                    }
                ],
                [{"$addFields": {rnd.choice(["x", "a", "x.y"]): number(rnd)}}],
                [{"$project": {"a": 1, "x": number(rnd), "y": {"$ifNull": ["$b", "none"]}}}],
                [{"$project": {"x": {"$cond": [{"$gt": ["$a", "$b"]}, "$a", {"$type": "$c"}]}}}],
                [{"$unset": rnd.choice(["a", "b", "c"])}],
                [{"$count": "n"}],
                [{"$match": query(rnd)}, {"$project": {"_id": 1, "all": ["$a", "$d"]}}],
            ]
        ),
    ]


def test_pipelines(both: tuple[Client, Client]) -> None:
    theirs, ours = both
    rnd = random.Random(13)
    compared, differing = 0, []
    for _ in range(ROUNDS):
        command = {"aggregate": "c", "pipeline": stages(rnd), "cursor": {"batchSize": 1000}}
        left, right = answer(theirs, command), answer(ours, command)
        if left is None or right is None:
            continue
        compared += 1
        if not right and "$count" in command["pipeline"][-1]:  # theirs counts to zero
            continue
        if [bson.decode(one) for one in left] != [bson.decode(one) for one in right]:
            differing.append((command, left, right))
    assert compared > ROUNDS * 0.9
    assert not differing, (
        "\n".join(describe(one) for one in differing[:12]) + f"\n{len(differing)} of {compared}"
    )


def describe(one: tuple[dict[str, Any], list[bytes], list[bytes]]) -> str:
    command, left, right = one
    only = [x for x in left if x not in right][:2], [x for x in right if x not in left][:2]
    shown = [[bson.decode(x) for x in side] for side in only]
    return f"{command}\n   theirs alone {shown[0]}\n   ours alone {shown[1]}"
