"""One cursor at one node: batches of raw documents, back to back, without the array around them.

A reply is ``{cursor: {id, ns, firstBatch | nextBatch: [document, ...]}, ...}``. The documents in it are
copied out in one piece; nothing in them is looked at but their length and last byte. ``_batch.c`` does that
without the interpreter's lock; the Python is the definition.
"""

import contextlib
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple, Self

from bson.int64 import Int64

from dedupstore.errors import DedupstoreError, SourceError
from dedupstore.model import Data
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.client import Body, Node, Session

_native: ModuleType | None
try:
    from dedupstore.sources.mongo import _batch as _native
except ImportError:
    _native = None

_LENGTH = struct.Struct("<i")
_DECADES = (0, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SMALL_BATCH = 1000
"""Documents a reply, where they are small ones: catalogs, samples."""


class Batch(NamedTuple):
    """What one reply held."""

    data: bytes
    """Whole documents, one behind the other."""
    number: int
    last: int
    """Where the last of them begins; 0 if there is none."""


NOTHING = Batch(b"", 0, 0)


def unpacked(array: Data) -> Batch:
    """Return the documents of a raw BSON array, one behind the other. Raises `SourceError`."""
    found = _native.unpack(array) if _native is not None else None
    return unpacked_plain(array) if found is None else Batch(*found)


def unpacked_plain(array: Data) -> Batch:
    """Do the same in Python: the definition of `unpacked`."""
    data = bytes(array)
    end = raw.document_at(data, 0) - 1
    parts: list[bytes] = []
    at, size, number = 4, 0, 0
    read, keep = _LENGTH.unpack_from, parts.append
    for digits in range(1, len(_DECADES)):
        header = 2 + digits  # type byte, the position in decimal, NUL
        following = _DECADES[digits]
        while at < end and number < following:
            start = at + header
            if data[at] != raw.OBJECT or start + raw.DOCUMENT_MIN > end or data[start - 1]:
                raise _odd(at)
            size = read(data, start)[0]
            at = start + size
            if size < raw.DOCUMENT_MIN or at > end or data[at - 1]:
                raise _odd(start)
            keep(data[start:at])
            number += 1
    if at != end:
        raise _odd(at)
    joined = b"".join(parts)
    return Batch(joined, number, len(joined) - size if number else 0)


def _odd(at: int) -> SourceError:
    return SourceError(
        f"a server's reply is no array of documents (byte {at}): it may be damaged on its way, run it again"
    )


class Cursor:
    """A cursor on a collection or command; use it in a ``with`` block. One thread.

    Memory: one reply. Raises what `Node.command` raises, and `SourceError` for damaged replies.
    """

    def __init__(
        self, node: Node, db: str, body: Body, doing: str, *, size: int = SMALL_BATCH, session: Session = None
    ) -> None:
        """``body``: the first command, without a batch size. ``size``: documents a reply; 0: what fits."""
        self._node = node
        self._db = db
        self._doing = doing
        self._size = size
        self._session = session
        self._id = 0
        self._collection = ""
        self._first: Batch | None = self._open(body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the server may have more."""
        return self._id != 0

    def batch(self, wait: float = 0.0) -> Batch:
        """Return the next reply's documents, `NOTHING` at the end.

        Of a tailable cursor that waits for data the server returns after ``wait`` seconds at the latest, with
        nothing if there was nothing.
        """
        if self._first is not None:
            batch, self._first = self._first, None
            return batch
        if not self._id:
            return NOTHING
        body: dict[str, Any] = {"getMore": Int64(self._id), "collection": self._collection}
        if self._size:
            body["batchSize"] = self._size
        if wait:
            body["maxTimeMS"] = int(wait * 1000)
        opened, self._id = self._id, 0  # one that failed is not closed: that would wait for the same server
        reply = self._node.command(self._db, body, self._doing, self._session)
        self._id = opened
        return self._take(reply, b"nextBatch")

    def batches(self) -> Iterator[Batch]:
        """Yield every reply that holds documents."""
        while True:
            batch = self.batch()
            if batch.number:
                yield batch
            if not self._id:
                return

    def documents(self) -> Iterator[bytes]:
        """Yield every document."""
        for batch in self.batches():
            yield from raw.documents(batch.data)

    def close(self) -> None:
        """Tell the server that nobody wants more; a second call does nothing."""
        if not self._id:
            return
        body = {"killCursors": self._collection, "cursors": [Int64(self._id)]}
        self._id = 0
        with contextlib.suppress(DedupstoreError):  # it ends by itself after some minutes
            self._node.command(self._db, body, "closing a cursor", self._session)

    def _open(self, body: Body) -> Batch:
        opening = dict(body)
        if "find" in opening:
            if self._size:
                opening["batchSize"] = self._size
        else:
            opening["cursor"] = {"batchSize": self._size} if self._size else {}
        return self._take(self._node.command(self._db, opening, self._doing, self._session), b"firstBatch")

    def _take(self, reply: bytes, name: bytes) -> Batch:
        at = raw.field(reply, b"cursor")
        if at is None or at.type != raw.OBJECT:
            raise _odd(0)
        batch: Batch | None = None
        self._id = 0
        for element in raw.elements(reply, at.start):
            if element.name == name:
                batch = unpacked(memoryview(reply)[element.start : element.end])
            elif element.name == b"id":
                self._id = raw.int_of(element.type, reply[element.start : element.end])
            elif element.name == b"ns" and element.type == raw.STRING:
                namespace = raw.text_of(reply[element.start : element.end]).decode("utf-8", "surrogateescape")
                self._collection = namespace.partition(".")[2]
        if batch is None:
            raise _odd(0)
        return batch
