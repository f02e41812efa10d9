"""``$v: 1``: paths into documents and arrays, in the server's order."""

from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.diff import apply_update, check_update
from tests.unit.oplog.log_entries import Typed, doc, pairs


def after(before: dict[str, Any] | bytes, modifiers: dict[str, Any]) -> bytes:
    update = doc({"$v": 1} | modifiers)
    check_update(update)
    return apply_update(doc(before) if isinstance(before, dict) else before, update)


@pytest.mark.parametrize(
    ("before", "modifiers", "expected"),
    [
        ({"a": 1, "b": 2}, {"$set": {"a": "x"}}, {"a": "x", "b": 2}),
        ({"a": 1, "b": 2}, {"$unset": {"a": True}}, {"b": 2}),
        ({"a": 1}, {"$unset": {"x.y": True}}, {"a": 1}),
        ({}, {"$set": {"z": 1, "b": 2, "a": 3}}, {"a": 3, "b": 2, "z": 1}),
        ({}, {"$set": {"10": 1, "9": 2, "a": 3, "01": 4}}, {"01": 4, "9": 2, "10": 1, "a": 3}),
        ({"a": {"b": 1}}, {"$set": {"a.c.d": 5}}, {"a": {"b": 1, "c": {"d": 5}}}),
        ({}, {"$set": {"a.c": 1, "a.b": 2}}, {"a": {"b": 2, "c": 1}}),
        ({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}),
        ({"a": [1, 2]}, {"$set": {"a.1": 9}}, {"a": [1, 9]}),
        ({"a": [1]}, {"$set": {"a.3": 4}}, {"a": [1, None, None, 4]}),
        ({"a": [1]}, {"$set": {"a.10": 10, "a.2": 2}}, {"a": [1, None, 2, *[None] * 7, 10]}),
        ({"a": [{"b": 1}]}, {"$set": {"a.0.b": 2, "a.1.c": 3}}, {"a": [{"b": 2}, {"c": 3}]}),
        ({"a": [[1]]}, {"$set": {"a.0.1": 2}}, {"a": [[1, 2]]}),
        ({"a": [1, 2]}, {"$unset": {"a.0": True}}, {"a": [None, 2]}),
        ({"a": [1]}, {"$unset": {"a.5": True}}, {"a": [1]}),
        ({"a": [1]}, {"$set": {"a.name": 5, "b": 1}}, {"a": [1], "b": 1}),
        ({"a": 5}, {"$set": {"a.b": 1, "c": 2}}, {"a": 5, "c": 2}),
        ({"a": None}, {"$set": {"a.b": 1}}, {"a": None}),
        ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": True}, "$set": {"a.c": 3}}, {"a": {"c": 3}}),
        ({"a": {"b": 1}}, {"$unset": {"a.b": True}}, {"a": {}}),
        ({"": {"": 1}}, {"$set": {".": 2}}, {"": {"": 2}}),
    ],
)  # fmt: skip
def test_rules(before: dict[str, Any], modifiers: dict[str, Any], expected: dict[str, Any]) -> None:
    assert after(before, modifiers) == doc(expected)


def test_the_first_of_several_fields_is_meant() -> None:
    assert after(pairs(("a", 1), ("a", 2)), {"$set": {"a": 9}}) == pairs(("a", 9), ("a", 2))


def test_without_a_version() -> None:
    assert apply_update(doc(a=1), doc({"$set": {"a": 2}})) == doc(a=2)


def test_what_is_not_touched_keeps_its_bytes() -> None:
    odd = [("l", Typed(raw.ARRAY, pairs(("5", 1)))), ("a", 1), ("n", -0.0)]
    assert after(pairs(*odd), {"$set": {"b": 1}}) == pairs(*odd, ("b", 1))


@pytest.mark.parametrize(
    ("modifiers", "words"),
    [
        ({"$inc": {"a": 1}}, "operator '$inc'"),
        ({"$set": {"a": 1}, "$push": {"b": 1}}, "operator '$push'"),
        ({"$set": 5}, "operator '$set'"),
        ({"a": 1}, "operator 'a'"),
        ({}, "nothing to do"),
        ({"$set": {"a": 1, "a.b": 2}}, "changes 'a.b' twice"),
        ({"$set": {"a.b": 1, "a": 2}}, "changes 'a' twice"),
        ({"$set": {"a": 1}, "$unset": {"a": True}}, "changes 'a' twice"),
        ({"$set": {".".join("a" * 300): 1}}, "deeper than documents are"),
    ],
)
def test_what_is_refused_by_name(modifiers: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_update(doc({"$v": 1} | modifiers))
    assert words in caught.value.message


def test_no_array_grows_beyond_what_can_be_stored() -> None:
    with pytest.raises(SourceError, match="makes a document of"):
        after({"a": "x" * (9 << 20)}, {"$set": {"b": "x" * (9 << 20)}})
    with pytest.raises(SourceError, match="fills an array up to element 99999999"):
        after({"a": []}, {"$set": {"a.99999999": 1}})
