"""One entry taken apart: every version's order of fields, and everything refused that is not known."""

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.entry import command_of, parse_entry, parse_inner
from dedupstore.sources.oplog.position import ZERO, Ts
from tests.unit.oplog.log_entries import A, Typed, command, doc, entry, inner, inserted, long, updated, uuid


def test_a_document_operation() -> None:
    found = parse_entry(updated(3, 1, {"_id": 1, "a": 2}))
    assert (found.ts, found.term, found.wall) == (Ts(1000, 3), 1, 5000)
    assert (found.op, found.ns, found.ui) == ("u", "db.c", A)
    assert (found.o, found.o2) == (doc(_id=1, a=2), doc(_id=1))
    assert (found.session, found.number, found.previous, found.multi) == (b"", -1, None, 0)


def test_any_order_and_fields_that_say_nothing() -> None:
    found = parse_entry(
        doc(
            {"h": long(1), "v": 2, "fromMigrate": True, "stmtId": [0, 1], "rid": b"\5\0\0\0\0", "wall": None},
            o={"_id": 1}, ui=uuid(A), ns="db.a.b", ts=Ts(1, 1), op="i", needsRetryImage="preImage",
        )
    )  # fmt: skip
    assert (found.op, found.ns, found.db, found.ui, found.o) == ("i", "db.a.b", "db", A, doc(_id=1))
    assert (found.term, found.wall) == (-1, 0)


def test_what_links_entries() -> None:
    session = {"id": uuid(A), "uid": "x"}
    found = parse_entry(
        inserted(
            3,
            {"_id": 1},
            lsid=session,
            txnNumber=long(9),
            prevOpTime={"ts": Ts(0, 0), "t": long(-1)},
            multiOpType=1,
        )
    )
    assert (found.session, found.number, found.previous, found.multi) == (doc(session), 9, ZERO, 1)
    old = parse_entry(inserted(3, {"_id": 1}, lsid=session, prevOpTime=Ts(5, 6)))
    assert old.previous == Ts(5, 6)


@pytest.mark.parametrize("kind", ["n", "ci", "cu", "cd", "km"])
def test_kinds_that_change_nothing(kind: str) -> None:
    assert parse_entry(entry(1, kind, "", {"msg": "x"})).op == "n"
    assert parse_entry(doc(ts=Ts(1, 1), op=kind, ns="")).op == "n"


def test_an_operation_inside_has_the_time_around_it() -> None:
    around = parse_entry(command(7, {"applyOps": []}))
    found = parse_inner(doc(inner("d", {"_id": 5})), around)
    assert (found.ts, found.term, found.wall, found.op, found.o) == (Ts(1000, 7), 1, 5000, "d", doc(_id=5))


def test_the_name_of_a_command() -> None:
    assert command_of(parse_entry(command(1, {"drop": "c"}))) == "drop"
    with pytest.raises(SourceError, match=r"1000:1 on db.\$cmd is a command without a name"):
        command_of(parse_entry(command(1, {})))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (entry(1, "xi", "db.c", {"_id": 1}), "1000:1 on db.c is of kind 'xi'"),
        (entry(1, "", "db.c", {"_id": 1}), "is of kind ''"),
        (doc(ts=Ts(1, 1), ns="db.c", o={"_id": 1}), "is of kind ''"),
        (doc(ts=Ts(1, 1), ns="db.c", op="i"), "1:1 on db.c has no operation in it"),
        (doc(ts=Ts(1, 1), ns="db.c", op="i", o="x"), "has a string for its operation"),
        (doc(ts=Ts(1, 1), ns="db.c", op="i", v=3, o={"_id": 1}), "has a format that this version"),
        (doc(ts=Ts(1, 1), ns="db.c", op="i", ui="x", o={"_id": 1}), "what is no UUID"),
        (doc(ts=Ts(1, 1), ns="db.c", op="i", ui=Typed(raw.BINARY, raw.binary(A)), o={}), "what is no UUID"),
        (doc(ns="db.c", op="i", o={"_id": 1}), "without a timestamp"),
        (doc(ts=1, ns="db.c", op="i", o={"_id": 1}), "without a timestamp"),
        (inserted(1, {"_id": 1})[:-1], "impossible length"),
        (inserted(1, {"_id": 1}) + b"\0", "bytes behind an entry"),
        (b"", "ends where a document should begin"),
    ],
)  # fmt: skip
def test_what_is_refused(broken: bytes, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_entry(broken)
    assert words in caught.value.message


def test_names_that_are_no_text_do_not_break_the_message() -> None:
    broken = inserted(1, {"_id": 1}).replace(b"db.c", b"d\xff\n.")
    with pytest.raises(SourceError) as caught:
        parse_entry(broken.replace(b"\x02op\0\x02\0\0\0i", b"\x02op\0\x02\0\0\0?"))
    assert "\n" not in caught.value.message
    caught.value.message.encode()
