"""Operations put together: at once, by chain, by prepare and commit; never in part."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog import transactions
from dedupstore.sources.oplog.entry import Entry, parse_entry
from dedupstore.sources.oplog.position import Ts
from dedupstore.sources.oplog.transactions import Assembler
from tests.unit.oplog.log_entries import command, deleted, doc, entry, inner, inserted, long

ONE, TWO = {"id": 1}, {"id": 2}


def part(at: int, *ids: int, session: Any = ONE, number: int = 1, previous: int = 0, **more: Any) -> bytes:
    """An entry of a transaction that inserts documents; ``previous``: the increment of the entry before."""
    operations = [inner("i", {"_id": one}) for one in ids]
    link: dict[str, Any] = {"ts": Ts(1000 if previous else 0, previous), "t": long(1)}
    chain = {"prevOpTime": link} | ({"lsid": session, "txnNumber": long(number)} if session else {})
    return command(at, {"applyOps": operations} | more, db="admin", ui=None, **chain)


def decision(at: int, name: str, *, session: Any = ONE, number: int = 1, previous: int = 1) -> bytes:
    link = {"ts": Ts(1000, previous), "t": long(1)}
    return command(at, {name: 1}, db="admin", ui=None, lsid=session, txnNumber=long(number), prevOpTime=link)


def fed(assembler: Assembler, *entries: bytes) -> list[tuple[int, Any]]:
    """What takes effect: the increment of the time at which it does, and ``_id`` or the command's name."""
    return [
        (found.ts.increment, told(found)) for one in entries for found in assembler.feed(parse_entry(one))
    ]


def told(found: Entry) -> Any:
    if found.op == "c":
        return next(raw.elements(found.o)).name.decode()
    kind, start, end = next((kind, start, end) for _, kind, start, end in raw.elements(found.o))
    return raw.int_of(kind, found.o[start:end])


@pytest.fixture
def assembler(tmp_path: Path) -> Iterable[Assembler]:
    one = Assembler(tmp_path)
    yield one
    one.close()


def test_what_stands_by_itself(assembler: Assembler) -> None:
    entries = [inserted(1, {"_id": 5}), entry(2, "n", "", {}), deleted(3, 5), command(4, {"drop": "c"})]
    assert fed(assembler, *entries) == [(1, 5), (3, 5), (4, "drop")]
    assert assembler.open_since is None


def test_a_list_of_operations_counts_at_once(assembler: Assembler) -> None:
    nested = [
        inner("i", {"_id": 1}),
        inner("c", {"applyOps": [inner("d", {"_id": 2}), {"op": "n", "ns": ""}]}, ns="a.$cmd"),
    ]
    assert fed(assembler, command(4, {"applyOps": nested}, ui=None)) == [(4, 1), (4, 2)]
    retryable = {"lsid": ONE, "txnNumber": long(1)}
    many = command(
        5, {"applyOps": [inner("i", {"_id": 3})]}, multiOpType=1, prevOpTime={"ts": Ts(1000, 4)}, **retryable
    )
    assert fed(assembler, many) == [(5, 3)]
    assert fed(assembler, part(6, 7, 8)) == [(6, 7), (6, 8)]
    assert assembler.open_since is None


def test_a_chain_counts_with_its_last_entry(assembler: Assembler) -> None:
    assert fed(assembler, part(1, 10, 11, partialTxn=True)) == []
    assert assembler.open_since == Ts(1000, 1)
    assert fed(assembler, inserted(2, {"_id": 0}), part(3, 12, previous=1, partialTxn=True)) == [(2, 0)]
    assert assembler.open_since == Ts(1000, 1)
    assert fed(assembler, part(4, 13, previous=3, count=4)) == [(4, 10), (4, 11), (4, 12), (4, 13)]
    assert assembler.open_since is None


def test_chains_side_by_side(assembler: Assembler) -> None:
    entries = [
        part(1, 1, partialTxn=True),
        part(2, 2, partialTxn=True, session=TWO),
        part(3, 3, previous=1),
        part(4, 4, previous=2, session=TWO),
    ]
    assert fed(assembler, *entries) == [(3, 1), (3, 3), (4, 2), (4, 4)]


def test_a_prepared_transaction_waits_for_its_commit(assembler: Assembler) -> None:
    assert fed(assembler, part(1, 1, partialTxn=True), part(2, 2, previous=1, prepare=True)) == []
    assert fed(assembler, inserted(3, {"_id": 0})) == [(3, 0)]
    assert assembler.open_since == Ts(1000, 1)
    assert fed(assembler, decision(4, "commitTransaction", previous=2)) == [(4, 1), (4, 2)]
    assert assembler.open_since is None


def test_an_empty_prepared_transaction(assembler: Assembler) -> None:
    assert fed(assembler, part(1, prepare=True), decision(2, "commitTransaction")) == []


def test_an_aborted_transaction_never_was(assembler: Assembler) -> None:
    assert fed(assembler, part(1, 1, prepare=True), decision(2, "abortTransaction")) == []
    assert assembler.open_since is None
    assert fed(assembler, decision(3, "abortTransaction", session=TWO)) == []


