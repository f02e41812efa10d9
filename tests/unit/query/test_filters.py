"""What a filter takes and what it leaves, case by case as MongoDB has it."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp

from dedupstore.query.failures import Failure, QueryError
from tests.unit.query.query_inputs import Doc, matches

NAN, INF = float("nan"), float("inf")
YES: list[tuple[Doc, Doc]] = [
    ({}, {"a": 1}),
    ({"a": 1}, {"a": 1}),
    ({"a": 1}, {"a": 1.0}),
    ({"a": 1}, {"a": Int64(1)}),
    ({"a": Decimal128("1.0")}, {"a": 1}),
    ({"a": 0}, {"a": -0.0}),
    ({"a": NAN}, {"a": Decimal128("NaN")}),
    ({"a": 1}, {"a": [5, 1]}),
    ({"a": [5, 1]}, {"a": [5, 1]}),
    ({"a": [5, 1]}, {"a": [[5, 1], 2]}),
    ({"a": {"b": 1}}, {"a": {"b": 1.0}}),
    ({"a": None}, {"a": None}),
    ({"a": None}, {}),
    ({"a.b": None}, {"a": 5}),
    ({"a.b": None}, {"a": [{"b": 1}, {}]}),
    ({"a": {"$ne": 1}}, {"a": 2}),
    ({"a": {"$ne": 1}}, {}),
    ({"a.b": {"$ne": None}}, {"a": []}),
    ({"a": {"$gt": 5}}, {"a": 6}),
    ({"a": {"$gt": 5}}, {"a": [1, 6]}),
    ({"a": {"$gt": 5, "$lt": 3}}, {"a": [1, 6]}),
    ({"a": {"$gte": 5}}, {"a": Decimal128("5.000")}),
    ({"a": {"$lt": INF}}, {"a": 2**62}),
    ({"a": {"$lte": NAN}}, {"a": NAN}),
    ({"a": {"$gte": None}}, {}),
    ({"a": {"$lt": MaxKey()}}, {"a": "x"}),
    ({"a": {"$gt": MinKey()}}, {"a": []}),
    ({"a": {"$gt": "a"}}, {"a": "b"}),
    ({"a": {"$lt": [1, 2]}}, {"a": [1, 1]}),
    ({"a": {"$gt": {"x": 1}}}, {"a": {"x": 2}}),
    ({"a": {"$lt": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": datetime(2019, 1, 1, tzinfo=UTC)}),
    ({"a": {"$in": [1, "x"]}}, {"a": "x"}),
    ({"a": {"$in": [1, None]}}, {}),
    ({"a": {"$in": [re.compile("^x")]}}, {"a": "xyz"}),
    ({"a": {"$in": [[1, 2]]}}, {"a": [1, 2]}),
    ({"a": {"$nin": [1]}}, {"a": 2}),
    ({"$or": [{"a": 1}, {"b": 1}]}, {"b": 1}),
    ({"$and": [{"a": 1}, {"b": 1}]}, {"a": 1, "b": 1}),
    ({"$nor": [{"a": 1}, {"b": 1}]}, {"a": 2}),
    ({"a": {"$not": {"$gt": 5}}}, {}),
    ({"a": {"$not": re.compile("x")}}, {"a": "y"}),
    ({"a": {"$exists": True}}, {"a": None}),
    ({"a": {"$exists": False}}, {}),
    ({"a.b": {"$exists": False}}, {"a": [1, 2]}),
    ({"a": {"$type": "string"}}, {"a": [1, "x"]}),
    ({"a": {"$type": "array"}}, {"a": []}),
    ({"a": {"$type": ["int", 2]}}, {"a": "x"}),
    ({"a": {"$type": "number"}}, {"a": Decimal128("1")}),
    ({"a": {"$type": -1}}, {"a": MinKey()}),
    ({"a": re.compile("^AB", re.IGNORECASE)}, {"a": "abc"}),
    ({"a": {"$regex": "b.c", "$options": "s"}}, {"a": "ab\nc"}),
    ({"a": {"$regex": "^c", "$options": "m"}}, {"a": "ab\nc"}),
    ({"a": Regex("x", "i")}, {"a": Regex("x", "i")}),
    ({"a": {"$regex": "é", "$options": "i"}}, {"a": "É"}),
    ({"a": {"$size": 2}}, {"a": [1, 2]}),
    ({"a": {"$all": [1, 2]}}, {"a": [2, 1, 0]}),
    ({"a": {"$all": [1]}}, {"a": 1}),
    ({"a": {"$all": [{"$elemMatch": {"b": 1}}, {"$elemMatch": {"c": 1}}]}}, {"a": [{"b": 1}, {"c": 1}]}),
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 2]}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1, "c": 2}]}),
    ({"a": {"$elemMatch": {"$or": [{"b": 1}, {"c": 1}]}}}, {"a": [{"c": 1}]}),
    ({"a": {"$elemMatch": {"$elemMatch": {"$gt": 1}}}}, {"a": [[0, 2]]}),
    ({"a": {"$mod": [4, 1]}}, {"a": 5.7}),
    ({"a": {"$mod": [4, -1]}}, {"a": -5}),
    ({"a.0": 1}, {"a": [1, 2]}),
    ({"a.0": 1}, {"a": {"0": 1}}),
    ({"a.0.0": 1}, {"a": [[1]]}),
    ({"a.b": 1}, {"a": [{"b": 0}, {"b": [1]}]}),
    ({"a.b.c": 1}, {"a": [{"b": [{"c": 1}]}]}),
    ({"$expr": {"$gt": ["$a", "$b"]}}, {"a": 2, "b": 1}),
    ({"a": {"$eq": Regex("x", "")}}, {"a": Regex("x", "")}),
    ({"a": ObjectId("65542139616263646501e240")}, {"a": ObjectId("65542139616263646501e240")}),
    ({"a": Timestamp(5, 1)}, {"a": Timestamp(5, 1)}),
    ({"a": {"$gt": Binary(b"a")}}, {"a": Binary(b"aa")}),
    ({"a": {"$ref": "c", "$id": 1}}, {"a": {"$ref": "c", "$id": 1}}),
    ({"$comment": "why", "a": 1}, {"a": 1}),
    ({"a": {}}, {"a": {}}),
]
NO: list[tuple[Doc, Doc]] = [
    ({"a": 1}, {"a": 2}),
    ({"a": 1}, {"a": "1"}),
    ({"a": 1}, {"a": True}),
    ({"a": 1}, {"a": [[1]]}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}),
    ({"a.b": None}, {"a": [1, 2]}),
    ({"a.b": None}, {"a": []}),
    ({"a": {"$ne": 1}}, {"a": [1, 2]}),
    ({"a": {"$gt": 5}}, {"a": "6"}),
    ({"a": {"$gt": 5}}, {"a": NAN}),
    ({"a": {"$lt": 5}}, {"a": NAN}),
    ({"a": {"$lt": 5}}, {"a": None}),
    ({"a": {"$gt": None}}, {"a": None}),
    ({"a": {"$gt": "a"}}, {"a": Code("b")}),
    ({"a": {"$gt": MaxKey()}}, {"a": MaxKey()}),
    ({"a": {"$lt": datetime(2020, 1, 1, tzinfo=UTC)}}, {"a": Timestamp(1, 1)}),
    ({"a": {"$in": []}}, {"a": 1}),
    ({"a": {"$nin": [1, None]}}, {}),
    ({"a": {"$not": {"$gt": 5}}}, {"a": 6}),
    ({"a": {"$exists": True}}, {}),
    ({"a": {"$type": "int"}}, {"a": Int64(1)}),
    ({"a": re.compile("^AB")}, {"a": "abc"}),
    ({"a": re.compile("1")}, {"a": 1}),
    ({"a": {"$size": 2}}, {"a": [[1, 2]]}),
    ({"a": {"$size": 1}}, {"a": 1}),
    ({"a": {"$all": []}}, {"a": []}),
    ({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 4]}),
    ({"a": {"$elemMatch": {"$gt": 1}}}, {"a": 2}),
    ({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"c": 2}]}),
    ({"a": {"$mod": [4, 1]}}, {"a": "5"}),
    ({"a": {"$mod": [4, 1]}}, {"a": INF}),
    ({"a.0": 1}, {"a": [[1]]}),
    ({"a.00": 1}, {"a": [1]}),
    ({"$expr": {"$gt": ["$a", "$b"]}}, {"a": 1, "b": 1}),
]


@pytest.mark.parametrize(("query", "document"), YES, ids=repr)
def test_a_document_fits(query: Doc, document: Doc) -> None:
    assert matches(query, document)


@pytest.mark.parametrize(("query", "document"), NO, ids=repr)
def test_a_document_does_not_fit(query: Doc, document: Doc) -> None:
    assert not matches(query, document)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("a.0", [1, 2, 4, 5, 9]),
        ("a.0.0", [3, 4, 5, 6, 8, 9, 10, 12, 13]),
    ],
)
def test_numbers_in_paths_are_names_and_places(path: str, wanted: list[int]) -> None:
    """The server's own table of what a number in a path reaches."""
    values: list[Any] = [
        42,
        [42],
        {"0": 42},
        [[42]],
        [{"0": 42}],
        {"0": [42]},
        {"0": {"0": 42}},
        [[[42]]],
        [[{"0": 42}]],
        [{"0": [42]}],
        [{"0": {"0": 42}}],
        {"0": [[42]]},
        {"0": [{"0": 42}]},
        {"0": {"0": [42]}},
    ]
    assert [n for n, value in enumerate(values) if matches({path: 42}, {"a": value})] == wanted


