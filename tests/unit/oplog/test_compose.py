"""Updates of one document made one: the result is that of all in turn, and takes little room."""

from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.oplog.compose import Patch, patch_of
from dedupstore.sources.oplog.diff import apply_update
from tests.unit.oplog.log_entries import diff, doc

D = dict[str, Any]


def into(**fields: Any) -> D:
    """A difference that goes into the document ``a``."""
    return {"sa": fields}


def array(*, cut: int | None = None, **elements: Any) -> D:
    """A difference that goes into the array ``a``."""
    return {"sa": {"a": True} | ({} if cut is None else {"l": cut}) | elements}


X1, X2 = {"u": {"x": 1}}, {"u": {"x": 2}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"u": {"a": 1}}, {"u": {"a": 2, "b": 3}}, {"u": {"a": 2, "b": 3}}),
        ({"d": {"a": False}}, {"i": {"a": 2}}, {"i": {"a": 2}}),
        ({"d": {"a": False}}, {"u": {"a": 2}}, {"i": {"a": 2}}),
        ({"i": {"a": 1, "b": 2}}, {"d": {"a": False}}, {"d": {"a": False}, "i": {"b": 2}}),
        ({"i": {"a": 1, "b": 2}}, {"u": {"a": 5}}, {"i": {"a": 5, "b": 2}}),
        ({"i": {"a": 1, "b": 2}}, {"i": {"a": 5}}, {"i": {"b": 2, "a": 5}}),
        ({"i": {"a": {"x": 1}}}, into(**X2), {"i": {"a": {"x": 2}}}),
        ({"u": {"a": 5}}, into(**X2), {"u": {"a": None}}),
        ({"d": {"a": False}}, into(**X2), {"d": {"a": False}}),
        (into(**X1), into(**X2, sy={"u": {}}), into(**X2, sy={})),
        (into(**X1), {"d": {"a": False}}, {"d": {"a": False}}),
        (into(**X1), {"u": {"a": 1}}, {"u": {"a": 1}}),
        (into(**X1), {"i": {"a": 1}}, {"i": {"a": 1}}),
        (array(u1=1), array(u1=2, u4=5), array(u1=2, u4=5)),
        (array(u1=1, u5=2), array(cut=3), array(cut=3, u1=1)),
        (array(cut=1), array(cut=3), array(cut=3, u1=None, u2=None)),
        (array(cut=1), array(u2=9), array(cut=3, u1=None, u2=9)),
        (array(cut=1), array(s1=X1), array(cut=2, u1=None)),
        (array(cut=2), array(s1=X1), array(cut=2, s1=X1)),
        (array(u0={"x": 1}), array(s0=X2), array(u0={"x": 2})),
    ],
)
def test_two_differences_are_one(first: D, second: D, expected: D) -> None:
    patch = patch_of([doc(diff(first)), doc(diff(second))])
    (update,) = patch.updates()
    objects, arrays = {"x": 0, "y": {}}, [0, {"x": 0}, 2, 3, 4, 5, 6]
    for before in ({"a": objects, "b": 1}, {"a": arrays, "b": 1}, {"b": 1, "a": 1}):
        after = apply_update(apply_update(doc(before), doc(diff(first))), doc(diff(second)))
        assert patch.apply(doc(before)) == apply_update(doc(before), update) == after
    assert update == doc(diff(expected))


def test_many_updates_of_one_document_take_up_one() -> None:
    patch = Patch()
    for number in range(2000):
        patch.add(doc(diff({"u": {f"f{number % 5}": number}, "sn": {"u": {"x": number}}})))
    (update,) = patch.updates()
    assert update == doc(diff({"u": {f"f{n}": 1995 + n for n in range(5)}, "sn": {"u": {"x": 1999}}}))


def test_old_modifiers_of_the_same_paths_replace_each_other() -> None:
    def old(**sets: int) -> bytes:
        return doc({"$v": 1, "$set": sets})

    patch = patch_of([old(a=1), old(a=2), old(b=1), old(c=1), old(b=2), old(a=3)])
    assert patch.updates() == (old(a=3), old(b=2), old(c=1))
    assert patch.apply(doc(c=0)) == doc(c=1, a=3, b=2)


@pytest.mark.parametrize("between", ["a", "a.b", "a.b.c.d"])
def test_old_modifiers_stay_apart_where_one_lies_in_the_other(between: str) -> None:
    updates = [
        doc({"$v": 1, "$set": {"a.b.c": {"d": 1}}}),
        doc({"$v": 1, "$set": {between: 5}}),
        doc({"$v": 1, "$set": {"a.b.c": {"d": 2}}}),
    ]
    patch = patch_of(updates)
    assert patch.updates() == tuple(updates)
    after = doc()
    for update in updates:
        after = apply_update(after, update)
    assert patch.apply(doc()) == after


def test_many_old_modifiers_of_one_document_take_up_few() -> None:
    updates = [doc({"$v": 1, "$set": {f"f{number % 7}": number}}) for number in range(2000)]
    patch = patch_of(updates)
    assert set(patch.updates()) == set(updates[-7:])
    assert patch.apply(doc()) == doc({f"f{n}": max(k for k in range(2000) if k % 7 == n) for n in range(7)})


def test_old_and_new_in_turn() -> None:
    updates = [
        doc({"$v": 1, "$set": {"a": 1}}),
        doc(diff({"u": {"a": 2}})),
        doc(diff({"i": {"b": 2}})),
        doc({"$v": 1, "$unset": {"a": True}}),
        doc(diff({"i": {"a": 3}})),
    ]
    patch = patch_of(updates)
    assert len(patch.updates()) == 4
    assert patch.apply(doc(a=0)) == doc(b=2, a=3)
    assert patch_of(patch.updates()).apply(doc(a=0)) == doc(b=2, a=3)


def test_a_log_that_contradicts_itself() -> None:
    with pytest.raises(SourceError, match="'a' for a document and for an array"):
        patch_of([doc(diff({"sa": {"u": {"x": 1}}})), doc(diff({"sa": {"a": True, "u0": 1}}))])


def test_what_is_not_known_is_refused_when_it_is_added() -> None:
    patch = patch_of([doc(diff({"u": {"a": 1}}))])
    with pytest.raises(SourceError, match="operator 'b'"):
        patch.add(doc(diff({"b": {"a": 1}})))
