import contextlib
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import UsageError
from dedupstore.tree.when import parse_time

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
KATHMANDU = ZoneInfo("Asia/Kathmandu")
NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("NOW", NOW),
        ("2026-11-01T09:30:00Z", utc(2026, 11, 1, 9, 30)),
        ("2026-11-01T09:30:00.25+02:00", utc(2026, 11, 1, 7, 30, 0, 250_000)),
        ("2026-11-01T09:30-05:45", utc(2026, 11, 1, 15, 15)),
        ("20261101T093000Z", utc(2026, 11, 1, 9, 30)),
        ("2026-11-01 09:30", utc(2026, 11, 1, 8, 30)),
        ("2026-11-01 9:30", utc(2026, 11, 1, 8, 30)),
        (" 2026-11-01   09:30:15 ", utc(2026, 11, 1, 8, 30, 15)),
        ("2026-07-01 09:30", utc(2026, 7, 1, 7, 30)),
        ("2026-11-01", utc(2026, 10, 31, 23)),
        ("20261101", utc(2026, 10, 31, 23)),
        ("1793523600", utc(2026, 11, 1, 9)),
        ("1793523600.5", utc(2026, 11, 1, 9, 0, 0, 500_000)),
        ("@0", utc(1970, 1, 1)),
        ("@-1.5", utc(1969, 12, 31, 23, 59, 58, 500_000)),
        ("@20261101", utc(1970, 8, 23, 12, 5, 1)),
        ("2h ago", utc(2026, 11, 1, 10)),
        ("2 hours ago", utc(2026, 11, 1, 10)),
        ("1d 6h ago", utc(2026, 10, 31, 6)),
        ("1d6h ago", utc(2026, 10, 31, 6)),
        ("1.5h ago", utc(2026, 11, 1, 10, 30)),
        ("90s ago", utc(2026, 11, 1, 11, 58, 30)),
        ("3 weeks ago", utc(2026, 10, 11, 12)),
        ("30m ago", utc(2026, 11, 1, 11, 30)),
        ("yesterday", utc(2026, 10, 30, 23)),
        ("yesterday 14:00", utc(2026, 10, 31, 13)),
        ("Yesterday at 14:00:30", utc(2026, 10, 31, 13, 0, 30)),
        ("today 9:05", utc(2026, 11, 1, 8, 5)),
        ("08:15", utc(2026, 11, 1, 7, 15)),
    ],
)
def test_what_people_write(text: str, expected: datetime) -> None:
    found = parse_time(text, NOW, BERLIN)
    assert found == expected
    assert found.tzinfo is UTC


NO_TIMES = """
soon | ago | 2 ago | 2y ago | h ago | -2h ago | yesterday noon | yesterday 25:00 | 24:01 | 2026-02-30 |
2026-13-01 | 2026 | 202611 | 1793523 | @ | @x | 1e9 | 99999999999999 | @-99999999999999 |
999999999w ago | 2026-11-01T09:30:00 + | today yesterday
"""


@pytest.mark.parametrize("text", ["", *(text.strip() for text in NO_TIMES.split("|"))])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_time(text, NOW, BERLIN)


def test_the_ends_of_the_calendar() -> None:
    far_east = timezone(timedelta(hours=14))
    assert parse_time("0001-01-02", NOW, far_east) == utc(1, 1, 1, 10)
    with pytest.raises(UsageError, match="is not a time"):
        parse_time("0001-01-01", NOW, far_east)


def test_clocks_set_back_mean_the_first_of_two() -> None:
    # Berlin, 2026-10-25: 03:00 summer time becomes 02:00 winter time.
    assert parse_time("2026-10-25 02:30", NOW, BERLIN) == utc(2026, 10, 25, 0, 30)
    assert parse_time("2026-10-25T02:30+01:00", NOW, BERLIN) == utc(2026, 10, 25, 1, 30)
    assert parse_time("2026-10-25 03:00", NOW, BERLIN) == utc(2026, 10, 25, 2)
    # New York, 2026-11-01: 02:00 becomes 01:00.
    assert parse_time("2026-11-01 01:30", NOW, NEW_YORK) == utc(2026, 11, 1, 5, 30)


def test_clocks_set_forward_read_the_gap_by_the_offset_before_it() -> None:
    # Berlin, 2026-03-29: 02:00 becomes 03:00, so 02:30 never was.
    assert parse_time("2026-03-29 02:30", NOW, BERLIN) == utc(2026, 3, 29, 1, 30)
    assert parse_time("2026-03-29 01:59", NOW, BERLIN) == utc(2026, 3, 29, 0, 59)
    assert parse_time("2026-03-29 03:00", NOW, BERLIN) == utc(2026, 3, 29, 1)


def test_hours_ago_are_elapsed_hours_across_a_change() -> None:
    after = utc(2026, 10, 25, 1, 30)  # 02:30 winter time
    assert parse_time("2h ago", after, BERLIN) == utc(2026, 10, 24, 23, 30)
    assert parse_time("1d ago", after, BERLIN) == utc(2026, 10, 24, 1, 30)
    assert parse_time("yesterday 02:30", after, BERLIN) == utc(2026, 10, 24, 0, 30)


def test_yesterday_is_the_zones_own() -> None:
    late = utc(2026, 11, 1, 23, 30)  # already the 2nd in Berlin, still the 1st in New York
    assert parse_time("yesterday 14:00", late, BERLIN) == utc(2026, 11, 1, 13)
    assert parse_time("yesterday 14:00", late, NEW_YORK) == utc(2026, 10, 31, 18)
    assert parse_time("today", late, KATHMANDU) == utc(2026, 11, 1, 18, 15)


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001
    st.sampled_from([BERLIN, NEW_YORK, KATHMANDU, UTC]),
)
def test_iso_and_epoch_mean_the_same_in_every_zone(moment: datetime, zone: ZoneInfo) -> None:
    instant = moment.replace(tzinfo=UTC)
    local = instant.astimezone(zone)
    assert parse_time(local.isoformat(), NOW, UTC) == instant
    assert parse_time(instant.isoformat().replace("+00:00", "Z"), NOW, zone) == instant
    whole = instant.replace(microsecond=0)
    assert parse_time(f"@{int(whole.timestamp())}", NOW, zone) == whole
    if not local.fold:
        assert parse_time(local.replace(tzinfo=None).isoformat(sep=" "), NOW, zone) == instant


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_time(text, NOW, BERLIN).tzinfo is UTC
