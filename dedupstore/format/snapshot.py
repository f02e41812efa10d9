"""Snapshots as payload bytes. Small: everything else hangs under the root page.

Sets are stored sorted and maps by ascending key, so equal snapshots give equal payloads. The object's
id is the plain hash of the sealed object (`snapshot_id`), so it differs each time it is sealed.
"""

from dataclasses import asdict
from datetime import datetime

import msgspec

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.crypto import plain_hash
from dedupstore.format.payload import decode_payload, encode_payload, from_micros, to_micros
from dedupstore.ids import ChunkId, SnapshotId, TreeId
from dedupstore.model import Data, Snapshot, SourceSpec, Statistics


class _Statistics(msgspec.Struct, frozen=True, array_like=True):
    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    files_failed: int = 0
    files: int = 0
    bytes: int = 0
    bytes_new: int = 0
    stored_bytes: int = 0
    chunks_new: int = 0
    seconds: float = 0.0


class _Source(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    paths: tuple[bytes, ...]
    options: dict[str, str]


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    root: bytes
    time: int
    host: str
    user: str
    source: _Source
    parent: bytes | None
    tags: list[str]
    sequence: int
    statistics: _Statistics
    users: list[tuple[int, bytes]]
    groups: list[tuple[int, bytes]]
    name: str = ""
    position: bytes | None = None
    hold: str | None = None
    expiry: int | None = None
    program: str = ""


_DECODER = msgspec.msgpack.Decoder(_Snapshot)


def snapshot_id(stored: Data) -> SnapshotId:
    """Return the id of a snapshot object: the plain hash of its stored bytes."""
    return SnapshotId(plain_hash(stored))


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the payload; raises `ValueError` for a time without a zone, `UsageError` for bad text."""
    source = snapshot.source
    raw = _Snapshot(
        root=snapshot.root,
        time=to_micros(snapshot.time),
        host=snapshot.host,
        user=snapshot.user,
        source=_Source(source.kind, source.paths, dict(source.options)),
        parent=snapshot.parent,
        tags=sorted(snapshot.tags),
        sequence=snapshot.sequence,
        statistics=_Statistics(**asdict(snapshot.statistics)),
        users=sorted(snapshot.users.items()),
        groups=sorted(snapshot.groups.items()),
        name=snapshot.name,
        position=snapshot.position,
        hold=snapshot.hold,
        expiry=None if snapshot.expiry is None else to_micros(snapshot.expiry),
        program=snapshot.program,
    )
    return encode_payload(c.SNAPSHOT_VERSION, raw)


def decode_snapshot(data: Data) -> Snapshot:
    """Read a payload; raises `FormatError` for a later version, `ObjectDamaged` otherwise."""
    raw = decode_payload(_DECODER, c.SNAPSHOT_VERSION, data, "snapshot")
    if len(raw.root) != c.HASH_SIZE or (raw.parent is not None and len(raw.parent) != c.HASH_SIZE):
        raise _damaged("names no root or no parent")
    if raw.sequence < 0:
        raise _damaged(f"has sequence number {raw.sequence}")
    return Snapshot(
        root=TreeId(ChunkId(raw.root)),
        time=_instant(raw.time),
        host=raw.host,
        user=raw.user,
        source=SourceSpec(raw.source.kind, raw.source.paths, raw.source.options),
        parent=None if raw.parent is None else SnapshotId(raw.parent),
        tags=frozenset(raw.tags),
        sequence=raw.sequence,
        statistics=Statistics(**msgspec.structs.asdict(raw.statistics)),
        users=dict(raw.users),
        groups=dict(raw.groups),
        name=raw.name,
        position=raw.position,
        hold=raw.hold,
        expiry=None if raw.expiry is None else _instant(raw.expiry),
        program=raw.program,
    )


def _instant(micros: int) -> datetime:
    try:
        return from_micros(micros)
    except OverflowError as error:
        raise _damaged("was taken at no possible time") from error


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"the snapshot {how}: run a verify of the repository")
