"""Writing an archive as mongodump does, so that ``mongorestore --archive`` takes it. Layout: `prelude`.

Namespaces may be written one after the other or in turns. mongorestore keeps one consumer an open namespace,
and stops dead where more are open than it was told: `Prelude.concurrent` says how many there will be.
"""

from typing import Protocol

from dedupstore.errors import TargetError
from dedupstore.model import Data
from dedupstore.sources.bson import buffers
from dedupstore.sources.bson.crc64 import crc64
from dedupstore.sources.bson.prelude import (
    TERMINATOR,
    Namespace,
    Prelude,
    SegmentHeader,
    encode_prelude,
    encode_segment_header,
)


class Output(Protocol):
    """Anything that takes bytes: a file, a pipe, a ``GzipFile`` for what ``--gzip`` reads."""

    def write(self, data: Data, /) -> object:
        """Take all of them."""
        ...


class ArchiveWriter:
    """One archive on its way to ``out``, which stays the caller's. One thread; keeps no documents.

    Raises `TargetError` for what no archive can hold, and what ``out`` raises.
    """

    def __init__(self, out: Output, prelude: Prelude) -> None:
        self._out = out
        self._concurrent = max(prelude.concurrent, 1)
        self._waiting = dict.fromkeys(prelude.data_of(entry) for entry in prelude.entries)
        self._open: dict[Namespace, int] = {}
        """CRC of each that has begun."""
        self._current: Namespace | None = None
        out.write(encode_prelude(prelude))

    def write(self, namespace: Namespace, documents: Data) -> None:
        """Write documents of a namespace that `Prelude.data_of` gives for an entry; whole, one or many."""
        view = memoryview(documents).cast("B")
        if buffers.whole(view).end != len(view):
            raise TargetError(f"{namespace} has a document that no archive can hold: use a dump folder")
        crc = self._begin(namespace)
        if namespace != self._current:
            self._close_segment()
            self._out.write(encode_segment_header(SegmentHeader(namespace)))
            self._current = namespace
        self._out.write(view)
        self._open[namespace] = crc64(view, crc)

    def end(self, namespace: Namespace) -> None:
        """Say that a namespace is complete; one that was never written is empty, or a view."""
        crc = self._begin(namespace)
        self._close_segment()
        self._out.write(encode_segment_header(SegmentHeader(namespace, ends=True, crc=crc)))
        self._out.write(TERMINATOR)
        del self._open[namespace]

    def finish(self) -> None:
        """End everything that the prelude lists; then the archive is complete."""
        for namespace in [*self._open, *self._waiting]:
            self.end(namespace)

    def _begin(self, namespace: Namespace) -> int:
        """Return the CRC so far of a namespace, which may be new."""
        if namespace not in self._open:
            if namespace not in self._waiting or len(self._open) == self._concurrent:
                raise TargetError(
                    f"{namespace} can not be written now: it was not announced, or has ended; report this"
                )
            del self._waiting[namespace]
            self._open[namespace] = 0
        return self._open[namespace]

    def _close_segment(self) -> None:
        if self._current is not None:
            self._out.write(TERMINATOR)
            self._current = None
