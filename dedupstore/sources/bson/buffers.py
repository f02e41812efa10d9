"""Buffers of whole documents, one behind the other: where they end, and how several become one in order.

The Python is the definition; ``_buffers.c`` does the same without the interpreter's lock wherever ``_id`` is
the first field and of a usual type, and asks `key_of` for the others. Pure functions, safe from any thread.
Memory of `merge`: some 100 bytes a document (native), 300 (Python).
"""

import struct
from collections.abc import Sequence
from operator import itemgetter
from types import ModuleType
from typing import NamedTuple

from dedupstore.model import Data
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key

_native: ModuleType | None
try:
    from dedupstore.sources.bson import _buffers as _native
except ImportError:
    _native = None

_LENGTH = struct.Struct("<i")
_ANY = 1 << 40


class Whole(NamedTuple):
    """The whole documents at the front of a buffer."""

    end: int
    """Where they end; 0 if there is none."""
    documents: int
    last: int
    """Where the last of them begins."""
    largest: int
    """Bytes."""


class Merged(NamedTuple):
    """What `merge` did."""

    size: int
    """Bytes written."""
    consumed: tuple[int, ...]
    """Bytes taken from the front of each part."""


def key_of(document: bytes) -> bytes:
    """Return what a document is sorted by; ``b""`` if it has no ``_id``. Raises `SourceError`."""
    return sort_key(raw.id_of(document))


def whole_plain(data: Data, most: int = _ANY) -> Whole:
    """Return the whole documents at the front of ``data``, at most ``most``: the definition of `whole`.

    A document is whole if its length is possible, all of it is there, and it ends in NUL.
    """
    view = memoryview(data).cast("B")
    at = count = last = largest = 0
    while count < most and len(view) - at >= raw.DOCUMENT_MIN:
        size = _LENGTH.unpack_from(view, at)[0]
        if not raw.DOCUMENT_MIN <= size <= min(len(view) - at, raw.DOCUMENT_MAX) or view[at + size - 1]:
            break
        at, count, last, largest = at + size, count + 1, at, max(largest, size)
    return Whole(at, count, last, largest)


def merge_plain(parts: Sequence[Data], bound: bytes | None, out: memoryview) -> Merged:
    """Write the documents of ``parts`` in order of keys into ``out``; this is the definition of `merge`."""
    found: list[tuple[bytes, memoryview]] = []
    consumed = [0] * len(parts)
    for number, part in enumerate(parts):
        view, at = memoryview(part).cast("B"), 0
        while at < len(view):
            end = raw.document_at(view, at)
            key = key_of(bytes(view[at:end]))
            if bound is None or key <= bound:
                found.append((key, view[at:end]))
                consumed[number] = end
            at = end
    found.sort(key=itemgetter(0))
    size = 0
    for _, document in found:
        out[size : size + len(document)] = document
        size += len(document)
    return Merged(size, tuple(consumed))


def whole(data: Data, most: int = _ANY) -> Whole:
    """Return as `whole_plain` does, by the native code if it was built."""
    return Whole(*_native.whole(data, most)) if _native is not None else whole_plain(data, most)


def merge(parts: Sequence[Data], bound: bytes | None, out: memoryview) -> Merged:
    """Write the documents of ``parts`` in order of keys into ``out``, which is as large as all of them.

    Equal keys stay in order of parts and places. With a ``bound``, only documents whose key is not above it
    are taken; each part must be sorted then. Parts hold whole documents and nothing else.
    Raises `SourceError` for a document whose ``_id`` can not be made out.
    """
    if _native is None:
        return merge_plain(parts, bound, out)
    return Merged(*_native.merge(parts, bound, out, key_of))
