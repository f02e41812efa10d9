"""The state of a write session, as payload bytes of the object that commits and fences compete for.

``open`` may become ``committed`` (by its writer) or ``fenced`` (by a collector), by compare-and-swap;
neither ever changes again. A committed session carries the stored bytes of its snapshot object, so
whoever finds it can finish the writer's work.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.payload import decode_payload, encode_payload, from_micros, to_micros
from dedupstore.model import Data

Phase: TypeAlias = Literal["open", "committed", "fenced"]


@dataclass(frozen=True, slots=True)
class SessionState:
    """One write session, as its object tells it."""

    state: Phase
    generation: int
    """The collector generation that the writer knows of."""
    host: str
    pid: int
    boot: str
    """The host's boot id, so that a pid from before a restart is not taken for a live one."""
    started: datetime
    snapshot: bytes | None = None
    """Stored bytes of the snapshot object; present if, and only if, ``committed``."""
    note: str = ""
    """What it is for, or why it was fenced; for people."""


class _Session(msgspec.Struct, frozen=True, array_like=True):
    state: Phase
    generation: int
    host: str
    pid: int
    boot: str
    started: int
    snapshot: bytes | None = None
    note: str = ""


_DECODER = msgspec.msgpack.Decoder(_Session)


def encode_session(session: SessionState) -> bytes:
    """Return the payload.

    Raises `ValueError` for a committed session without a snapshot, another one with, or a start
    without a zone; `UsageError` for text that is not Unicode.
    """
    if (session.state == "committed") != (session.snapshot is not None):
        raise ValueError(f"a session that is {session.state} has a wrong snapshot field")
    raw = _Session(
        session.state,
        session.generation,
        session.host,
        session.pid,
        session.boot,
        to_micros(session.started),
        session.snapshot,
        session.note,
    )
    return encode_payload(c.SESSION_VERSION, raw)


def decode_session(data: Data) -> SessionState:
    """Read a payload; raises `FormatError` for a later version, `ObjectDamaged` otherwise."""
    raw = decode_payload(_DECODER, c.SESSION_VERSION, data, "session")
    if (raw.state == "committed") != (raw.snapshot is not None) or raw.generation < 0:
        raise _damaged("contradicts itself")
    try:
        started = from_micros(raw.started)
    except OverflowError as error:
        raise _damaged("started at no possible time") from error
    return SessionState(
        raw.state, raw.generation, raw.host, raw.pid, raw.boot, started, raw.snapshot, raw.note
    )


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"the session object {how}: run a verify of the repository")
