from datetime import UTC, datetime, timedelta

import pytest

from dedupstore.errors import NotFoundError, UsageError
from dedupstore.ids import ChunkId, SnapshotId, TreeId
from dedupstore.model import Snapshot, SourceSpec, Statistics
from dedupstore.tree.select import Entry, Filter, covers, matching, select, select_each, touches

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, 9, 30, tzinfo=UTC)


def snapshot(
    number: int,
    *paths: bytes,
    host: str = "web",
    tags: tuple[str, ...] = (),
    when: datetime | None = None,
    name: str = "",
) -> Entry:
    return SnapshotId(bytes([number]) * 32), Snapshot(
        root=TreeId(ChunkId(bytes(32))),
        time=when or START + number * DAY,
        host=host,
        user="u",
        source=SourceSpec("files", paths or (b"/srv",)),
        parent=None,
        tags=frozenset(tags),
        sequence=number,
        statistics=Statistics(),
        name=name,
    )


LINE = [snapshot(0), snapshot(1, tags=("a", "b")), snapshot(2, host="db"), snapshot(3, tags=("a",))]


def test_latest_and_before() -> None:
    assert select(LINE) == LINE[3]
    assert select(LINE, "latest~0") == LINE[3]
    assert select(LINE, "latest~3") == LINE[0]
    assert select(LINE, host="db") == LINE[2]
    assert select(LINE, "latest~1", host="web") == LINE[1]
    assert select(LINE, "latest~1", tags=("a",)) == LINE[1]
    assert select(LINE, tags=("a", "b")) == LINE[1]
    with pytest.raises(NotFoundError, match="no latest~4: only 4"):
        select(LINE, "latest~4")
    with pytest.raises(NotFoundError, match="of host nobody tagged x"):
        select(LINE, host="nobody", tags=("x",))
    with pytest.raises(NotFoundError, match="no snapshot in this repository"):
        select([])


def test_latest_is_the_last_commit_whatever_the_clock_said() -> None:
    wrong = snapshot(9, when=START - 1000 * DAY)
    assert select([*LINE, wrong]) == wrong


def test_id_prefixes() -> None:
    assert select(LINE, "02") == LINE[2]
    assert select(LINE, (b"\2" * 32).hex().upper()) == LINE[2]
    assert select(LINE, "0202", host="web") == LINE[2]
    with pytest.raises(UsageError, match="beginning of 4 snapshots: 00000000"):
        select(LINE, "0")
    with pytest.raises(NotFoundError, match="begins with ff"):
        select(LINE, "ff")
    for bad in ("", "xyz", "latest~", "latest~-1", "0" * 65):
        with pytest.raises(UsageError):
            select(LINE, bad)
    with pytest.raises(UsageError, match="not both"):
        select(LINE, "02", at=START)
    many = [snapshot(0, when=START + n * DAY) for n in range(8)]
    with pytest.raises(UsageError, match="and 3 more; give more digits"):
        select(many, "00")


def test_at_takes_the_newest_up_to_an_instant() -> None:
    assert select(LINE, at=START) == LINE[0]
    assert select(LINE, at=START + DAY) == LINE[1]
    assert select(LINE, at=START + DAY - timedelta(microseconds=1)) == LINE[0]
    assert select(LINE, at=START + 99 * DAY) == LINE[3]
    assert select(LINE, "latest~1", at=START + 2 * DAY) == LINE[1]
    with pytest.raises(
        NotFoundError, match=r"earliest snapshot is 00000000 of 2026-11-01T09:30:00Z"
    ) as caught:
        select(LINE, at=START - DAY)
    assert caught.value.data["earliest"] == START
    assert caught.value.data["id"] == LINE[0][0]
    with pytest.raises(NotFoundError, match="02020202"):
        select(LINE, at=START, host="db")


def test_at_goes_by_time_where_a_clock_was_wrong() -> None:
    wrong = snapshot(9, when=START - 1000 * DAY)
    assert select([*LINE, wrong], at=START) == LINE[0]


def test_each_source_has_its_own_newest() -> None:
    line = [
        snapshot(0, b"/a"),
        snapshot(1, b"/b"),
        snapshot(2, b"/a"),
        snapshot(3, b"/a"),
        snapshot(4, name="x"),
    ]
    assert select_each(line, START + 2 * DAY) == [line[1], line[2]]
    assert select_each(line, START + 9 * DAY) == [line[1], line[3], line[4]]
    with pytest.raises(NotFoundError, match="earliest"):
        select_each(line, START - DAY)
    with pytest.raises(NotFoundError, match="no snapshots yet"):
        select_each([], START)


def test_paths_are_compared_by_component() -> None:
    one = snapshot(0, b"/srv/a/", b"/home")[1]
    assert covers(one, b"/srv/a")
    assert covers(one, b"/srv/a/deep/file")
    assert not covers(one, b"/srv/ab")
    assert not covers(one, b"/srv")
    assert touches(one, b"/srv")
    assert touches(one, b"/")
    assert not touches(one, b"/var")


def test_a_path_takes_the_newest_snapshot_that_holds_it() -> None:
    line = [snapshot(0, b"/srv"), snapshot(1, b"/srv/logs"), snapshot(2, b"/home")]
    assert select(line, paths=(b"/srv/db",)) == line[0]
    assert select(line, paths=(b"/srv/logs/x",)) == line[1]
    assert select(line, paths=(b"/srv",)) == line[0]  # the newer one only passes through it
    assert select(line[1:], paths=(b"/srv",)) == line[1]
    assert select(line, at=START, paths=(b"/srv/logs",)) == line[0]
    assert select(line, paths=(b"/",)) == line[2]
    with pytest.raises(NotFoundError, match="with /var"):
        select(line, paths=(b"/var",))


def test_listing_filters() -> None:
    assert matching(LINE, Filter()) == LINE
    assert matching(LINE, Filter(host="web")) == [LINE[0], LINE[1], LINE[3]]
    assert matching(LINE, Filter(tags=frozenset({"a"}))) == [LINE[1], LINE[3]]
    assert matching(LINE, Filter(paths=(b"/srv/x",))) == LINE
    assert matching(LINE, Filter(paths=(b"/",))) == []
    assert matching(LINE, Filter(before=START + DAY)) == LINE[:2]
    assert matching(LINE, Filter(after=START + DAY)) == LINE[1:]
    assert matching(LINE, Filter(latest=1)) == LINE[2:]
    assert matching(LINE, Filter(latest=2)) == LINE[1:]
    assert matching(LINE, Filter(latest=1, before=START + DAY)) == [LINE[1]]
    with pytest.raises(UsageError, match="1 or more"):
        matching(LINE, Filter(latest=0))
