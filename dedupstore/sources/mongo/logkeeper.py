"""The log of the time that collections are read in, kept beside them as it comes.

It is read while the collections are, not afterwards: by then the server may have thrown its beginning away.
The entries go to a file without a name, in plain text, in the folder for temporary files; they are gone when
the run ends, however it ends. Memory: one reply.
"""

import os
import tempfile
import threading
from itertools import islice
from pathlib import Path
from typing import IO

from dedupstore.errors import DedupstoreError, SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.client import Deployment
from dedupstore.sources.mongo.oplog import Dialect, OplogTail, Why, has_entries
from dedupstore.sources.oplog.entry import COMMAND, NOOP
from dedupstore.sources.oplog.position import Position, Ts, header_of

_POLL = 0.2
_PAUSE_MAX = 3.0
_ATTEMPTS = 100
_END_SECONDS = 5.0
_NOOP, _COMMAND = raw.string(NOOP), raw.string(COMMAND)
_OF_TRANSACTIONS = frozenset((b"applyOps", b"commitTransaction", b"abortTransaction"))


class LogKeeper:
    """Follows the log in a thread of its own, from an entry not after ``start`` on.

    `begin`, then `finish`, then `read_at`; close it in every case. Those belong to one thread.
    """

    def __init__(
        self,
        deployment: Deployment,
        start: Position,
        *,
        mark: Ts,
        temporary: Path | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """``mark``: an instant that the log may be wanted up to, instead of all of it."""
        self._deployment = deployment
        self._tail = OplogTail(deployment, start, exact=False, dialect=dialect)
        self._mark = mark
        self._start = start
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=temporary, prefix="dstore-log-")  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._changed = threading.Condition()
        self._stopped = False
        self._error: DedupstoreError | None = None
        self._asked = self._answered = 0
        self._kept = self._to_mark = Kept(0, 0, start, 0)
        self.written = False
        """After `finish`: whether anything was written behind the mark."""
        self.catalog_changed = False
        """After `finish`: whether collections or indexes were created, dropped or changed behind the mark."""

    @property
    def failure(self) -> DedupstoreError | None:
        """Why the log can not be followed any further, if it can not."""
        return self._error

    def begin(self) -> None:
        """Start following. Raises `AccessError` or `SourceError` if the log can not be read from there."""
        self._poll(0)
        self._thread.start()

    def finish(self, until: Ts) -> "Kept":
        """Wait until the log is kept up to ``until``, stop, and return all that is kept.

        Raises `SourceError` if the log could not be followed without a hole.
        """
        for _ in range(_ATTEMPTS):
            self._sweep(until)
            if self._error is not None or self._kept.end.ts >= until:
                break
            # Servers that count on between entries have none of exactly that timestamp.
            node = self._deployment.node()
            if not node.facts.mongod or not has_entries(node, self._kept.end.ts, until):
                break
        else:
            raise SourceError(
                f"the log did not come up to {until}: see the server's own log and run it again"
            )
        with self._changed:
            self._stopped = True
            if self._error is not None:
                raise self._error
            return self._kept

    def up_to_mark(self) -> "Kept":
        """After `finish`: return what is kept up to the mark."""
        return self._to_mark

    def read_at(self, offset: int, view: memoryview) -> int:
        """Read what was kept from ``offset`` on; returns how many bytes."""
        try:
            return os.preadv(self._file.fileno(), [view], offset)
        except OSError as error:
            raise _no_room(error) from error

    def close(self) -> None:
        """Stop and forget; a second call does nothing."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_END_SECONDS)
        self._file.close()

    def _sweep(self, until: Ts) -> None:
        """Have the log asked once more, from now on, and wait until it had nothing or came to ``until``."""
        with self._changed:
            self._asked += 1
            asked = self._asked
            self._changed.notify_all()
            while self._error is None and self._kept.end.ts < until and self._answered < asked:
                self._changed.wait(_POLL)

    def _work(self) -> None:
        pause = _POLL
        try:
            while not self._stopped:
                asked = self._asked
                if self._poll(_POLL):
                    pause = _POLL
                    continue
                with self._changed:
                    self._answered = asked
                    self._changed.notify_all()
                    if not self._stopped and self._asked == asked:
                        self._changed.wait(pause)  # a log in which nothing happens need not be asked often
                pause = min(2 * pause, _PAUSE_MAX)
        except DedupstoreError as error:
            self._fail(error)
        except (OSError, ValueError) as error:  # a file that was closed meanwhile is a ValueError
            self._fail(_no_room(error))
        finally:
            self._tail.close()

    def _poll(self, wait: float) -> bool:
        """Keep what is new; say whether anything was."""
        entries = self._tail.poll(wait)
        if self._tail.broken is not None:
            raise self._hole()
        self._keep(entries)
        return bool(entries)

    def _keep(self, entries: list[bytes]) -> None:
        kept, marked = self._kept, self._to_mark
        for entry in entries:
            position, wall = header_of(entry)
            kept = kept.more(entry, position, wall)
            if position.ts <= self._mark:
                marked = kept
            elif not self.catalog_changed:
                self._note(entry)
        if not entries:
            return
        self._file.write(b"".join(entries))
        self._file.flush()
        with self._changed:
            if not self._stopped:
                self._kept, self._to_mark = kept, marked
            self._changed.notify_all()

    def _note(self, entry: bytes) -> None:
        """Note what an entry behind the mark does."""
        found = raw.field(entry, b"op")
        op = entry[found.start : found.end] if found is not None else b""
        self.written = self.written or op != _NOOP
        if op == _COMMAND:
            operation = raw.field(entry, b"o")
            names = raw.elements(entry, operation.start) if operation and operation.type == raw.OBJECT else ()
            self.catalog_changed = any(element.name not in _OF_TRANSACTIONS for element in islice(names, 1))

    def _fail(self, error: DedupstoreError) -> None:
        with self._changed:
            if not self._stopped:
                self._error = error
            self._changed.notify_all()

    def _hole(self) -> SourceError:
        broken = self._tail.broken
        assert broken is not None
        if broken.why is Why.TOO_OLD:
            return SourceError(
                f"the server's log is too short: it begins at {broken.oldest} and {broken.wanted} is needed; "
                "make it larger (replSetResizeOplog) and run it again"
            )
        return SourceError(
            f"the set rolled back the operation at {broken.wanted} while it was read: run it again"
        )


class Kept:
    """A stretch of the log that is kept: what it holds, without reading it."""

    __slots__ = ("end", "entries", "size", "start", "wall")

    def __init__(
        self, size: int, entries: int, end: Position, wall: int, start: Position | None = None
    ) -> None:
        self.size = size
        """Bytes."""
        self.entries = entries
        self.start = start or end
        """The first entry; where there is none, what was asked for."""
        self.end = end
        """The last entry, likewise."""
        self.wall = wall
        """Latest time of day in it, milliseconds since 1970; 0: none."""

    def more(self, entry: bytes, position: Position, wall: int) -> "Kept":
        """Return this with one entry more."""
        start = self.start if self.entries else position
        return Kept(self.size + len(entry), self.entries + 1, position, max(self.wall, wall), start)


def _no_room(error: OSError | ValueError) -> SourceError:
    reason = ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
    return SourceError(
        f"the log can not be kept in the folder for temporary files, {reason}: free space there, or name "
        "another folder"
    )
