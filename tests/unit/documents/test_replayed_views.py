"""A snapshot with the log: renames, drops, subsets, open transactions, the log in the snapshot itself."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.given import BytesStream, GivenFolder, Opened
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.moments import Moment
from dedupstore.documents.replay import narrowed, replay, replay_choice, view_at, view_of
from dedupstore.documents.slices import SliceFacts, slice_extra
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Timeline
from dedupstore.documents.timeline import span as span_of
from dedupstore.errors import NotFoundError, SourceError, UsageError
from dedupstore.model import Node, NodeKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW, metadata_json, prelude_json
from dedupstore.sources.bson.source import DumpSource
from dedupstore.sources.files.scan import FilesSource
from tests.support.repos import create, reopen, run
from tests.unit.documents.dump_samples import ServerSource
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
    timeline,
    ts,
)  # fmt: skip

NEW = b"n" * 16


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with create(MemoryStore(), tmp_path / "cache") as made:
        yield made


def at(repo: Repository, number: int) -> dict[str, list[bytes]]:
    with view_at(repo, timeline(repo), Moment.upto(ts(number))) as view:
        return {one.info.namespace: list(one.documents()) for one in view.collections()}


def test_a_renamed_collection_keeps_its_documents_and_its_changes(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1), order(2)])], span(0))
    put_log(
        repo, [noop(0), marked(1, 1, 5), renamed(2, "orders", "old"), marked(3, 2, 6, ns="shop.old"), noop(4)]
    )
    assert at(repo, 1) == {"shop.orders": [order(1, 5), order(2)]}
    assert at(repo, 2) == {"shop.old": [order(1, 5), order(2)]}
    assert at(repo, 4) == {"shop.old": [order(1, 5), order(2, 6)]}


def test_a_dropped_and_recreated_collection_begins_anew(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_log(repo, [noop(0), command(1, "drop", "orders", ORDERS), command(2, "create", "orders", NEW),
                   inserted(3, order(9), ui=NEW), noop(4)])  # fmt: skip
    assert at(repo, 1) == {}
    assert at(repo, 2) == {"shop.orders": []}
    assert at(repo, 4) == {"shop.orders": [order(9)]}


def test_an_update_of_what_the_base_lacks_is_refused(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(1)])], span(0))
    put_log(repo, [noop(0), marked(1, 7, 5), noop(2)])
    with pytest.raises(SourceError, match="base and log do not belong together"):
        at(repo, 2)


def test_a_snapshot_of_a_part_stays_one(repo: Repository) -> None:
    class PartSource(ServerSource):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.spec = replace(self.spec, options={**self.spec.options, "only": "shop.orders"})

    run(repo, PartSource(repo, [(INFO, [order(1)])], span(0)))
    put_log(repo, [noop(0), inserted(1, order(5)), inserted(2, order(6), ui=USERS, ns="shop.users"), noop(3)])
    assert at(repo, 3) == {"shop.orders": [order(1), order(5)]}


def test_a_transaction_under_way_is_whole_or_absent(repo: Repository) -> None:
    """Begun before the snapshot, committed behind it: its first entry is read, and nothing else of before."""
    session = [
        (b"lsid", raw.OBJECT, raw.document([(b"id", raw.BINARY, raw.binary(b"s" * 16, 4))])),
        (b"txnNumber", raw.INT64, raw.int64(1)),
    ]

    def linked(entry: bytes, previous: int | None) -> bytes:
        stamp = raw.timestamp(0, 0) if previous is None else ts(previous).raw()
        before = raw.document([(b"ts", raw.TIMESTAMP, stamp), (b"t", raw.INT64, raw.int64(1))])
        fields = [(e.name, e.type, entry[e.start : e.end]) for e in raw.elements(entry)]
        return raw.document([*fields, *session, (b"prevOpTime", raw.OBJECT, before)])

    def part(number: int, document: bytes, **flags: bool) -> bytes:
        inner = raw.document(
            [
                (b"op", raw.STRING, raw.string("i")),
                (b"ns", raw.STRING, raw.string("shop.orders")),
                (b"ui", raw.BINARY, raw.binary(ORDERS, 4)),
                (b"o", raw.OBJECT, document),
            ]
        )
        o = [(b"applyOps", raw.ARRAY, raw.array([(raw.OBJECT, inner)]))]
        return operation(
            number,
            "c",
            "admin.$cmd",
            None,
            raw.document([*o, *((n.encode(), raw.BOOL, b"\1") for n in flags)]),
        )

    log = [
        noop(0),
        linked(part(1, order(7), partialTxn=True), None),
        marked(2, 1, 3),
        noop(3),
        linked(part(4, order(8)), 1),
        noop(5),
    ]
    put_shop(repo, [(INFO, [order(1, 3)])], span(2, begun=1))
    put_log(repo, log)
    assert at(repo, 3) == {"shop.orders": [order(1, 3)]}
    assert at(repo, 4) == {"shop.orders": [order(1, 3), order(7), order(8)]}
    with view_at(repo, timeline(repo), Moment.upto(ts(3))) as view:
        moved = run(repo, AdvancedSource(view)).snapshot
    found = span_of(moved)
    assert found is not None
    assert (found.start.ts, found.end.ts) == (ts(3), ts(3))
    assert found.begun is not None
    assert found.begun.ts == ts(1)
    assert at(repo, 4) == {"shop.orders": [order(1, 3), order(7), order(8)]}


def test_only_what_has_to_do_with_one_document_is_looked_into() -> None:
    identity = b"\x07" + b"i" * 12
    document = raw.document([(b"_id", raw.OBJECT_ID, b"i" * 12)])
    other = raw.document([(b"_id", raw.OBJECT_ID, b"j" * 12)])
    entries = [
        inserted(1, other),
        inserted(2, document),
        command(3, "drop", "orders", ORDERS),
        inserted(4, other),
    ]
    assert list(narrowed(entries, identity)) == entries[1:]
    assert list(narrowed(entries[:3], identity)) == entries[1:3]
    assert list(narrowed(entries, key(1))) == entries  # one number has many forms


def test_one_document_by_a_narrow_way_is_that_of_the_view(repo: Repository) -> None:
    documents = [raw.document([(b"_id", raw.OBJECT_ID, bytes([n]) * 12)]) for n in range(40)]
    put_shop(repo, [(INFO, documents[:20])], span(0))
    put_log(repo, [noop(0), *(inserted(n, documents[n]) for n in range(20, 40)), noop(50)])
    choice = timeline(repo).choose(Moment.upto(ts(33)))
    for number in range(40):
        identity = raw.id_of(documents[number])
        with replay_choice(repo, choice, only=identity) as view:
            found = view.find("shop", "orders")
            assert found is not None
            assert found.get(identity) == (documents[number] if number <= 33 else None)
            assert view.at == ts(33)


def test_views_come_and_go_with_the_log(repo: Repository) -> None:
    put_shop(repo, [(INFO, [])], span(0))
    view_document = raw.document(
        [(b"_id", raw.STRING, raw.string("shop.recent")), (b"viewOn", raw.STRING, raw.string("orders")),
         (b"pipeline", raw.ARRAY, raw.EMPTY)]
    )  # fmt: skip
    put_log(repo, [noop(0), operation(1, "i", "shop.system.views", b"v" * 16, view_document), noop(2)])
    with view_at(repo, timeline(repo), Moment.upto(ts(2))) as view:
        found = view.find("shop", "recent")
        assert found is not None
        assert found.info.kind == VIEW
        assert list(found.documents()) == []
        assert found.get(key(1)) is None
        assert (found.count, found.size) == (0, 0)


def dump_with_log(repo: Repository, folder: Path, documents: list[bytes], log: list[bytes]) -> None:
    """What mongodump --oplog leaves."""
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "orders.bson").write_bytes(b"".join(documents))
    (folder / "shop" / "orders.metadata.json").write_bytes(metadata_json(INFO))
    (folder / "oplog.bson").write_bytes(b"".join(log))
    (folder / "prelude.json").write_bytes(prelude_json("8.0.0", "100"))
    run(repo, DumpSource([os.fsencode(folder)], leaves_of(repo)))


def test_a_dump_with_its_log_is_of_the_end_of_the_log(repo: Repository, tmp_path: Path) -> None:
    log = [noop(1), inserted(2, order(4)), deleted(3, 1), marked(4, 2, 8)]
    dump_with_log(repo, tmp_path / "dump", [order(1), order(2)], log)
    (snapshot,) = [snapshot for _, snapshot in repo.snapshots()]
    view = view_of(repo, snapshot)
    found = view.find("shop", "orders")
    assert found is not None
    assert list(found.documents()) == [order(2, 8), order(4)]
    assert view.at == ts(4)
    view.close()


def test_a_read_of_no_single_moment_takes_the_log_of_the_slices(repo: Repository) -> None:
    snapshot = put_shop(repo, [(INFO, [order(1, 1), order(2)])], span(0, 2))
    with pytest.raises(NotFoundError, match="while the server went on"):
        view_of(repo, snapshot)
    put_log(repo, [noop(0), marked(1, 1, 1), marked(2, 2, 2), noop(3)])
    whole = Timeline(repo, repo.snapshots())
    listed = whole.bases[0].snapshot
    view = view_of(repo, listed, whole)
    found = view.find("shop", "orders")
    assert found is not None
    assert list(found.documents()) == [order(1, 1), order(2, 2)]
    view.close()


class LoggedSource(ServerSource):
    """A read that keeps the log of its time beside the collections."""

    log: Sequence[bytes] = ()
    facts: SliceFacts | None = None

    def top(self) -> GivenFolder:
        data = b"".join(self.log)
        extra = None if self.facts is None else slice_extra(self.facts)
        node = Node(b"oplog.bson", int(NodeKind.STREAM), 0o600, size=len(data), extra=extra)
        folder = super().top()
        entries = [*folder.entries, Opened(node, lambda: BytesStream(node, data))]
        return GivenFolder(b"/", entries, SYSTEM_CLOCK)


@pytest.mark.parametrize("says", [True, False])
def test_a_log_in_the_snapshot_makes_it_exact_and_a_base(repo: Repository, says: bool) -> None:
    where = span(0, 2)
    source = LoggedSource(repo, [(INFO, [order(1, 1), order(2)])], where)
    source.log = [noop(0), marked(1, 1, 1), marked(2, 2, 2)]
    if says:
        source.facts = SliceFacts(where.start, where.end, 3, proven=False, why="beside", wall=1_002_005)
    run(repo, source)
    (entry,) = repo.snapshots()
    view = view_of(repo, entry[1])
    found = view.find("shop", "orders")
    assert found is not None
    assert list(found.documents()) == [order(1, 1), order(2, 2)]
    view.close()
    (interval,) = timeline(repo).ranges()
    assert (interval.start, interval.end) == (ts(2), ts(2))
    assert at(repo, 2) == {"shop.orders": [order(1, 1), order(2, 2)]}
    # A tail that begins inside that time goes on from it.
    put_log(repo, [marked(1, 1, 1), marked(2, 2, 2), marked(3, 1, 9), noop(4)])
    (interval,) = timeline(repo).ranges()
    assert (interval.start, interval.end) == (ts(2), ts(4))
    assert at(repo, 4) == {"shop.orders": [order(1, 9), order(2, 2)]}
    # The next snapshot does not drag that log along.
    with view_at(repo, timeline(repo), Moment.upto(ts(4))) as replayed:
        moved = run(repo, AdvancedSource(replayed)).snapshot
    assert StoredDump(repo, moved).log is None


def test_only_a_servers_snapshot_can_be_moved_forward(repo: Repository, tmp_path: Path) -> None:
    dump_with_log(repo, tmp_path / "dump", [order(1)], [noop(1)])
    base = StoredDump(repo, repo.snapshots()[-1][1])
    with replay(base, []) as view, pytest.raises(UsageError, match="server"):
        AdvancedSource(view)


def test_an_unsorted_file_can_be_replayed_onto(repo: Repository, tmp_path: Path) -> None:
    documents = [order(n) for n in (5, 2, 9, 1)]
    (tmp_path / "dump" / "shop").mkdir(parents=True)
    (tmp_path / "dump" / "shop" / "orders.bson").write_bytes(b"".join(documents))
    (tmp_path / "dump" / "shop" / "orders.metadata.json").write_bytes(metadata_json(INFO))
    run(repo, FilesSource([os.fsencode(tmp_path / "dump")]))
    base = StoredDump(repo, repo.snapshots()[-1][1])
    with replay(base, [marked(1, 9, 1), inserted(2, order(3))]) as view:
        found = view.find("shop", "orders")
        assert found is not None
        assert list(found.documents()) == [order(1), order(2), order(3), order(5), order(9, 1)]
        assert list(found.documents(key(2))) == [order(3), order(5), order(9, 1)]
        assert found.get(key(5)) == order(5)


def test_moving_forward_reads_what_changed_and_keeps_the_rest(tmp_path: Path) -> None:
    memory = MemoryStore()
    many = [order(n) for n in range(20_000)]
    with create(memory, tmp_path / "cache") as repo:
        put_shop(repo, [(INFO, many), (OTHER, [order(1)])], span(0))
        put_log(repo, [noop(0), marked(1, 9000, 1), deleted(2, 50), inserted(3, order(30_000)), noop(4)])
    with reopen(memory, tmp_path / "elsewhere") as repo:  # nothing remembered of the earlier run
        repo.sync()
        base = StoredDump(repo, repo.snapshots()[0][1])
        with view_at(repo, timeline(repo), Moment.upto(ts(4))) as view:
            source = AdvancedSource(view)
            assert source.news
            result = run(repo, source)
        moved = StoredDump(repo, result.snapshot)
        assert result.snapshot.statistics.chunks_new < 12
        assert moved.databases()["shop"][b"users"] == base.databases()["shop"][b"users"]
        orders, old = moved.find("shop", "orders"), base.find("shop", "orders")
        assert orders is not None
        assert old is not None
        assert len(set(orders.leaves()) - set(old.leaves())) <= 6
        assert orders.count == 20_000
        assert orders.get(key(9000)) == order(9000, 1)
        assert orders.get(key(50)) is None
        with view_at(repo, timeline(repo), Moment.upto(ts(4))) as view:
            assert not AdvancedSource(view).news
            again = run(repo, AdvancedSource(view)).snapshot
        assert again.root == result.snapshot.root


def test_a_renamed_collection_is_moved_forward_unread(repo: Repository) -> None:
    put_shop(repo, [(INFO, [order(n) for n in range(5000)])], span(0))
    put_log(repo, [noop(0), renamed(1, "orders", "old"), noop(2)])
    base = StoredDump(repo, repo.snapshots()[0][1]).find("shop", "orders")
    with view_at(repo, timeline(repo), Moment.upto(ts(2))) as view:
        result = run(repo, AdvancedSource(view))
    found = StoredDump(repo, result.snapshot).find("shop", "old")
    assert found is not None
    assert base is not None
    assert found.facts is not None
    assert found.facts.name == "old"
    assert list(found.leaves()) == list(base.leaves())
    assert found.info.name == "old"


def test_a_document_that_can_not_be_kept_in_order_changes_how_all_are_stored(repo: Repository) -> None:
    """It is longer than a leaf and its _id lies at its end: leaves can have no labels then."""
    odd = raw.document([(b"x", raw.BINARY, raw.binary(bytes(70_000))), (b"_id", raw.INT32, raw.int32(2_500))])
    many = [order(n) for n in range(0, 5000, 2)]
    put_shop(repo, [(INFO, many)], span(0))
    put_log(
        repo,
        [
            noop(0),
            operation(
                1, "u", "shop.orders", ORDERS, odd, raw.document([(b"_id", raw.INT32, raw.int32(2500))])
            ),
            noop(2),
        ],
    )
    with view_at(repo, timeline(repo), Moment.upto(ts(2))) as view:
        result = run(repo, AdvancedSource(view))
    found = StoredDump(repo, result.snapshot).find("shop", "orders")
    assert found is not None
    assert found.natural
    expected = [odd if n == 2500 else order(n) for n in range(0, 5000, 2)]
    assert list(found.documents()) == expected
    put_log(repo, [noop(2), marked(3, 4, 4), noop(4)])
    assert at(repo, 4)["shop.orders"][2] == order(4, 4)
