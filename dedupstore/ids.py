"""Identifiers: what names a chunk, a tree page, a pack, a snapshot, a session.

Every id is ``bytes`` at run time and a distinct type to the type checker, so a pack's name
can not be passed where a chunk's id is wanted. This module holds the only hex parser.
"""

from typing import NewType

from dedupstore.errors import UsageError

ID_SIZE = 32
SESSION_ID_SIZE = 16

ChunkId = NewType("ChunkId", bytes)
"""Keyed BLAKE3-256 of a chunk's plaintext (32 bytes)."""
TreeId = NewType("TreeId", ChunkId)
"""A chunk id that names a page of a tree."""
PackId = NewType("PackId", bytes)
"""A pack's random name, never used twice: session id (16 bytes) and 16 random bytes."""
SnapshotId = NewType("SnapshotId", bytes)
"""BLAKE3-256 of a snapshot object's stored bytes (32 bytes)."""
SessionId = NewType("SessionId", bytes)
"""A write session's random name (16 bytes)."""

HOLE = ChunkId(bytes(ID_SIZE))
"""Stands in a content list for bytes that were never written (a hole in a sparse file)."""


def parse_id(text: str, size: int = ID_SIZE) -> bytes:
    """Read a whole id from its ``2 * size`` lower-case hex digits; raises `UsageError`."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != size or text != raw.hex():
        raise UsageError(f"{text!r} is not an id of {2 * size} hex digits: copy it from a listing")
    return raw


def short(identifier: bytes) -> str:
    """Return the first 8 hex digits of an id, for people."""
    return identifier[:4].hex()