def test_a_later_transaction_of_a_session_ends_an_earlier_one(assembler: Assembler) -> None:
    assert fed(assembler, part(1, 1, partialTxn=True), part(2, 2, number=2)) == [(2, 2)]
    assert assembler.open_since is None
    assert fed(assembler, part(3, 3, partialTxn=True, number=3), part(4, 4, partialTxn=True, number=3)) == []
    assert assembler.open_since == Ts(1000, 4)
    assert fed(assembler, part(5, 5, number=3, previous=4)) == [(5, 4), (5, 5)]


def test_chains_of_no_session(assembler: Assembler) -> None:
    entries = [part(1, 1, session=None, partialTxn=True), part(2, 2, session=None, partialTxn=True)]
    assert fed(assembler, *entries, part(3, 3, session=None, previous=1, partialTxn=True)) == []
    assert fed(assembler, part(4, 4, session=None, previous=2)) == [(4, 2), (4, 4)]
    assert assembler.open_since == Ts(1000, 1)
    assert fed(assembler, part(5, 5, session=None, previous=3)) == [(5, 1), (5, 3), (5, 5)]


@pytest.mark.parametrize(
    "last",
    [
        part(9, 1, previous=5),
        part(9, 1, previous=5, session=None),
        decision(9, "commitTransaction", previous=5),
        decision(9, "commitTransaction", number=7),
    ],
)
def test_a_transaction_that_began_before_the_log(assembler: Assembler, last: bytes) -> None:
    with pytest.raises(
        SourceError, match=r"1000:9 on admin.\$cmd commits a transaction of which an earlier entry"
    ):
        fed(assembler, last)


def test_where_such_a_transaction_began(assembler: Assembler) -> None:
    assert fed(assembler, part(7, 1, previous=5, prepare=True)) == []
    assert assembler.open_since == Ts(1000, 5)
    with pytest.raises(SourceError, match="an earlier entry 1000:5 is missing"):
        fed(assembler, decision(9, "commitTransaction", previous=7))


def test_it_is_no_error_if_it_never_commits(assembler: Assembler) -> None:
    assert (
        fed(assembler, part(7, 1, previous=5, prepare=True), decision(8, "abortTransaction", previous=7))
        == []
    )


def test_a_link_that_is_missing(assembler: Assembler) -> None:
    fed(assembler, part(1, 1, partialTxn=True))
    with pytest.raises(SourceError, match="an earlier entry 1000:2 is missing"):
        fed(assembler, part(3, 1, previous=2))


def test_operations_that_are_missing(assembler: Assembler) -> None:
    fed(assembler, part(1, 1, partialTxn=True))
    with pytest.raises(SourceError, match="commits 3 operations of which 2 are there"):
        fed(assembler, part(2, 1, previous=1, count=3))


def test_what_a_base_has_has_no_effect(assembler: Assembler) -> None:
    def before(one: bytes) -> list[Entry]:
        return list(assembler.feed(parse_entry(one), effective=False))

    entries = [
        inserted(1, {"_id": 1}),
        command(2, {"drop": "c"}),
        part(3, 1),
        part(4, 1, partialTxn=True, session=TWO),
    ]
    entries += [part(5, 9, previous=2), part(6, 1, prepare=True, number=2)]
    assert [before(one) for one in entries] == [[]] * 6
    assert before(decision(7, "commitTransaction", number=2, previous=6)) == []
    assert fed(assembler, part(8, 2, previous=4, session=TWO)) == [(8, 1), (8, 2)]


def test_large_transactions_lie_in_files(assembler: Assembler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MEMORY", 100)
    entries = [part(at, *range(at, at + 20), previous=at - 1, partialTxn=True) for at in range(1, 30)]
    assert fed(assembler, *entries) == []
    found = fed(assembler, part(30, 5, previous=29))
    assert found == [(30, number) for at in range(1, 30) for number in range(at, at + 20)] + [(30, 5)]
    assert fed(assembler, part(31, 1, partialTxn=True)) == []


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"applyOps": 5}, "an applyOps without operations"),
        ({"applyOps": [5]}, "has a int among its operations"),
        ({"applyOps": [{"op": "xi", "ns": "db.c", "o": {}}]}, "on db.c is of kind 'xi'"),
    ],
)
def test_what_is_refused(assembler: Assembler, broken: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        fed(assembler, command(1, broken))
    assert words in caught.value.message


def test_lists_in_lists_without_end(assembler: Assembler) -> None:
    operations = doc(applyOps=[])
    for _ in range(20):
        operations = doc(applyOps=[inner("c", operations, ns="a.$cmd")])
    with pytest.raises(SourceError, match="nests applyOps too deep"):
        fed(assembler, command(1, operations))


def test_a_way_of_grouping_that_is_not_known(assembler: Assembler) -> None:
    with pytest.raises(SourceError, match="multiOpType 2"):
        fed(assembler, command(1, {"applyOps": []}, multiOpType=2))
