"""Places in a log: the timestamp of an entry, and with its term the entry itself.

A timestamp is what BSON calls one: seconds since 1970 and a counter within the second, 32 bits each. Every
entry of a replica set has its own; the term tells apart two entries of the same timestamp of which one was
rolled back. Pure values and functions.
"""

import re
import struct
from typing import NamedTuple

from dedupstore.errors import UsageError
from dedupstore.model import Data
from dedupstore.sources.bson import raw

NO_TERM = -1
"""Term of entries that have none: servers that hold no elections."""

_TEXT = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_KEY = struct.Struct(">II")
_PACKED = struct.Struct(">IIq")
_STAMP = struct.Struct("<II")
_MAX = 0xFFFF_FFFF


class Ts(NamedTuple):
    """A timestamp; compares as the log goes."""

    seconds: int
    """Since 1970."""
    increment: int

    @classmethod
    def parse(cls, text: str) -> "Ts":
        """Read ``seconds:increment``. Raises `UsageError`."""
        match = _TEXT.fullmatch(text.strip())
        if match is None or max(int(match[1]), int(match[2])) > _MAX:
            raise UsageError(f"{text!r} is no timestamp of a log: write it as 1700000000:1", text=text)
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, value: Data, at: int = 0) -> "Ts":
        """Read the raw value of a BSON timestamp, which begins at byte ``at``."""
        increment, seconds = _STAMP.unpack_from(value, at)
        return cls(seconds, increment)

    def key(self) -> bytes:
        """Return 8 bytes that compare as timestamps do."""
        return _KEY.pack(*self)

    def raw(self) -> bytes:
        """Return the raw value of a BSON timestamp."""
        return raw.timestamp(*self)

    def __str__(self) -> str:
        return f"{self.seconds}:{self.increment}"


ZERO = Ts(0, 0)
"""Before every entry."""


class Position(NamedTuple):
    """One entry of a log."""

    ts: Ts
    term: int = NO_TERM

    def pack(self) -> bytes:
        """Return 16 bytes: seconds, increment (u32), term (i64), big-endian."""
        return _PACKED.pack(*self.ts, self.term)

    @classmethod
    def unpack(cls, packed: bytes) -> "Position":
        """Read what `pack` gave; raises `ValueError` if it is not 16 bytes."""
        if len(packed) != _PACKED.size:
            raise ValueError(f"a position in the log has {_PACKED.size} bytes, not {len(packed)}")
        seconds, increment, term = _PACKED.unpack(packed)
        return cls(Ts(seconds, increment), term)

    def __str__(self) -> str:
        return str(self.ts) if self.term == NO_TERM else f"{self.ts} of term {self.term}"


def header_of(entry: bytes) -> tuple[Position, int]:
    """Return an entry's place and its time of day (milliseconds since 1970, 0 if it has none).

    Nothing else of it is looked at. Raises `SourceError` for what is no BSON or has no timestamp.
    """
    ts: Ts | None = None
    term, wall = NO_TERM, 0
    for name, kind, start, end in raw.elements(entry):
        if name == b"ts" and kind == raw.TIMESTAMP:
            ts = Ts.of(entry, start)
        elif name == b"t" and kind in {raw.INT64, raw.INT32}:
            term = raw.int_of(kind, entry[start:end])
        elif name == b"wall" and kind == raw.DATE:
            wall = raw.int_of(raw.INT64, entry[start:end])
            if ts is not None and term != NO_TERM:
                break
    if ts is None:
        raise raw.damaged(0, "has an entry of the log without a timestamp")
    return Position(ts, term), wall
