"""A server followed by its log: what is replayed is what it had, after every batch of operations."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import bson
import pymongo
import pytest
from bson import ObjectId

from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.cutting import Cut, SliceSource
from dedupstore.documents.history import versions
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.moments import Moment
from dedupstore.documents.replay import view_at
from dedupstore.documents.slices import heads
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Timeline, lineage, span
from dedupstore.documents.verify_replay import verify_replay
from dedupstore.model import Snapshot
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.mongo.catalog import Selection, read_catalog
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.oplog import OplogTail, majority_point
from dedupstore.sources.mongo.source import MongoSource
from dedupstore.sources.oplog.position import Ts
from tests.support import live, repos, servers

DB = "shop"
NAMES = ("orders", "users", "late")
State = dict[str, dict[bytes, object]]


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repos.create(MemoryStore(), tmp_path / "cache") as made:
        yield made


class Followed:
    """A server, its tail, and the slices and snapshots that come of it."""

    def __init__(self, repo: Repository, uri: str) -> None:
        self._repo = repo
        self._uri = uri
        self._deployment = connect(uri)
        self._dialect = ChangeStreamDialect(read_catalog(self._deployment.node(), Selection()))

    def close(self) -> None:
        self._deployment.close()

    @property
    def timeline(self) -> Timeline:
        return Timeline(self._repo, self._repo.snapshots())

    def snapshot(self) -> Snapshot:
        last = [snapshot for _, snapshot in self._repo.snapshots() if snapshot.source.kind == "mongo"]
        leaves = leaves_of(self._repo, StoredDump(self._repo, last[-1]) if last else None)
        source = MongoSource(connect(self._uri), leaves, dialect=ChangeStreamDialect)
        result = repos.run(self._repo, source)
        assert not result.findings
        return result.snapshot

    def slice(self) -> Ts:
        """Store what the log says since the last slice, or since the snapshot."""
        line = self.timeline
        after = line.last
        start = after or line.bases[0].span.first
        tail = OplogTail(self._deployment, start, exact=after is not None, dialect=self._dialect)
        until = majority_point(self._deployment.node())
        assert until is not None
        with Cut(after, since=None if after else start) as cut:
            while entries := tail.poll(0.3):
                for entry in entries:
                    cut.add(entry)
            tail.close()
            assert tail.broken is None
            if cut.news:
                (one,) = {snapshot.source.options["uri"] for _, snapshot in self._repo.snapshots()[:1]}
                options = {**self._repo.snapshots()[0][1].source.options, "uri": one}
                adopts = [snapshot.root for _, snapshot in heads(self._repo.snapshots())]
                known = [known.node for known in line.slices]
                source = SliceSource(cut, known, adopts, options=options)
                assert not repos.run(self._repo, source).findings
        last = self.timeline.last
        assert last is not None
        return last.ts

    def state(self) -> State:
        """What the server has now, decoded: it writes fields in an order of its own when it updates."""
        with pymongo.MongoClient(self._uri) as client:
            there = set(client[DB].list_collection_names())
        return {
            name: {id_of(raw): bson.decode(raw) for raw in live.on_server(self._uri, DB, name)}
            for name in NAMES
            if name in there
        }


def work(client: "pymongo.MongoClient[dict[str, object]]", random: Random, batch: int) -> None:
    """Some operations of every kind that the server logs."""
    orders, users = client[DB]["orders"], client[DB]["users"]
    for number in range(60):
        orders.insert_one({"_id": ObjectId(), "n": number, "batch": batch, "l": [1, {"a": 2}], "d": {"x": 1}})
        # One new field at a time: this server's log does not say in which order several came.
        users.update_one({"_id": random.randrange(200)}, {"$set": {"seen": number}}, upsert=True)
        users.update_one({"_id": random.randrange(200)}, {"$set": {"deep.a.b": batch}}, upsert=True)
        orders.update_one({"n": random.randrange(60)}, {"$push": {"l": number}, "$unset": {"d.x": 1}})
        orders.update_one({"n": random.randrange(60)}, {"$set": {"l.0": "first", "d": {"y": [number]}}})
        if number % 7 == 0:
            users.replace_one({"_id": number}, {"text": "x" * number})
            orders.delete_one({"n": random.randrange(60)})
        if number % 30 == 0:
            with client.start_session() as session, session.start_transaction():
                orders.insert_one({"_id": ObjectId(), "paid": number}, session=session)
                users.delete_one({"_id": number + 1}, session=session)
    if batch == 1:
        orders.create_index([("n", 1)], name="by n")
        client[DB].create_collection("late")
        client[DB]["late"].insert_many([{"_id": n} for n in range(10)])
    if batch == 3:
        client[DB]["late"].drop()


def test_every_batch_can_be_gone_back_to(fresh_secantus: servers.Server, repo: Repository) -> None:
    random = Random(7)
    with fresh_secantus.client() as client:
        work(client, random, 0)
        followed = Followed(repo, fresh_secantus.uri)
        first = followed.snapshot()
        states: dict[Ts, State] = {}
        for batch in range(1, 5):
            work(client, random, batch)
            states[followed.slice()] = followed.state()
        second = followed.snapshot()
        client[DB]["users"].insert_one({"_id": "behind it"})  # it counts on without an entry
        end = followed.slice()
        followed.close()
    line = Timeline(repo, repo.snapshots())
    assert lineage(first.source) == lineage(second.source)
    assert len(line.runs) == 1
    for ts, state in states.items():
        with view_at(repo, line, Moment.upto(ts)) as view:
            found = {
                name: {id_of(one): bson.decode(one) for one in collection.documents()}
                for name in NAMES
                if (collection := view.find(DB, name)) is not None
            }
            assert found == state
    result = verify_replay(repo, line)
    assert not result.findings
    assert len(result.proven) == 1
    ends = span(second)
    assert ends is not None
    assert ends.end.ts <= end
    # Moved forward by the log alone it is, leaf for leaf, what was read of the server.
    moved = moved_to(repo, line, ends.end.ts, first)
    for name in ("orders", "users"):
        ours, theirs = moved.find(DB, name), StoredDump(repo, second).find(DB, name)
        assert ours is not None
        assert theirs is not None
        assert list(ours.leaves()) == list(theirs.leaves())
    seen = list(versions(repo, line, DB, "users", b"\x10" + (3).to_bytes(4, "little")))
    assert {one.op for one in seen} <= {"snapshot", "insert", "update", "delete"}
    final = states[max(states)]["users"].get(b"\x10" + (3).to_bytes(4, "little"))
    assert (None if seen[-1].after is None else bson.decode(seen[-1].after)) == final


def moved_to(repo: Repository, line: Timeline, ts: Ts, first: Snapshot) -> StoredDump:
    chosen = line.choose(Moment.upto(ts), covers=lambda snapshot: snapshot.root == first.root)
    assert chosen.base.snapshot.root == first.root
    only_first = Timeline(
        repo,
        [entry for entry in repo.snapshots() if entry[1].source.kind != "mongo"]
        + [(chosen.base.id, chosen.base.snapshot)],
    )
    with view_at(repo, only_first, Moment.upto(ts)) as view:
        result = repos.run(repo, AdvancedSource(view))
    return StoredDump(repo, result.snapshot)
