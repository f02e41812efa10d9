"""The histories are what they promise, and the reference applier makes of them what their authors meant."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.fuzzy import Base, Reader, exact
from dedupstore.testing.oplog.history import History, HistoryOptions
from dedupstore.testing.oplog.identity import identity
from dedupstore.testing.oplog.model import State
from dedupstore.testing.oplog.patch import patched
from dedupstore.testing.oplog.reference import Reference
from dedupstore.testing.oplog.updates import (
    Edit,
    difference,
    difference_entry,
    in_server_order,
    modifier_entry,
    modify,
)
from tests.support.histories import difference as contrast
from tests.support.oplogcases import Case, cases

VERSIONS = [(4, 4), (5, 0), (6, 0), (7, 0), (8, 0)]
seeds = st.integers(0, 1 << 32)


def applied(history: History, base: Base, last: int) -> State:
    """A base after the entries up to ``last``, by the reference."""
    reference = Reference(base.state(), tolerant=base.end > base.start)
    for index in range(base.replay, last + 1):
        if index > base.end:
            reference.tolerant = False
        reference.apply(history.entries[index], effective=index > base.start)
    return reference.state


def commands(history: History) -> Counter[str]:
    """How many entries of each kind; a command by its name, an ``applyOps`` with what is special about it."""
    found: Counter[str] = Counter()
    for entry in history.entries:
        op, o = bson.text(bson.find(entry, b"op")), bson.find(entry, b"o")
        assert o is not None
        names = [element.name.decode() for element in bson.elements(o.raw)]
        found[op if op != "c" else names[0]] += 1
        for name in ("partialTxn", "prepare", "count"):
            found[name] += op == "c" and name in names
        for name in (b"multiOpType", b"fromMigrate", b"needsRetryImage", b"preImageOpTime", b"lsid"):
            found[name.decode()] += bson.find(entry, name) is not None
        if op == "u":
            version = bson.find(o.raw, b"$v")
            whole = "_id" in names or version is None
            found["replacement" if whole or version is None else f"$v:{version.raw[0]}"] += 1
    return found


def test_a_seed_gives_the_same_history_every_time() -> None:
    first, second = History(5, 300), History(5, 300)
    assert first.entries == second.entries
    assert first.state(100).described() == second.state(100).described()
    assert History(6, 300).entries != first.entries


def test_timestamps_rise_and_stand_in_the_entries() -> None:
    history = History(1, 300)
    assert all(earlier < later for earlier, later in zip(history.moments, history.moments[1:], strict=False))
    for moment, entry in zip(history.moments, history.entries, strict=True):
        assert bson.find(entry, b"ts") == bson.timestamp(*moment)
    assert history.index(history.moments[7]) == 7
    assert history.index(history.moments[7]._replace(seconds=0)) == -1


def test_a_long_history_has_entries_of_every_kind() -> None:
    kinds = commands(History(3, 2500, options=HistoryOptions(version=(8, 0), definitions=0.3)))
    wanted = (
        *("i", "u", "d", "n", "create", "drop", "dropDatabase", "renameCollection", "collMod", "emptycapped"),
        *("createIndexes", "startIndexBuild", "commitIndexBuild", "abortIndexBuild", "dropIndexes"),
        *("applyOps", "commitTransaction", "abortTransaction", "partialTxn", "prepare", "count", "lsid"),
        *("multiOpType", "fromMigrate", "needsRetryImage", "$v:2", "replacement"),
    )
    assert [kind for kind in wanted if not kinds[kind]] == []
    old = commands(History(3, 2000, options=HistoryOptions(version=(4, 4))))
    assert old["$v:1"] > 100
    assert old["preImageOpTime"] > 0
    assert (old["$v:2"], old["multiOpType"]) == (0, 0)


def test_documents_have_every_type_and_awkward_names() -> None:
    history = History(4, 1500)
    kinds: set[int] = set()
    names: set[bytes] = set()
    sizes: list[int] = []
    id_kinds: set[int] = set()

    def look(raw: bytes) -> None:
        for element in bson.elements(raw):
            kinds.add(element.type)
            names.add(element.name)
            if element.type in (bson.DOCUMENT, bson.ARRAY):
                look(element.raw)

    for entry in history.entries:
        document = bson.find(entry, b"o")
        if bson.text(bson.find(entry, b"op")) == "i" and document is not None:
            look(document.raw)
            sizes.append(len(document.raw))
            found = bson.find(document.raw, b"_id")
            assert found is not None
            id_kinds.add(found.type)
    assert kinds == {*range(1, 20), 127, 255}
    assert {b"", b"a.b", b"$v"} <= names
    assert min(sizes) < 100
    assert max(sizes) > 20_000
    assert len(id_kinds) >= 8


@pytest.mark.parametrize("version", VERSIONS)
def test_the_reference_gives_the_state_behind_every_entry(version: tuple[int, int]) -> None:
    history = History(7, 400, options=HistoryOptions(version=version, definitions=0.1, transactions=0.2))
    reference, state = Reference(State()), State()
    for index, entry in enumerate(history.entries):
        history.advance(state, index)
        reference.apply(entry)
        assert reference.state.metas == state.metas
        if index % 10 == 0 or index == len(history.entries) - 1:
            assert reference.state.documents == state.documents
            assert history.state(index).documents == state.documents


@settings(max_examples=25)
@given(seeds, st.sampled_from(VERSIONS[1:]), st.data())
def test_the_reference_completes_what_a_reader_saw_meanwhile(
    seed: int, version: tuple[int, int], data: st.DataObject
) -> None:
    options = HistoryOptions(version=version, definitions=0.1, documents=6, capped=0.3)
    history = History(seed, 250, options=options)
    last = len(history.entries) - 1
    start = data.draw(st.integers(0, last))
    end = data.draw(st.integers(start, last))
    base = exact(history, start) if start == end else Reader(history, seed).scan(start, end)
    for index in {end, data.draw(st.integers(end, last))}:
        found = applied(history, base, index).described()
        assert not contrast(found, history.state(index).described())


def test_a_reader_sees_documents_of_several_moments() -> None:
    history = History(2, 500)
    base = Reader(history, 2).scan(100, 300)
    seen = {document for _, documents in base.collections for document in documents}
    for index in (100, 200, 300):
        there = {d for held in history.state(index).documents.values() for d in held.values()}
        assert seen != there
    assert base.replay <= 101


@pytest.mark.parametrize("case", [case for case in cases() if not case.engine], ids=lambda case: case.name)
def test_the_reference_applies_entries_as_servers_write_them(case: Case) -> None:
    reference = Reference(case.base.state(), tolerant=case.fuzzy)
    if case.after is None:
        for entry in case.entries[:-1]:
            reference.apply(entry)
        with pytest.raises(AssertionError):
            reference.apply(case.entries[-1])
        return
    for entry in case.entries:
        reference.apply(entry)
    assert not contrast(reference.state.described(), case.after)


def test_edits_are_logged_as_a_server_logs_them() -> None:
    before = bson.document(
        {
            "_id": bson.int32(1),
            "a": bson.embedded({"x": bson.int32(1), "y": bson.int32(2)}),
            "list": bson.array([bson.int32(1), bson.int32(2)]),
            "gone": bson.NOTHING,
        }
    )
    one = bson.int32(7)
    edits = [
        Edit((b"new", b"in"), one),
        Edit((b"list", b"10"), one),
        Edit((b"list", b"1"), None),
        Edit((b"gone",), None),
        Edit((b"a", b"x"), one),
        Edit((b"a", b"z"), one),
        Edit((b"a", b"y"), bson.int32(2)),
    ]
    outcome = modify(before, in_server_order(edits))
    numbers = [bson.int32(1), *[bson.NOTHING] * 9, one]
    after = bson.document(
        {
            "_id": bson.int32(1),
            "a": bson.embedded({"x": one, "y": bson.int32(2), "z": one}),
            "list": bson.array(numbers),
            "new": bson.embedded({"in": one}),
        }
    )
    assert outcome.raw == after
    diff = bson.document(
        {
            "d": bson.embedded({"gone": bson.boolean(False)}),
            "i": bson.embedded({"new": bson.embedded({"in": one})}),
            "sa": bson.embedded({"u": bson.embedded({"x": one}), "i": bson.embedded({"z": one})}),
            "slist": bson.embedded({"a": bson.boolean(True), "u1": bson.NOTHING, "u10": one}),
        }
    )
    assert outcome.diff == diff
    sets = {"a.x": one, "a.z": one, "list.1": bson.NOTHING, "list.10": one, "new.in": one}
    modifiers = {"$v": bson.int32(1), "$set": bson.embedded(dict(sets))}
    modifiers["$unset"] = bson.embedded({"gone": bson.boolean(True)})
    assert modifier_entry(outcome.modifiers) == bson.document(dict(modifiers))
    assert patched(before, difference_entry(diff)) == patched(before, bson.document(dict(modifiers))) == after


def test_documents_are_compared_as_a_server_compares_them() -> None:
    def of(**fields: int) -> bytes:
        return bson.document({name: bson.int64(number) for name, number in fields.items()})

    def diff(**sections: Value) -> bytes:
        return bson.document(dict(sections))

    def part(**fields: int) -> Value:
        return Value(bson.DOCUMENT, of(**fields))

    false = bson.boolean(False)
    padding = {f"p{number}": number for number in range(9)}
    assert difference(of(a=1, b=2, **padding), of(a=1, b=3, **padding)) == diff(u=part(b=3))
    dropped = diff(d=bson.embedded({"a": false}))
    assert difference(of(a=1, b=2, **padding), of(b=2, **padding)) == dropped
    assert difference(of(a=1, b=2, **padding), of(b=2, **padding, a=1)) == diff(i=part(a=1))
    assert difference(of(a=1), of(a=2)) is None


def test_numbers_of_one_value_and_texts_of_one_spelling_are_one_identity() -> None:
    same = [
        [bson.int32(1), bson.int64(1), bson.double(1.0), bson.decimal(0, 100, -2)],
        [bson.int32(0), bson.double(-0.0), bson.decimal(1, 0, 3)],
        [bson.string("a"), bson.string("a", bson.SYMBOL)],
        [bson.embedded({"a": bson.int32(1)}), bson.embedded({"a": bson.double(1.0)})],
        [bson.double(float("nan")), Value(bson.DECIMAL, b"\0" * 15 + b"\x7c")],
    ]
    for group in same:
        assert len({identity(value) for value in group}) == 1
    assert identity(bson.int64(2**53 + 1)) != identity(bson.double(2.0**53))
    assert identity(bson.string("a", bson.CODE)) != identity(bson.string("a"))


def test_bson_is_taken_apart_and_put_together() -> None:
    values = Chance(9)
    for size in (0, 1, 300):
        parts = [Element(b"n%d" % number, *bson.binary(values.bytes(number))) for number in range(size)]
        assert bson.elements(bson.build(parts)) == parts
    with pytest.raises(AssertionError):
        bson.elements(bson.EMPTY + b"\0")
