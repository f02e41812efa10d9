"""Following the log: each entry once, holes and rollbacks named, lost connections survived."""

from collections.abc import Iterator
from contextlib import contextmanager

import bson

from dedupstore.sources.mongo.catalog import Selection, read_catalog
from dedupstore.sources.mongo.client import Deployment, connect
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.oplog import (
    OplogTail,
    Why,
    common_point,
    entry_at,
    has_entries,
    majority_point,
    oldest_entry,
)
from dedupstore.sources.oplog.entry import parse_entry
from dedupstore.sources.oplog.position import Position, Ts, header_of
from tests.support import servers
from tests.support.relay import Relay


@contextmanager
def opened(uri: str) -> Iterator[Deployment]:
    deployment = connect(uri)
    try:
        yield deployment
    finally:
        deployment.close()


def drained(tail: OplogTail) -> list[bytes]:
    found: list[bytes] = []
    while entries := tail.poll(0.2):
        found += entries
    return found


def inserted(entries: list[bytes]) -> list[int]:
    return [bson.decode(entry)["o"]["_id"] for entry in entries if parse_entry(entry).op == "i"]


def point_of(deployment: Deployment) -> Position:
    point = majority_point(deployment.node())
    assert point is not None
    return point


def test_every_entry_comes_once(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client, opened(mongo.uri) as deployment:
        tail = OplogTail(deployment, point_of(deployment), exact=False)
        assert database not in repr(drained(tail))
        for number in range(30):
            client[database]["c"].insert_one({"_id": number})
        mine = [entry for entry in drained(tail) if parse_entry(entry).ns == f"{database}.c"]
        assert inserted(mine) == list(range(30))
        client[database]["c"].insert_one({"_id": 30})
        assert inserted(drained(tail)) == [30]
        assert tail.position is not None
        tail.close()


def test_going_on_begins_with_the_entry_that_was_last(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client, opened(mongo.uri) as deployment:
        first = OplogTail(deployment, point_of(deployment), exact=False)
        client[database]["c"].insert_many([{"_id": number} for number in range(5)])
        before = drained(first)
        first.close()
        assert first.position is not None
        client[database]["c"].insert_many([{"_id": number} for number in range(5, 9)])
        second = OplogTail(deployment, first.position)
        after = drained(second)
        second.close()
    assert after[0] == before[-1]
    assert inserted(before + after[1:]) == list(range(9))


def test_a_log_that_is_too_short_is_a_hole() -> None:
    with (
        servers.secantus("--oplog-max-entries", "40") as server,
        server.client() as client,
        opened(server.uri) as deployment,
    ):
        tail = OplogTail(deployment, point_of(deployment), exact=False)
        client["d"]["c"].insert_one({"_id": 0})
        drained(tail)
        tail.close()
        for number in range(3):  # it is cut once in a thousand entries
            client["d"]["c"].insert_many([{"_id": 1 + 600 * number + n} for n in range(600)])
        assert tail.position is not None
        late = OplogTail(deployment, tail.position)
        assert late.poll(0.1) == []
        assert late.broken is not None
        assert late.broken.why is Why.TOO_OLD
        assert late.broken.wanted == tail.position
        assert late.broken.oldest == oldest_entry(deployment.node())
        assert late.poll(0.1) == []
        late.close()


def test_another_history_is_a_rollback(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client, opened(mongo.uri) as deployment:
        tail = OplogTail(deployment, point_of(deployment), exact=False)
        client[database]["c"].insert_many([{"_id": number} for number in range(5)])
        known = [header_of(entry)[0] for entry in drained(tail)]
        tail.close()
        while point_of(deployment).ts.seconds == known[-1].ts.seconds:  # the log must go on behind it
            client[database]["c"].insert_one({})
        client[database]["c"].insert_one({})

        # As if one more of them had been of a history that is gone.
        lost = Position(Ts(known[-1].ts.seconds, 4_000_000), 99)
        late = OplogTail(deployment, lost)
        assert late.poll(0.1) == []
        assert late.broken is not None
        assert late.broken.why is Why.ROLLED_BACK
        late.close()
        assert common_point(deployment, known) == known[-1]
        assert common_point(deployment, known[:-3]) == known[-4]
        assert common_point(deployment, []) is None


def test_a_place_behind_the_log_is_no_rollback(secantus_server: servers.Server) -> None:
    """Nothing shows that what was there was taken back."""
    with opened(secantus_server.uri) as deployment:
        place = point_of(deployment)
        while entry_at(deployment.node(), place.ts) is not None:  # it counts on without writing an entry
            place = point_of(deployment)
        tail = OplogTail(deployment, place)
        assert tail.poll(0.1) == []
        assert tail.broken is not None
        assert tail.broken.why is Why.TOO_OLD
        tail.close()


def test_the_point_where_histories_part(mongo: servers.Server, database: str) -> None:
    with mongo.client() as client, opened(mongo.uri) as deployment:
        tail = OplogTail(deployment, point_of(deployment), exact=False)
        client[database]["c"].insert_many([{"_id": number} for number in range(40)])
        known = [header_of(entry)[0] for entry in drained(tail)]
        tail.close()
        never = [Position(Ts(known[-1].ts.seconds + 1000, n)) for n in range(1, 20)]
        for kept in (1, 2, 17, len(known)):
            assert common_point(deployment, known[:kept] + never) == known[kept - 1]
        assert common_point(deployment, never) is None
        node = deployment.node()
        assert entry_at(node, known[3].ts) == known[3]
        assert entry_at(node, never[0].ts) is None
        assert has_entries(node, known[0].ts, known[1].ts)
        assert not has_entries(node, known[-1].ts, known[-1].ts)


def test_a_lost_connection_loses_no_entry(fresh_secantus: servers.Server) -> None:
    target = fresh_secantus.uri.removeprefix("mongodb://").partition("/")[0]
    with fresh_secantus.client() as client, Relay(target) as relay, opened(relay.uri) as deployment:
        tail = OplogTail(deployment, point_of(deployment), exact=False)
        found: list[bytes] = []
        for number in range(12):
            client["d"]["c"].insert_many([{"_id": 10 * number + n} for n in range(10)])
            if number % 3 == 1:
                relay.cut()
            if number % 4 != 2:
                found += drained(tail)
        found += drained(tail)
        tail.close()
    assert inserted(found) == list(range(120))
    assert tail.broken is None


def test_entries_of_a_transaction_come_together(secantus_server: servers.Server) -> None:
    name = servers.PREFIX + "together"
    with secantus_server.client() as client, opened(secantus_server.uri) as deployment:
        client[name]["c"].insert_one({"_id": -1})
        dialect = ChangeStreamDialect(read_catalog(deployment.node(), Selection()))
        tail = OplogTail(deployment, point_of(deployment), exact=False, dialect=dialect)
        with client.start_session() as session, session.start_transaction():
            for number in range(20):
                client[name]["c"].insert_one({"_id": number}, session=session)
        parts = []
        while entries := tail.poll(0.2):
            parts.append(entries)
        tail.close()
        client.drop_database(name)
    whole = [part for part in parts if 0 in inserted(part)]
    assert inserted(whole[0]) == list(range(20))
    assert len({header_of(entry)[0] for entry in whole[0]}) == 1
