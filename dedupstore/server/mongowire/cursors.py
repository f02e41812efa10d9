"""Open cursors: answers that go on, found by number, closed when nobody asks for ten minutes.

At most `MOST` are open, and at most `READING` of them read ahead; the others are paused between documents
(what a sort or a group holds stays, within the pool of `dedupstore.query.work`). Threads: any.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from dedupstore.clock import Clock
from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.finding import Answer

IDLE_SECONDS: Final = 600.0
MOST: Final = 200
READING: Final = 8
BATCH_BYTES: Final = 16 << 20
"""Bytes of documents in one answer; a longer document comes alone."""
FIRST_BATCH: Final = 101
"""Documents in the first answer, if the client does not say."""
_HEADERS: Final = tuple(b"\x03%d\0" % number for number in range(4096))


@dataclass(slots=True)
class Batch:
    """Documents of one answer, as the fields of an array."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    number: int = 0


@dataclass(slots=True)
class Cursor:
    """An answer that is under way."""

    answer: Answer
    namespace: str
    left: int | None = None
    """Documents that are still to come at most."""
    id: int = 0
    pending: bytes | None = None
    """A document that did not fit any more."""
    done: bool = False
    used: float = 0.0
    busy: bool = False

    def batch(self, most: int | None, room: int = BATCH_BYTES) -> Batch:
        """Return the next documents, at most so many, and so many bytes. Raises what reading them does."""
        batch = Batch()
        size, number = 0, 0
        answer, add, headers = iter(self.answer), batch.parts.append, len(_HEADERS)
        limit = most if self.left is None else self.left if most is None else min(most, self.left)
        document, self.pending = self.pending, None
        while limit is None or number < limit:
            if document is None:
                document = next(answer, None)
                if document is None:
                    self.done = True
                    break
            header = _HEADERS[number] if number < headers else b"\x03%d\0" % number
            more = len(document) + len(header)
            if size + more > room and number:
                break
            add(header)
            add(document)
            size += more
            number += 1
            document = None
        self.pending = document
        batch.size, batch.number = size, number
        if self.left is not None:
            self.left -= number
            self.done = self.done or self.left == 0
        return batch


class Cursors:
    """Those of one server."""

    def __init__(self, clock: Clock, *, idle: float = IDLE_SECONDS, most: int = MOST) -> None:
        self._clock = clock
        self._idle = idle
        self._most = most
        self._open: OrderedDict[int, Cursor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def keep(self, cursor: Cursor) -> int:
        """Keep a cursor for later, and return its number. Raises `QueryError` if there are too many."""
        self.expire()
        with self._lock:
            if len(self._open) >= self._most:
                raise QueryError(
                    Failure.ExceededMemoryLimit,
                    f"{self._most} cursors are open, which is all that can be: close some, or read them out",
                )
            while not cursor.id or cursor.id in self._open:
                cursor.id = int.from_bytes(self._clock.random(8), "big") >> 1
            self._open[cursor.id] = cursor
            self._rest(cursor)
        return cursor.id

    def take(self, identifier: int, namespace: str) -> Cursor:
        """Return a cursor for use by the caller alone, until `give` or `drop`. Raises `QueryError`."""
        self.expire()
        with self._lock:
            cursor = self._open.get(identifier)
            if cursor is None:
                raise QueryError(Failure.CursorNotFound, f"cursor id {identifier} not found")
            if cursor.namespace != namespace:
                raise QueryError(
                    Failure.Unauthorized,
                    f"Requested getMore on namespace '{namespace}', but cursor belongs to another namespace",
                )
            if cursor.busy:
                raise QueryError(Failure.CursorInUse, f"cursor id {identifier} is already in use")
            cursor.busy = True
            return cursor

    def give(self, cursor: Cursor) -> None:
        """Have a cursor back that goes on."""
        with self._lock:
            cursor.busy = False
            self._rest(cursor)

    def drop(self, cursor: Cursor) -> None:
        """Close a cursor that the caller has taken."""
        with self._lock:
            self._open.pop(cursor.id, None)
        cursor.answer.close()

    def kill(self, identifier: int, namespace: str) -> bool:
        """Close a cursor, unless it is in use; tells whether it was there."""
        with self._lock:
            cursor = self._open.get(identifier)
            if cursor is None or cursor.namespace != namespace or cursor.busy:
                return False
            del self._open[identifier]
        cursor.answer.close()
        return True

    def expire(self, *, everything: bool = False) -> None:
        """Close cursors that nobody has asked for."""
        before = self._clock.monotonic() - self._idle
        with self._lock:
            old = [one for one in self._open.values() if not one.busy and (everything or one.used < before)]
            for one in old:
                del self._open[one.id]
        for one in old:
            one.answer.close()

    def _rest(self, cursor: Cursor) -> None:
        """Note that a cursor was used, and pause those that were not for longest."""
        cursor.used = self._clock.monotonic()
        self._open.move_to_end(cursor.id)
        waiting = [one for one in self._open.values() if not one.busy]
        for one in waiting[:-READING]:
            one.answer.pause()
