"""Payloads: a version number, then one msgpack array. What segments, snapshots, ... have in common.

Writers append fields only; readers ignore fields after those they know and fill missing ones with
their defaults. Anything that an old reader must not ignore takes a new version number, which it
refuses by name. Instants are microseconds since 1970-01-01T00:00:00Z as a signed integer.
"""

from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.model import Data

_T = TypeVar("_T")
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_payload(version: int, value: msgspec.Struct) -> bytes:
    """Return ``version`` as a byte and ``value`` as msgpack, the same bytes for equal values.

    Raises `UsageError` for text that is not Unicode (undecodable bytes taken into a ``str``).
    """
    try:
        return bytes([version]) + _ENCODER.encode(value)
    except UnicodeEncodeError as error:
        raise UsageError(f"the text {error.object!r} can not be stored: it is not valid Unicode") from error


def decode_payload(decoder: msgspec.msgpack.Decoder[_T], version: int, data: Data, what: str) -> _T:
    """Read what `encode_payload` wrote. ``what`` names the object in errors.

    Raises `FormatError` for another version, `ObjectDamaged` for bytes that are no such payload.
    """
    check_version(version, data, what)
    try:
        return decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ObjectDamaged(f"the {what} is garbled ({error}): run a verify of the repository") from error


def check_version(version: int, data: Data, what: str) -> None:
    """Compare the first byte; raises `FormatError` for another version, `ObjectDamaged` if empty."""
    if not data:
        raise ObjectDamaged(f"the {what} is empty: run a verify of the repository")
    if data[0] != version:
        raise FormatError(f"{what} version {data[0]} is unknown: a newer dstore is needed", version=data[0])


def to_micros(instant: datetime) -> int:
    """Return an aware instant as microseconds since 1970; raises `ValueError` for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone can not be stored")
    return (instant - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the UTC instant; raises `OverflowError` outside the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=micros)
