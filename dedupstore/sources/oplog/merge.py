"""Documents of a base and changes of a log, joined.

`merge` takes both in order of ``_id`` and gives the result in that order. A capped collection has another
order, that of insertion (`merge_natural`): documents of the base stay where they are while they are changed,
what the log inserts goes to the end, in its order. Servers may remove the oldest documents of a capped
collection without logging it; so the result is cut at the front to what its options allow (`trimmed`), which
is the most that a server keeps.

Lazy; memory: one document and its change, and for a capped collection all changes of documents that the
base may have. Raises `SourceError` for an update of a document that is not there, naming it.
"""

import struct
from collections.abc import Callable, Iterator

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.change import DELETE, SET, Change, failed, missing
from dedupstore.sources.oplog.compose import patch_of
from dedupstore.sources.oplog.definitions import field_of

_ENDLESS = 1 << 62
_ROUNDED = 256
"""Servers round the size of a capped collection up to a multiple of this, in bytes."""


def merge(
    base: Iterator[bytes], changes: Iterator[Change], *, fuzzy: bool, where: str = ""
) -> Iterator[bytes]:
    """Yield the documents of a base after changes; both in order of keys, each key once.

    ``fuzzy``: an update of a document that is not there is passed over unless it is strict. ``where``: the
    namespace, for messages.
    """
    change = next(changes, None)
    before = b""
    for document in base:
        if change is None:
            yield document
            yield from base
            return
        key = sort_key(raw.id_of(document))
        if key < before:
            raise SourceError(
                f"the base of {where or 'a collection'} is not in order of _id: take a new snapshot"
            )
        before = key
        while change is not None and change.key < key:
            yield from _without_base(change, fuzzy, where)
            change = next(changes, None)
        if change is not None and change.key == key:
            after = applied(change, document, where)
            if after is not None:
                yield after
            change = next(changes, None)
        else:
            yield document
    while change is not None:
        yield from _without_base(change, fuzzy, where)
        change = next(changes, None)


def applied(change: Change, document: bytes | None, where: str = "", *, fuzzy: bool = False) -> bytes | None:
    """Return what a document of the base (None: there is none) has become; None: it is not there.

    Raises `SourceError` as `merge` does, and for an update that can not be applied.
    """
    if change.kind == SET:
        return change.documents[0]
    if change.kind == DELETE:
        return None
    if document is None:
        if fuzzy and not change.strict:
            return None
        raise missing(change, where)
    try:
        return patch_of(change.documents).apply(document)
    except SourceError as error:
        raise failed(change, error, where) from error


def _without_base(change: Change, fuzzy: bool, where: str) -> Iterator[bytes]:
    document = applied(change, None, where, fuzzy=fuzzy)
    if document is not None:
        yield document


def merge_natural(
    base: Iterator[bytes], changes: Callable[[], Iterator[Change]], *, where: str = ""
) -> Iterator[bytes]:
    """Yield the documents of a capped base after changes, both in order of insertion.

    ``changes`` is called twice. An update of what is not there is passed over: the oldest documents may have
    gone without a word.
    """
    pending = {
        change.key: change._replace(documents=()) if change.inserted else change for change in changes()
    }
    for document in base:
        key = sort_key(raw.id_of(document))
        change = pending.get(key)
        if change is None:
            yield document
        elif not change.inserted:
            after = applied(change, document, where)
            if after is not None:
                yield after
    for change in changes():
        if change.inserted:
            yield change.documents[0]


def limits_of(options: bytes) -> tuple[int | None, int | None]:
    """Return how many bytes and how many documents a capped collection may hold; None: any number."""
    size, count = (_number(options, name) for name in (b"size", b"max"))
    return (None if size is None else -(-size // _ROUNDED) * _ROUNDED), count


def _number(options: bytes, name: bytes) -> int | None:
    found = field_of(options, name)
    if found is None:
        return None
    kind, value = found
    if kind == raw.DOUBLE:
        number = struct.unpack("<d", value)[0]
        return int(number) if 1 <= number < _ENDLESS else None
    number = raw.int_of(kind, value)
    return number if number > 0 else None


def trimmed(documents: Callable[[], Iterator[bytes]], size: int | None, count: int | None) -> Iterator[bytes]:
    """Yield documents without so many of the first that no more than ``size`` bytes and ``count`` are left.

    ``documents`` is called twice, unless there is no limit.
    """
    if size is None and count is None:
        yield from documents()
        return
    total = number = 0
    for document in documents():
        total += len(document)
        number += 1
    for document in documents():
        if (size is not None and total > size) or (count is not None and number > count):
            total -= len(document)
            number -= 1
        else:
            yield document
