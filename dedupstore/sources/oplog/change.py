"""What a stretch of a log comes to for one document: it is set, deleted or patched.

Changes of later stretches fold into earlier ones (`folded`); a change is a few bytes more than the documents
in it, also when it is packed for a temporary file. Pure functions and values.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from dedupstore.errors import SourceError
from dedupstore.sources.bson.extjson import shown_value
from dedupstore.sources.oplog.compose import patch_of
from dedupstore.sources.oplog.position import Ts

SET: Final = 1
DELETE: Final = 2
PATCH: Final = 3

_INSERTED, _STRICT = 0x10, 0x20
_KIND = 0x0F
_HEAD = struct.Struct(">BQIIII")
_LENGTH = struct.Struct(">I")


class Change(NamedTuple):
    """One document's change."""

    key: bytes
    """`sort_key` of its identity; of a document without ``_id`` something that is unique."""
    id: bytes
    """Its identity (type byte, raw value) as the log last had it; ``b""``: it has none."""
    kind: int
    """`SET`, `DELETE` or `PATCH`."""
    documents: tuple[bytes, ...]
    """`SET`: the document. `PATCH`: updates (``o`` of entries), to apply in order to what the base has."""
    order: int = 0
    """Its place in the log: when it was inserted, or where it was not, first spoken of."""
    inserted: bool = False
    """`SET`: the log inserts it: in a capped collection it comes behind all that was there before."""
    strict: bool = True
    """`PATCH`: the base must have the document. Else it is older than the end of a base's reading."""
    ts: Ts = Ts(0, 0)
    """When it was changed last."""


def pack_change(change: Change) -> bytes:
    """Return a change as bytes; its key is not in them."""
    flags = change.kind | _INSERTED * change.inserted | _STRICT * change.strict
    head = _HEAD.pack(flags, change.order, *change.ts, len(change.id), len(change.documents))
    if len(change.documents) == 1:
        return head + change.id + change.documents[0]
    lengths = [_LENGTH.pack(len(document)) for document in change.documents]
    return b"".join((head, change.id, *lengths, *change.documents))


def unpack_change(key: bytes, packed: bytes) -> Change:
    """Return the change that `pack_change` packed."""
    flags, order, seconds, increment, id_length, count = _HEAD.unpack_from(packed)
    at = _HEAD.size + id_length
    identity = packed[_HEAD.size : at]
    documents: tuple[bytes, ...]
    if count == 1:
        documents = (packed[at:],)
    else:
        lengths = [length for (length,) in _LENGTH.iter_unpack(packed[at : at + _LENGTH.size * count])]
        at += _LENGTH.size * count
        found = []
        for length in lengths:
            found.append(packed[at : at + length])
            at += length
        documents = tuple(found)
    inserted, strict = bool(flags & _INSERTED), bool(flags & _STRICT)
    return Change(key, identity, flags & _KIND, documents, order, inserted, strict, Ts(seconds, increment))


def folded(changes: Sequence[Change]) -> Change:
    """Return the one change that these, of one document and in order of time, come to.

    Raises `SourceError` naming the document where one changes what an earlier one deleted.
    """
    result = changes[0]
    for change in changes[1:]:
        result = _folded(result, change)
    return result


def _folded(older: Change, newer: Change) -> Change:
    if newer.kind == PATCH:
        if older.kind == DELETE:
            if newer.strict:
                raise missing(newer)
            return older
        if older.kind == SET:
            document = patch_of(newer.documents).apply(older.documents[0])
            return older._replace(documents=(document,), ts=newer.ts)
        updates = patch_of((*older.documents, *newer.documents)).updates()
        return older._replace(documents=updates, strict=older.strict or newer.strict, ts=newer.ts)
    if newer.kind == SET and not newer.inserted and older.kind != DELETE:  # replaced where it is
        return newer._replace(order=older.order, inserted=older.inserted)
    return newer


def failed(change: Change, error: SourceError, where: str = "") -> SourceError:
    """Return an error with the document that it is about; ``where``: its namespace."""
    of = f" of {where}" if where else ""
    return SourceError(
        f"the document{of} with the _id {shown_value(change.id)}, last changed at {change.ts}: "
        f"{error.message}",
        id=change.id,
    )


def missing(change: Change, where: str = "") -> SourceError:
    """Return the error for an update of a document that is not there; ``where``: its namespace."""
    of = f" of {where}" if where else ""
    return SourceError(
        f"the log changes the document{of} with the _id {shown_value(change.id)} (last at {change.ts}), "
        "which the base does not have: base and log do not belong together; take a new snapshot",
        id=change.id,
    )
