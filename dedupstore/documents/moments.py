"""Up to where a log is replayed: an operation, everything before one, or a time of day."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from dedupstore.errors import UsageError
from dedupstore.sources.oplog.position import Ts
from dedupstore.tree.when import parse_time

_OPERATION = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a log. Made by `upto`, `before`, `at_time` or `parse`."""

    seconds: int
    """Since 1970."""
    increment: int | None = None
    """Of the operation that is named; ``None``: a time of day."""
    millis: int | None = None
    """Time of day only: milliseconds in the second; ``None``: the whole second."""
    exclusive: bool = False
    """Operation only: everything before it, itself not."""

    @classmethod
    def upto(cls, ts: Ts) -> "Moment":
        """Everything up to and with an operation."""
        return cls(ts.seconds, ts.increment)

    @classmethod
    def before(cls, ts: Ts) -> "Moment":
        """Everything before an operation."""
        return cls(ts.seconds, ts.increment, exclusive=True)

    @classmethod
    def at_time(cls, when: datetime) -> "Moment":
        """Everything that had happened by an instant (aware).

        A whole second includes all that is stamped with it; with milliseconds also what is stamped
        with the second counts only if its time of day is no later.
        """
        since = when - _EPOCH
        seconds = since // timedelta(seconds=1)
        micros = since // timedelta(microseconds=1) - seconds * 1_000_000
        if not 0 <= seconds <= _U32:
            raise UsageError(f"{when.isoformat()} is a time that no operation can have: give one after 1970")
        return cls(seconds, millis=micros // 1000 if micros else None)

    @classmethod
    def parse(cls, text: str, now: datetime, tz: tzinfo) -> "Moment":
        """Read ``seconds:increment`` or whatever `parse_time` reads. Raises `UsageError`."""
        match = _OPERATION.fullmatch(text.strip())
        if match is None:
            return cls.at_time(parse_time(text, now, tz))
        seconds, increment = int(match[1]), int(match[2])
        if max(seconds, increment) > _U32:
            raise UsageError(f"{text} is no operation: both numbers are less than 2^32", text=text)
        return cls(seconds, increment)

    @property
    def ts(self) -> Ts | None:
        """The operation that is named, if one is."""
        return None if self.increment is None else Ts(self.seconds, self.increment)

    @property
    def time(self) -> datetime:
        """The instant, to the second or the millisecond."""
        return _EPOCH + timedelta(seconds=self.seconds, milliseconds=self.millis or 0)

    def includes(self, ts: Ts, wall: int) -> bool:
        """Say whether an operation is in it; ``wall`` is its time of day, milliseconds since 1970."""
        named = self.ts
        if named is not None:
            return ts < named if self.exclusive else ts <= named
        if self.millis is None:
            return ts.seconds <= self.seconds
        return ts.seconds <= self.seconds and wall <= self.seconds * 1000 + self.millis

    def __str__(self) -> str:
        """Say it as a person would."""
        if self.increment is not None:
            return f"{'before ' if self.exclusive else ''}{self.seconds}:{self.increment}"
        return iso(self.time)


def iso(when: datetime) -> str:
    """Return an instant in UTC, with milliseconds where it has any."""
    when = when.astimezone(UTC)
    return when.isoformat(timespec="milliseconds" if when.microsecond else "seconds").replace("+00:00", "Z")


def time_of(ts: Ts) -> datetime:
    """Return the second in which an operation was stamped."""
    return _EPOCH + timedelta(seconds=ts.seconds)
