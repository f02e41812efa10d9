"""A stretch of a log as what it comes to: documents, capped collections, fuzzy bases, cuts, memory."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.catalog import Catalog
from dedupstore.sources.oplog.change import DELETE, PATCH, SET
from dedupstore.sources.oplog.position import Position, Ts
from tests.unit.oplog.log_entries import (
    A,
    B,
    Typed,
    collapsed,
    collection,
    command,
    deleted,
    diff,
    doc,
    documents,
    entry,
    identity,
    inner,
    inserted,
    long,
    updated,
)

MEMORIES = pytest.mark.parametrize("memory", [1 << 20, 1000, 1])


def add(of: Any, name: str, to: Any, at: int = 1) -> bytes:
    return updated(at, of, diff({"i": {name: to}}))


@MEMORIES
def test_one_change_a_document(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 3, "a": 1}),
        add(1, "x", 1, at=2),
        updated(3, 3, diff({"u": {"a": 2}})),
        updated(4, 2, {"_id": 2, "whole": True}),
        add(1, "y", 2, at=5),
        deleted(6, 4),
        inserted(7, {"_id": 5}),
        deleted(8, 5),
        deleted(9, 6),
        inserted(10, {"_id": 6, "again": 1}),
    ]
    with collapsed(tmp_path, log, collection(), memory=memory) as found:
        changes = list(found.changes(A))
        assert [(change.id, change.kind) for change in changes] == [
            (identity(1), PATCH), (identity(2), SET), (identity(3), SET),
            (identity(4), DELETE), (identity(5), DELETE), (identity(6), SET),
        ]  # fmt: skip
        assert changes[0].documents == (doc(diff({"i": {"x": 1, "y": 2}})),)
        assert changes[2].documents == (doc(_id=3, a=2),)
        assert [change.key for change in changes] == sorted(change.key for change in changes)
        for change in changes:
            assert found.change(A, change.id) == change
        assert found.change(A, identity(77)) is None
        assert [change.id for change in found.changes(A, identity(3))] == [identity(n) for n in (4, 5, 6)]
        base = [doc(_id=n, old=n) for n in (0, 1, 2, 4, 9)]
        assert documents(found, base) == [
            doc(_id=0, old=0), doc(_id=1, old=1, x=1, y=2), doc(_id=2, whole=True), doc(_id=3, a=2),
            doc(_id=6, again=1), doc(_id=9, old=9),
        ]  # fmt: skip


@MEMORIES
def test_values_that_are_equal_are_one_document(tmp_path: Path, memory: int) -> None:
    log = [
        deleted(1, 1.0),
        inserted(2, {"_id": long(1), "new": True}),
        updated(3, 1, diff({"u": {"new": False}})),
    ]
    with collapsed(tmp_path, log, collection(), memory=memory) as found:
        assert documents(found, [doc(_id=1), doc(_id="1")]) == [doc(_id=long(1), new=False), doc(_id="1")]


def test_until_before_and_after(tmp_path: Path) -> None:
    log = [inserted(at, {"_id": at}) for at in range(1, 6)]

    def ids(**bounds: Ts) -> list[int]:
        with collapsed(tmp_path, log, collection(), **bounds) as found:
            return [raw.int_of(raw.INT32, one[9:13]) for one in documents(found)]

    assert ids(until=Ts(1000, 3)) == [1, 2, 3]
    assert ids(before=Ts(1000, 3)) == [1, 2]
    assert ids(after=Ts(1000, 3)) == [4, 5]
    assert ids(until=Ts(999, 9)) == []
    assert ids(until=Ts(2000, 0), before=Ts(1000, 2)) == [1]


def test_nothing_is_read_beyond_the_end(tmp_path: Path) -> None:
    log = iter([inserted(1, {"_id": 1}), inserted(2, {"_id": 2}), b"broken"])
    with collapsed(tmp_path, log, collection(), until=Ts(1000, 1)) as found:
        assert found.last == Ts(1000, 1)
        assert found.position == Position(Ts(1000, 1), 1)
        assert found.entries == 1
    with collapsed(tmp_path, [], collection()) as found:
        assert (found.last, found.position, found.entries, found.open_since) == (None, None, 0, None)


def test_entries_out_of_order(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"1000:1 on db\.c comes after one of 1000:2"):
        collapsed(tmp_path, [inserted(2, {"_id": 1}), inserted(1, {"_id": 2})], collection())


def test_several_entries_of_one_moment_belong_together(tmp_path: Path) -> None:
    log = [inserted(1, {"_id": 1}), inserted(1, {"_id": 2}), inserted(2, {"_id": 3})]
    with collapsed(tmp_path, log, collection(), until=Ts(1000, 1)) as found:
        assert documents(found) == [doc(_id=1), doc(_id=2)]


def chained(at: int, of: int, *, previous: int = 0, **more: Any) -> bytes:
    link = {"ts": Ts(1000 if previous else 0, previous), "t": long(1)}
    fields = {"applyOps": [inner("i", {"_id": of})]} | more
    return command(at, fields, db="admin", ui=None, lsid={"id": 1}, txnNumber=long(1), prevOpTime=link)


def test_a_transaction_is_whole_or_absent(tmp_path: Path) -> None:
    log = [chained(1, 1, partialTxn=True), inserted(2, {"_id": 9}), chained(3, 2, previous=1)]
    with collapsed(tmp_path, log, collection(), until=Ts(1000, 2)) as found:
        assert documents(found) == [doc(_id=9)]
        assert found.open_since == Ts(1000, 1)
    with collapsed(tmp_path, log, collection()) as found:
        assert documents(found) == [doc(_id=1), doc(_id=2), doc(_id=9)]
        assert found.open_since is None
    with collapsed(tmp_path, log, collection(), after=Ts(1000, 2)) as found:
        assert documents(found, [doc(_id=9)]) == [doc(_id=1), doc(_id=2), doc(_id=9)]
    with collapsed(tmp_path, log, collection(), after=Ts(1000, 3)) as found:
        assert not found.touched(A)


def test_collections_made_in_a_transaction(tmp_path: Path) -> None:
    operations = [inner("c", {"create": "n"}, ns="db.$cmd", ui=B), inner("i", {"_id": 1}, ns="db.n", ui=B)]
    with collapsed(tmp_path, [command(1, {"applyOps": operations}, ui=None)]) as found:
        assert [info.namespace for info in found.catalog.collections()] == ["db.n"]
        assert documents(found, key=B) == [doc(_id=1)]


@MEMORIES
def test_a_collection_that_is_dropped_and_one_that_takes_its_name(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 1}),
        command(2, {"drop": "c"}),
        command(3, {"create": "c"}, ui=B),
        inserted(4, {"_id": 2}, ui=B),
    ]
    with collapsed(tmp_path, log, collection(), memory=memory) as found:
        assert found.dropped(A)
        assert found.discards(A)
        assert list(found.changes(A)) == documents(found, [doc(_id=0)]) == []
        assert not found.dropped(B)
        assert found.discards(B)
        assert documents(found, [doc(_id=0)], B) == [doc(_id=2)]


@MEMORIES
def test_the_same_without_uuids(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 1}, ui=None),
        updated(1, 0, diff({"i": {"x": 1}}), ui=None),
        command(2, {"drop": "c"}, ui=None),
        command(3, {"create": "c"}, ui=None),
        inserted(4, {"_id": 2}, ui=None),
    ]
    info = CollectionInfo("db", "c")
    with collapsed(tmp_path, log[:2], info, memory=memory) as found:
        key = found.catalog.key_of(info)
        assert key is not None
        assert documents(found, [doc(_id=0)], key) == [doc(_id=0, x=1), doc(_id=1)]
    with collapsed(tmp_path, log, info, memory=memory) as found:
        key = found.catalog.find("db", "c")
        assert key is not None
        assert documents(found, [doc(_id=0)], key) == [doc(_id=2)]


@MEMORIES
def test_a_collection_is_followed_through_renames(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 1}),
        command(2, {"renameCollection": "db.c", "to": "db.d"}),
        inserted(3, {"_id": 2}, ns="db.d"),
        command(4, {"create": "c"}, ui=B),
        inserted(5, {"_id": 3}, ui=B),
    ]
    with collapsed(tmp_path, log, collection(), memory=memory) as found:
        assert documents(found, [doc(_id=0)]) == [doc(_id=0), doc(_id=1), doc(_id=2)]
        assert documents(found, key=B) == [doc(_id=3)]


def capped(**options: Any) -> CollectionInfo:
    return collection("c", A, capped=True, **({"size": 1 << 20} | options))


@MEMORIES
def test_capped_collections_are_in_order_of_insertion(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 9}),
        inserted(2, {"_id": 5}),
        updated(3, 7, diff({"i": {"x": 1}})),
        deleted(4, 8),
        inserted(5, {"_id": 8, "again": 1}),
        deleted(6, 6),
        updated(7, 9, diff({"i": {"y": 1}})),
        inserted(8, {"_id": 1}),
    ]
    base = [doc(_id=8), doc(_id=7), doc(_id=6), doc(_id=3)]
    with collapsed(tmp_path, log, capped(), memory=memory) as found:
        assert found.natural(A)
        assert documents(found, base) == [
            doc(_id=7, x=1), doc(_id=3), doc(_id=9, y=1), doc(_id=5), doc(_id=8, again=1), doc(_id=1)
        ]  # fmt: skip


@MEMORIES
def test_capped_collections_are_cut_at_the_front(tmp_path: Path, memory: int) -> None:
    log = [inserted(at, {"_id": at, "x": "y" * 100}) for at in range(10, 15)]
    base = [doc(_id=at, x="y" * 100) for at in range(5)]

    def ids(**options: Any) -> list[int]:
        with collapsed(tmp_path, log, capped(**options), memory=memory) as found:
            return [raw.int_of(raw.INT32, one[9:13]) for one in documents(found, base)]

    assert ids(max=3) == [12, 13, 14]
    assert ids(max=long(7)) == [3, 4, 10, 11, 12, 13, 14]
    assert ids(max=0, size=1 << 20) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    size = len(base[0])
    assert len(ids(size=float(4 * size))) == 512 // size
    assert ids(size=1.0) == [13, 14]
    assert ids(size=256.0, max=1) == [14]


def test_an_update_of_what_a_capped_collection_has_lost_is_none(tmp_path: Path) -> None:
    with collapsed(tmp_path, [add(1, "x", 1)], capped()) as found:
        assert documents(found) == []


@MEMORIES
def test_documents_without_an_id(tmp_path: Path, memory: int) -> None:
    log = [inserted(1, {"a": 1}), inserted(2, {"a": 1})]
    with collapsed(tmp_path, log, capped(), memory=memory) as found:
        assert documents(found, [doc(b=1), doc(b=1)]) == [doc(b=1), doc(b=1), doc(a=1), doc(a=1)]
    with pytest.raises(SourceError, match=r"1000:1 on db\.c inserts a document without _id"):
        collapsed(tmp_path, log, collection())


@MEMORIES
def test_a_capped_collection_is_emptied(tmp_path: Path, memory: int) -> None:
    log = [inserted(1, {"_id": 1}), command(2, {"emptycapped": "c"}), inserted(3, {"_id": 2})]
    with collapsed(tmp_path, log, capped(), memory=memory) as found:
        assert not found.dropped(A)
        assert found.discards(A)
        assert documents(found, [doc(_id=0)]) == [doc(_id=2)]


@MEMORIES
def test_a_base_that_is_ahead(tmp_path: Path, memory: int) -> None:
    log = [
        inserted(1, {"_id": 1, "v": 1}),
        updated(2, 2, diff({"u": {"v": 1}})),
        deleted(3, 2),
        deleted(4, 3),
        updated(5, 3, diff({"u": {"v": 5}})),
        inserted(6, {"_id": 3, "v": 6}),
        updated(7, 1, diff({"u": {"v": 7}})),
    ]
    with collapsed(tmp_path, log, collection(), fuzzy_until=Ts(1000, 6), memory=memory) as found:
        assert documents(found, [doc(_id=1, v=7, later=1), doc(_id=3, v=6)]) == [
            doc(_id=1, v=7),
            doc(_id=3, v=6),
        ]
        assert documents(found) == [doc(_id=1, v=7), doc(_id=3, v=6)]


@MEMORIES
def test_an_update_of_nothing_names_the_document(tmp_path: Path, memory: int) -> None:
    log = [add(1, "x", 1, at=1), add(1, "y", 1, at=2)]
    with collapsed(tmp_path, log, collection(), fuzzy_until=Ts(1000, 2), memory=memory) as found:
        assert documents(found) == []
    for fuzzy in (Ts(1000, 1), None):
        with collapsed(tmp_path, log, collection(), fuzzy_until=fuzzy, memory=memory) as found:
            with pytest.raises(SourceError, match=r"the document of db.c with the _id 1 \(last at 1000:2\)"):
                documents(found)
            assert documents(found, [doc(_id=1)]) == [doc(_id=1, x=1, y=1)]


@MEMORIES
def test_an_update_of_what_was_deleted(tmp_path: Path, memory: int) -> None:
    log = [deleted(1, "k"), updated(2, "k", diff({"u": {"x": 1}}))]

    def read(**more: Any) -> list[bytes]:
        with collapsed(tmp_path, log, collection(), memory=memory, **more) as found:
            return documents(found, [doc(_id="k")])

    assert read(fuzzy_until=Ts(1000, 2)) == []
    with pytest.raises(SourceError, match='with the _id "k"'):
        read(fuzzy_until=Ts(1000, 1))


def test_a_time_at_which_a_fuzzy_base_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="was read until 1000:5 and does not tell what was at 1000:4"):
        collapsed(tmp_path, [], collection(), fuzzy_until=Ts(1000, 5), until=Ts(1000, 4))


def test_definitions_that_a_base_has_already(tmp_path: Path) -> None:
    index = {"v": 2, "key": {"a": 1}, "name": "a_1"}
    log = [
        command(1, {"create": "c", "validationLevel": "off"}),
        command(2, {"createIndexes": "c", **index}),
        command(3, {"collMod": "c", "validationLevel": "strict"}),
        inserted(4, {"_id": 1}, ui=B),
        command(5, {"drop": "c"}, ui=B),
        command(6, {"renameCollection": "db.c", "to": "db.d"}),
        command(7, {"dropIndexes": "d", "index": "a_1"}),
    ]
    ahead = collection("d", A, validationLevel="strict")
    for start in range(len(log)):
        with collapsed(tmp_path, log[start:], ahead, fuzzy_until=Ts(1000, 7)) as found:
            assert found.catalog.collections() == (ahead,)


def test_only_what_is_of_interest(tmp_path: Path) -> None:
    log = [inserted(at, {"_id": at % 5}, ui=A if at % 2 else B) for at in range(1, 20)]
    log.append(command(20, {"drop": "x"}, ui=B))

    def keep(key: bytes, of: bytes) -> bool:
        return key == A and of == identity(3)

    with collapsed(tmp_path, log, collection(), collection("x", B), keep=keep) as found:
        assert documents(found) == [doc(_id=3)]
        assert [info.name for info in found.catalog.collections()] == ["c"]


def test_collections_outside_of_the_base(tmp_path: Path) -> None:
    log = [
        updated(1, 5, diff({"u": {"x": 1}}), ns="other.c", ui=B),
        inserted(2, {"_id": 1}, ns="config.transactions", ui=bytes(16)),
        inserted(3, {"_id": 1}),
    ]
    with collapsed(tmp_path, log, collection(), covers=lambda db, _: db == "db") as found:
        assert [info.namespace for info in found.catalog.collections()] == ["db.c"]
        assert documents(found) == [doc(_id=1)]


def test_operations_of_migrations_are_kept(tmp_path: Path) -> None:
    log = [inserted(1, {"_id": 1}, fromMigrate=True), deleted(2, 2, fromMigrate=True)]
    with collapsed(tmp_path, log, collection()) as found:
        assert documents(found, [doc(_id=2)]) == [doc(_id=1)]


def test_entries_that_change_nothing(tmp_path: Path) -> None:
    log = [entry(1, kind, "", {"msg": "x"}) for kind in ("n", "ci", "cu", "cd", "km")]
    with collapsed(tmp_path, log, collection()) as found:
        assert not found.touched(A)
        assert found.entries == 5
        assert documents(found, [doc(_id=1)]) == [doc(_id=1)]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            [updated(1, 1, diff({"b": {}}))],
            "the log entry at 1000:1 on db.c: an update has the operator 'b' (a binary",
        ),
        ([updated(1, 1, {"$v": 1, "$inc": {"a": 1}})], "1000:1 on db.c: an update has the operator '$inc'"),
        ([updated(1, 1, {"$v": 4, "x": {}})], "1000:1 on db.c: an update has version 4"),
        (
            [inserted(1, {"_id": 1}), updated(2, 1, diff({"zz": {}}))],
            "1000:2 on db.c: an update has the operator 'zz'",
        ),
        ([entry(1, "u", "db.c", diff({"u": {"a": 1}}), ui=A, o2={"x": 1})], "does not say which document"),
        ([entry(1, "d", "db.c", {}, ui=A)], "does not say which document"),
        ([entry(1, "i", "db", {"_id": 1})], "1000:1 on db does not say which collection"),
        ([inserted(1, doc(_id=1)[:-1] + b"\1")], "does not end in NUL"),
        ([command(1, {"frob": 1})], "1000:1 on db.$cmd is the command 'frob'"),
        (
            [command(1, {"applyOps": [inner("c", {"frob": 1}, ns="x.$cmd")]})],
            "1000:1 on x.$cmd is the command 'frob'",
        ),
        ([command(1, {"create": "c"}, ui=B)], "two collections are called db.c"),
    ],
)
def test_what_is_refused_by_name(tmp_path: Path, log: list[bytes], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        collapsed(tmp_path, log, collection())
    assert words in caught.value.message
    assert not os.listdir(tmp_path)


def test_a_base_that_does_not_fit_an_update(tmp_path: Path) -> None:
    big = "x" * (9 << 20)
    words = r"the document of db\.c with the _id 1, last changed at 1000:1: an update"
    with (
        collapsed(tmp_path, [add(1, "b", big)], collection()) as found,
        pytest.raises(SourceError, match=words),
    ):
        documents(found, [doc(_id=1, a=big)])
    log = [inserted(1, {"_id": 1, "a": big}), add(1, "b", big, at=2)]
    words = "the document with the _id 1, last changed at 1000:2"
    with collapsed(tmp_path, log, collection()) as found, pytest.raises(SourceError, match=words):
        list(found.changes(A))


def test_memory_is_bounded(tmp_path: Path) -> None:
    ids = (Typed(raw.OBJECT_ID, at.to_bytes(12, "big")) for at in range(1, 6001))
    log = (inserted(at, {"_id": of, "x": "y" * 1000}) for at, of in enumerate(ids, 1))
    tracemalloc.start()
    try:
        with collapsed(tmp_path, log, collection(), collection("x", B), memory=300_000) as found:
            assert sum(1 for _ in found.changes(A)) == 6000
            assert tracemalloc.get_traced_memory()[1] < 3_000_000
            assert found.change(A, b"\x07" + (777).to_bytes(12, "big")) is not None
            assert not os.listdir(tmp_path)
    finally:
        tracemalloc.stop()


def test_a_result_can_be_read_again_and_side_by_side(tmp_path: Path) -> None:
    log = [inserted(at, {"_id": at % 7, "v": at}) for at in range(1, 40)]
    with collapsed(tmp_path, log, collection(), memory=2000) as found:
        one, other = found.changes(A), found.changes(A)
        assert list(zip(one, other, strict=True)) == [(change, change) for change in found.changes(A)]


@pytest.mark.parametrize(
    "close", [lambda found: found.close(), lambda found: found.__exit__(None, None, None)]
)
def test_closing_twice(tmp_path: Path, close: Callable[[Any], None]) -> None:
    found = collapsed(tmp_path, [inserted(1, {"_id": 1})], collection(), memory=1)
    close(found)
    close(found)


def test_the_catalog_that_it_begins_with_stays(tmp_path: Path) -> None:
    catalog = Catalog([collection()])
    with collapsed(tmp_path, [command(1, {"drop": "c"})], catalog=catalog) as found:
        assert found.catalog.collections() == ()
    assert catalog.collections() == (collection(),)
