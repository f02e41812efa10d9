import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cli.localzone import LOCAL_ZONE


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_offset_is_that_of_the_time_meant_not_of_now() -> None:
    winter = datetime(2026, 1, 10, 12, tzinfo=LOCAL_ZONE)
    summer = datetime(2026, 7, 10, 12, tzinfo=LOCAL_ZONE)
    assert winter.astimezone(UTC).hour == 11
    assert summer.astimezone(UTC).hour == 10


def test_there_and_back() -> None:
    for hour in range(24 * 365):
        instant = datetime.fromtimestamp(1_767_225_600 + hour * 3600, UTC)
        assert instant.astimezone(LOCAL_ZONE).astimezone(UTC) == instant