@pytest.mark.parametrize(
    ("query", "failure", "named"),
    [
        ({"$where": "1"}, Failure.NotImplemented, "$where"),
        ({"$text": {"$search": "x"}}, Failure.NotImplemented, "$text"),
        ({"$jsonSchema": {}}, Failure.NotImplemented, "$jsonSchema"),
        ({"a": {"$near": [0, 0]}}, Failure.NotImplemented, "$near"),
        ({"a": {"$bitsAllSet": 1}}, Failure.NotImplemented, "$bitsAllSet"),
        ({"a": {"$gt": 1, "$odd": 1}}, Failure.BadValue, "$odd"),
        ({"$odd": 1}, Failure.BadValue, "$odd"),
        ({"$expr": {"$dateToString": {}}}, Failure.NotImplemented, "$dateToString"),
        ({"$expr": "$$NOW"}, Failure.NotImplemented, "NOW"),
        ({"a": {"$in": 1}}, Failure.BadValue, "$in"),
        ({"$or": []}, Failure.BadValue, "nonempty"),
        ({"$and": [1]}, Failure.BadValue, "objects"),
        ({"a": {"$gt": re.compile("x")}}, Failure.BadValue, "RegEx"),
        ({"a": {"$not": 1}}, Failure.BadValue, "$not"),
        ({"a": {"$size": -1}}, Failure.BadValue, "$size"),
        ({"a": {"$mod": [0, 1]}}, Failure.BadValue, "divisor"),
        ({"a": {"$type": "odd"}}, Failure.BadValue, "odd"),
        ({"a": {"$regex": "("}}, Failure.BadValue, "invalid"),
        ({"a": {"$regex": "x", "$options": "q"}}, Failure.BadValue, "q"),
        ({"a": {"$regex": "(a+)+$"}}, Failure.NotImplemented, "repetition"),
        ({"a": {"$regex": "((a|b*)c)*"}}, Failure.NotImplemented, "repetition"),
        ({"a": {"$regex": "[[:alpha:]]"}}, Failure.NotImplemented, "POSIX"),
        ({"a": {"$regex": r"\p{L}"}}, Failure.BadValue, "not supported"),
        ({"a" + ".a" * 300: 1}, Failure.Overflow, "too long"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_not_known_is_refused_by_name(query: Doc, failure: Failure, named: str) -> None:
    with pytest.raises(QueryError) as caught:
        matches(query, {"a": 1})
    assert caught.value.failure == failure
    assert named in str(caught.value)


def test_nesting_has_an_end() -> None:
    query: Doc = {"a": 1}
    for _ in range(150):
        query = {"$and": [query]}
    with pytest.raises(QueryError, match="nesting"):
        matches(query, {"a": 1})


@pytest.mark.parametrize(
    "pattern", [r"^(\d+)-[a-z]+$", r"(ab){2,3}c*", r"[+*(]+", r"\(a+\)+", r"(?<year>\d{4})\z"]
)
def test_harmless_patterns_are_taken(pattern: str) -> None:
    matches({"a": {"$regex": pattern}}, {"a": "2020"})
