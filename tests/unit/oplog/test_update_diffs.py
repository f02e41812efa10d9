"""Differences and whole documents: every rule once, and every shape that is not one of the rules."""

from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.diff import apply_update, check_update, is_document
from tests.unit.oplog.log_entries import Typed, diff, doc, long, pairs


def after(before: dict[str, Any] | bytes, difference: dict[str, Any]) -> bytes:
    update = doc(diff(difference))
    check_update(update)
    return apply_update(doc(before) if isinstance(before, dict) else before, update)


@pytest.mark.parametrize(
    ("before", "difference", "expected"),
    [
        ({"a": 1, "b": 2}, {"d": {"a": False}}, {"b": 2}),
        ({"a": 1, "b": 2}, {"d": {"gone": False}}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"u": {"a": "x"}}, {"a": "x", "b": 2}),
        ({"b": 2}, {"u": {"a": 1}}, {"b": 2, "a": 1}),
        ({"a": 1}, {"i": {"c": 3, "b": 2}}, {"a": 1, "c": 3, "b": 2}),
        ({"a": 1, "b": 2}, {"i": {"a": 3}}, {"b": 2, "a": 3}),
        ({"a": 1, "z": 0}, {"d": {"z": 0}, "u": {"m": 1, "a": 5}, "i": {"b": 2}}, {"a": 5, "m": 1, "b": 2}),
        ({"a": {"x": 1, "y": {}}}, {"sa": {"sy": {"i": {"": 1}}}}, {"a": {"x": 1, "y": {"": 1}}}),
        ({"a": 1}, {"sa": {"u": {"x": 2}}}, {"a": None}),
        ({"a": [1]}, {"sa": {"u": {"x": 2}}}, {"a": None}),
        ({"a": {}}, {"sa": {"a": True, "u0": 1}}, {"a": None}),
        ({"b": 1}, {"sa": {"u": {"x": 2}}}, {"b": 1}),
        ({"a": [1, 2, 3]}, {"sa": {"a": True, "u1": "x"}}, {"a": [1, "x", 3]}),
        ({"a": [1, 2, 3]}, {"sa": {"a": True, "l": 1}}, {"a": [1]}),
        ({"a": [1, 2, 3]}, {"sa": {"a": True, "l": 2, "u0": 9}}, {"a": [9, 2]}),
        ({"a": [1]}, {"sa": {"a": True, "l": 3}}, {"a": [1, None, None]}),
        ({"a": [1]}, {"sa": {"a": True, "u1": 2, "u3": 4}}, {"a": [1, 2, None, 4]}),
        ({"a": [1, {"b": 1}]}, {"sa": {"a": True, "s1": {"u": {"b": 2}}}}, {"a": [1, {"b": 2}]}),
        ({"a": [[1]]}, {"sa": {"a": True, "s0": {"a": True, "u1": 2}}}, {"a": [[1, 2]]}),
        ({"a": [1]}, {"sa": {"a": True, "s0": {"u": {"b": 2}}}}, {"a": [None]}),
        ({"a": [1]}, {"sa": {"a": True, "s2": {"u": {"b": 2}}}}, {"a": [1, None, None]}),
        ({"a": []}, {"sa": {"a": True, "l": 0}}, {"a": []}),
        ({"": 1, "a.b": 2, "$x": 3}, {"u": {"": 5, "a.b": 6}, "s$x": {}}, {"": 5, "a.b": 6, "$x": None}),
        ({"s": {"s": {"d": 1}}}, {"ss": {"ss": {"u": {"d": 2}}}}, {"s": {"s": {"d": 2}}}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)  # fmt: skip
def test_rules(before: dict[str, Any], difference: dict[str, Any], expected: dict[str, Any]) -> None:
    assert after(before, difference) == doc(expected)


def test_what_is_not_mentioned_keeps_its_bytes() -> None:
    odd = [
        ("n", Typed(raw.DOUBLE, b"\1\0\0\0\0\0\xf8\xff")),
        ("z", -0.0),
        ("t", Typed(raw.TIMESTAMP, bytes(8))),
        ("u", Typed(raw.UNDEFINED, b"")),
        ("list", Typed(raw.ARRAY, pairs(("7", 1), ("7", 2)))),
        ("twice", 1),
        ("twice", 2),
    ]
    assert after(pairs(*odd), {"u": {"new": 1}}) == pairs(*odd, ("new", 1))


def test_fields_that_are_there_twice_are_all_meant() -> None:
    twice = pairs(("a", 1), ("b", 2), ("a", 3))
    assert after(twice, {"d": {"a": False}}) == doc(b=2)
    assert after(twice, {"u": {"a": 9}}) == pairs(("a", 9), ("b", 2), ("a", 9))
    assert after(twice, {"i": {"a": 9}}) == doc(b=2, a=9)


def test_elements_of_a_touched_array_are_named_by_position() -> None:
    before = pairs(("a", Typed(raw.ARRAY, pairs(("x", 1), ("1", 2), ("", 3)))))
    assert after(before, {"sa": {"a": True, "u1": 5}}) == doc(a=[1, 5, 3])


def test_whole_documents() -> None:
    whole = doc({"$v": 2, "diff": {"x": 1}, "_id": 1})
    for document in (doc(_id=1), doc(a=1, _id=1), whole):
        assert is_document(document)
        assert apply_update(None, document) == document
        assert apply_update(doc(_id=1, b=1), document) == document
    assert not is_document(doc(diff({"u": {"_id": 1}})))
    with pytest.raises(SourceError, match="not there"):
        apply_update(None, doc(diff({"u": {"a": 1}})))


def test_nesting_as_deep_as_documents_go() -> None:
    value, change = doc(x=1), doc(u={"x": 2})
    for _ in range(raw.NESTING_MAX - 1):
        value, change = doc(a=value), doc(sa=change)
    result = apply_update(value, doc({"$v": 2, "diff": change}))
    assert result == value.replace(b"\x10x\0\1", b"\x10x\0\2")
    with pytest.raises(SourceError, match="nests its difference"):
        apply_update(doc(a=value), doc({"$v": 2, "diff": doc(sa=change)}))
    inner = doc(a=True, u0=1)
    for _ in range(raw.NESTING_MAX):
        inner = doc(a=True, s0=inner)
    with pytest.raises(SourceError, match="nests its difference"):
        check_update(doc(diff({"sa": inner})))


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (diff({"b": {"a": {"o": 1}}}), "operator 'b' (a binary difference)"),
        (diff({"sa": {"b": {}}}), "operator 'b' (a binary difference)"),
        (diff({"x": {"a": 1}}), "operator 'x'"),
        (diff({"": {"a": 1}}), "operator ''"),
        (diff({"u": {"a": 1}, "d": {"b": False}}), "operator 'd' where it does not belong"),
        (diff({"i": {"a": 1}, "u": {"b": 2}}), "operator 'u' where it does not belong"),
        (diff({"sa": {}, "i": {"b": 2}}), "operator 'i' where it does not belong"),
        (diff({"u": 5}), "operator 'u' where it does not belong"),
        (diff({"sa": 5}), "operator 'sa' where it does not belong"),
        (diff({"u": {"a": 1}, "i": {"a": 1}}), "field 'a' twice"),
        (diff({"d": {"a": 1}, "sa": {}}), "field 'a' twice"),
        (diff({"sa": {"a": False}}), "an array's difference that says it is none"),
        (diff({"sa": {"a": True, "l": -1}}), "cuts an array to -1"),
        (diff({"sa": {"a": True, "l": 2**30}}), "cuts an array to 1073741824"),
        (diff({"sa": {"a": True, "l": long(1)}}), "of an array"),
        (diff({"sa": {"a": True, "x1": 1}}), "operator 'x1' in an array"),
        (diff({"sa": {"a": True, "s1": 1}}), "operator 's1' in an array"),
        (diff({"sa": {"a": True, "u": 1}}), "the element '' of an array"),
        (diff({"sa": {"a": True, "u-1": 1}}), "the element '-1' of an array"),
        (diff({"sa": {"a": True, "u999999999": 1}}), "the element '999999999' of an array"),
        (diff({"sa": {"a": True, "u9999999": 1}}), "the element '9999999' of an array"),
        (diff({"sa": {"a": True, "l": 2, "u2": 1}}), "changes element 2 of an array that it cuts to 2"),
        ({"$v": 3, "diff": {}}, "version 3"),
        ({"$v": 2, "diff": {}, "more": 1}, "version 2 and the fields $v, diff, more"),
        ({"$v": 2, "diff": []}, "version 2"),
        ({"$v": 2}, "version 2"),
    ],
)
def test_what_is_refused_by_name(update: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_update(doc(update))
    assert words in caught.value.message
    with pytest.raises(SourceError):
        apply_update(doc(a={"b": [1]}), doc(update))


def test_a_section_twice_is_refused() -> None:
    update = pairs(("$v", 2), ("diff", pairs(("u", {"a": 1}), ("u", {"b": 1}))))
    with pytest.raises(SourceError, match="where it does not belong"):
        check_update(update)


def test_versions_as_any_integer() -> None:
    assert apply_update(doc(a=1), doc({"$v": long(2), "diff": {"u": {"a": 2}}})) == doc(a=2)


def test_no_document_grows_beyond_what_can_be_stored() -> None:
    big = "x" * (9 << 20)
    with pytest.raises(SourceError, match="makes a document of"):
        apply_update(doc(a=big), doc(diff({"i": {"b": big}})))
    with pytest.raises(SourceError, match="makes a document of"):
        apply_update(doc(a=[]), doc(diff({"sa": {"a": True, "l": 2_000_000}})))
