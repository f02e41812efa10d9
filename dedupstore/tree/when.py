"""Instants as people write them. Pure: the present and the time zone are parameters."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from dedupstore.errors import UsageError

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_AGO_PART = r"(\d{1,9}(?:\.\d{1,9})?)\s*(seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d|weeks?|w)"
_AGO = re.compile(rf"(?:{_AGO_PART}[\s,]*)+\s+ago|(?:{_AGO_PART})+ago", re.ASCII)
_AGO_EACH = re.compile(_AGO_PART, re.ASCII)
_DAY = re.compile(r"(today|yesterday)(?:(?:\s+at)?\s+(\S+))?", re.ASCII)
_EPOCH = re.compile(r"@(-?\d+(?:\.\d{1,9})?)|(\d{9,}(?:\.\d{1,9})?)", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?", re.ASCII)
_HOW = (
    "write it like 2026-11-01T09:30:00Z, '2026-11-01 09:30', '2h ago', 'yesterday 14:00', 'now' "
    "or @ and seconds since 1970"
)


def parse_time(text: str, now: datetime, tz: tzinfo) -> datetime:
    """Read an instant; return it with zone UTC.

    Understood: ISO 8601 dates and times with ``Z``, an offset or no zone; epoch seconds (nine digits
    or more, or any number after ``@``); ``now``; ``2h ago``, ``1d 6h ago`` (s, m, h, d = 24 h, w); ``today``
    and ``yesterday``, bare or with a time; a bare time of today. A date without a time is its midnight.

    ``now`` is the present, aware. ``tz`` is the zone of a time written without one, and decides what
    ``yesterday`` is. A local time that occurs twice (clocks set back) means the first of the two; one
    that never occurs (set forward) is read by the offset in force before the gap.

    Raises `UsageError` if the text is none of these or lies outside the years 1 to 9999.
    """
    words = " ".join(text.split())
    try:
        found = _relative(words.lower(), now, tz) or _absolute(words, now, tz)
        if found is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{text!r} is not a time ({error}): {_HOW}", text=text) from error
    raise UsageError(f"{text!r} is not a time: {_HOW}", text=text)


def _relative(words: str, now: datetime, tz: tzinfo) -> datetime | None:
    if words == "now":
        return now
    if _AGO.fullmatch(words):
        past = timedelta()
        for amount, unit in _AGO_EACH.findall(words):
            past += float(amount) * _UNITS[unit[0]]
        return now.astimezone(UTC) - past
    if match := _DAY.fullmatch(words):
        day = now.astimezone(tz).date()
        if match[1] == "yesterday":
            day -= timedelta(days=1)
        return datetime.combine(day, _clock(match[2]) if match[2] else time(), tz)
    return None


def _absolute(words: str, now: datetime, tz: tzinfo) -> datetime | None:
    if match := _EPOCH.fullmatch(words):
        whole, _, part = (match[1] or match[2]).partition(".")
        microseconds = int(part.ljust(6, "0")[:6]) if part else 0
        if whole.startswith("-"):
            microseconds = -microseconds
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(whole), microseconds=microseconds)
    if _CLOCK.fullmatch(words):
        return datetime.combine(now.astimezone(tz).date(), _clock(words), tz)
    if words.isdigit() and len(words) != len("20261101"):
        return None
    day, _, rest = words.partition(" ")
    if rest and _CLOCK.fullmatch(rest):
        return datetime.combine(date.fromisoformat(day), _clock(rest), tz)
    found = datetime.fromisoformat(words)
    return found if found.tzinfo is not None else found.replace(tzinfo=tz)


def _clock(text: str) -> time:
    """Read hours and minutes, also with one digit for the hour."""
    if not _CLOCK.fullmatch(text):
        raise ValueError(f"{text!r} is not a time of day")
    return time.fromisoformat(text if text[2] == ":" else f"0{text}")
