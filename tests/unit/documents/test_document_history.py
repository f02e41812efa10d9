"""Every version of one document, through renames, drops, transactions, holes and snapshots without a log."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dedupstore.documents.history import Version, versions
from dedupstore.documents.timeline import Timeline
from dedupstore.model import SourceSpec
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from tests.support.repos import create
from tests.unit.documents.log_samples import cut, store
from tests.unit.documents.operations import (
    INFO,
    ORDERS,
    OTHER,
    USERS,
    command,
    deleted,
    inserted,
    key,
    marked,
    noop,
    operation,
    order,
    put_log,
    put_shop,
    renamed,
    span,
    ts,
)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path / "cache") as made:
        yield made


def told(repo: Repository, name: str = "orders", number: int = 1) -> list[tuple[str, int, bytes | None]]:
    """Operation, second, and what the document then was."""
    line = Timeline(repo, repo.snapshots())
    return [
        (one.op, one.time.second - 40, one.after) for one in versions(repo, line, "shop", name, key(number))
    ]


def test_each_operation_makes_a_version(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1), order(2)])], span(0))
    put_log(
        repo, [noop(0), marked(1, 1, 5), marked(2, 2, 9), deleted(3, 1), inserted(4, order(1, 7)), noop(5)]
    )
    assert told(repo) == [
        ("snapshot", 0, order(1)),
        ("update", 1, order(1, 5)),
        ("delete", 3, None),
        ("insert", 4, order(1, 7)),
    ]
    assert told(repo, number=3) == []


def test_a_version_says_what_was_before_and_when_to_the_millisecond(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_log(repo, [noop(0), marked(1, 1, 5), noop(2)])
    found = list(versions(repo, Timeline(repo, repo.snapshots()), "shop", "orders", key(1)))
    assert found[0].snapshot == repo.snapshots()[0][0]
    when = datetime.fromtimestamp(1001, UTC).replace(microsecond=5000)
    assert found[1] == Version(when, ts(1), "update", order(1), order(1, 5))


def test_documents_come_and_go_with_their_collection(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)]), (OTHER, [order(1, 8)])], span(0))
    put_log(
        repo,
        [noop(0), renamed(1, "orders", "old"), renamed(2, "users", "orders", USERS), marked(3, 1, 9, USERS),
         marked(4, 1, 2, ns="shop.old"), command(5, "drop", "orders", USERS), noop(6)],
    )  # fmt: skip
    assert told(repo) == [
        ("snapshot", 0, order(1)),
        ("renameCollection", 1, None),
        ("renameCollection", 2, order(1, 8)),
        ("update", 3, order(1, 9)),
        ("drop", 5, None),
    ]
    assert told(repo, "old") == [("renameCollection", 1, order(1)), ("update", 4, order(1, 2))]


def test_operations_of_a_transaction_are_marked(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    inner = [
        (b"op", raw.STRING, raw.string("d")),
        (b"ns", raw.STRING, raw.string("shop.orders")),
        (b"ui", raw.BINARY, raw.binary(ORDERS, 4)),
        (b"o", raw.OBJECT, raw.document([(b"_id", raw.INT32, raw.int32(1))])),
    ]
    o = raw.document([(b"applyOps", raw.ARRAY, raw.array([(raw.OBJECT, raw.document(inner))]))])
    put_log(repo, [noop(0), operation(1, "c", "admin.$cmd", None, o), noop(2)])
    found = list(versions(repo, Timeline(repo, repo.snapshots()), "shop", "orders", key(1)))
    assert [(one.op, one.transaction) for one in found] == [("snapshot", False), ("delete", True)]


def test_what_happened_in_a_hole_shows_in_the_next_snapshot(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_shop(repo, [(INFO, [order(1, 4)])], span(6))
    store(repo, cut([noop(0), marked(1, 1, 2), noop(2)], None))
    store(repo, cut([noop(5), noop(6), marked(7, 1, 5)], None))
    assert told(repo) == [
        ("snapshot", 0, order(1)),
        ("update", 1, order(1, 2)),
        ("snapshot", 6, order(1, 4)),
        ("update", 7, order(1, 5)),
    ]


def test_a_read_of_no_single_moment_shows_what_was_at_its_end(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1, 2)])], span(0, 3))
    put_log(repo, [noop(0), marked(1, 1, 1), marked(2, 1, 2), noop(3), marked(4, 1, 3)])
    assert told(repo) == [("snapshot", 3, order(1, 2)), ("update", 4, order(1, 3))]


def test_snapshots_alone_tell_of_changes_between_them(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_shop(repo, [(INFO, [order(1)])], span(2))
    put_shop(repo, [(INFO, [])], span(4))
    assert told(repo) == [("snapshot", 0, order(1)), ("snapshot", 4, None)]


def test_dumps_count_as_of_their_time(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    listed = repo.snapshots()
    number, snapshot = listed[0]
    dump = replace(
        snapshot,
        time=datetime.fromtimestamp(900, UTC),
        position=None,
        source=SourceSpec("archive", (b"/",)),
    )
    line = Timeline(repo, listed)
    found = list(versions(repo, line, "shop", "orders", key(1), others=[(number, dump)]))
    assert [(one.op, one.ts, one.after) for one in found] == [("snapshot", None, order(1))]


def test_another_form_of_the_same_number_is_the_same_document(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_log(repo, [noop(0), marked(1, 1, 5), noop(2)])
    line = Timeline(repo, repo.snapshots())
    found = list(versions(repo, line, "shop", "orders", b"\x01" + raw.double(1.0)))
    assert [one.after for one in found] == [order(1), order(1, 5)]
