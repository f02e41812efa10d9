"""A base and changes joined by key."""

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.change import DELETE, PATCH, SET, Change
from dedupstore.sources.oplog.merge import limits_of, merge, trimmed
from tests.unit.oplog.log_entries import diff, doc, identity, long


def change(of: int, kind: int, *documents: bytes, strict: bool = True) -> Change:
    return Change(sort_key(identity(of)), identity(of), kind, documents, strict=strict)


def merged(base: list[int], *changes: Change, fuzzy: bool = False) -> list[bytes]:
    return list(merge((doc(_id=of) for of in base), iter(changes), fuzzy=fuzzy, where="db.c"))


def test_without_changes_the_base_passes_through() -> None:
    assert merged([1, 2]) == [doc(_id=1), doc(_id=2)]
    assert list(merge(iter([doc(_id=2), doc(_id=1)]), iter(()), fuzzy=False)) == [doc(_id=2), doc(_id=1)]


def test_before_between_and_behind() -> None:
    new = [doc(_id=of, new=True) for of in range(6)]
    assert merged([1, 3], *(change(of, SET, new[of]) for of in range(6))) == new
    assert merged([], change(1, SET, new[1]), change(2, DELETE)) == [new[1]]
    assert merged([1, 2, 3], change(2, DELETE), change(4, DELETE)) == [doc(_id=1), doc(_id=3)]
    update = doc(diff({"i": {"x": 1}}))
    assert merged([1, 2], change(2, PATCH, update, update)) == [doc(_id=1), doc(_id=2, x=1)]


def test_what_only_a_fuzzy_base_may_lack() -> None:
    update = doc(diff({"i": {"x": 1}}))
    assert merged([2], change(1, PATCH, update, strict=False), fuzzy=True) == [doc(_id=2)]
    for strict, fuzzy in ((True, True), (True, False), (False, False)):
        with pytest.raises(SourceError, match=r"the document of db\.c with the _id 1"):
            merged([2], change(1, PATCH, update, strict=strict), fuzzy=fuzzy)


def test_a_base_out_of_order() -> None:
    with pytest.raises(SourceError, match=r"base of db\.c is not in order of _id"):
        merged([2, 1], change(5, DELETE))


def test_limits() -> None:
    assert limits_of(doc()) == (None, None)
    assert limits_of(doc(capped=True, size=4096, max=long(5))) == (4096, 5)
    assert limits_of(doc(capped=True, size=1.5, max=0)) == (256, None)
    assert limits_of(doc(size=257)) == (512, None)
    assert limits_of(doc(size=float("inf"), max=-1)) == (None, None)


def test_trimming_keeps_the_newest() -> None:
    some = [doc(_id=of) for of in range(10)]
    assert list(trimmed(lambda: iter(some), None, None)) == some
    assert list(trimmed(lambda: iter(some), None, 4)) == some[6:]
    assert list(trimmed(lambda: iter(some), 2 * len(some[0]) + 1, None)) == some[8:]
    assert list(trimmed(lambda: iter(some), 1 << 20, 100)) == some
