"""One file of documents as a stream of a source: unpacked, put in order, cut into leaves."""

from pathlib import Path
from typing import Protocol

import msgspec

from dedupstore.errors import SourceError
from dedupstore.model import Node
from dedupstore.sources.bson.attempt import Attempt, Way
from dedupstore.sources.bson.collection import EXTRA
from dedupstore.sources.bson.extsort import SortedFeed
from dedupstore.sources.bson.feed import Watched
from dedupstore.sources.bson.gunzip import Gunzip


class Origin(Protocol):
    """Where the bytes of a file lie: what `Stream` is without a cutter."""

    @property
    def changed(self) -> bool:
        """As in `Stream`."""
        ...

    def read_next(self, view: memoryview) -> int:
        """As in `Stream`."""
        ...

    def finish(self) -> Node:
        """As in `Stream`."""
        ...

    def close(self) -> None:
        """As in `Stream`."""
        ...


class DocumentStream:
    """A file that may hold a collection; see `dedupstore.sources.base.Stream`.

    ``origin`` is closed with it. ``packed`` says that its bytes are gzip. ``name`` is its node's.
    ``folder`` takes temporary files. Memory: `extsort.MEMORY` where documents have to be put in order.
    """

    def __init__(
        self, origin: Origin, attempt: Attempt, *, packed: bool, name: bytes, folder: Path | None
    ) -> None:
        self._origin = origin
        self._attempt = attempt
        self._name = name
        self._hole = 0
        self._size = 0
        self._source = Watched(self._read_origin)
        self._unpacked = self._source
        if packed and attempt.way != Way.PACKED:
            self._unpacked = Watched(Gunzip(self._source.fill, attempt.where).fill)
        self._sorted = SortedFeed(self._unpacked.fill, folder) if attempt.way == Way.SORTED else None
        self._fill = self._sorted.fill if self._sorted is not None else self._unpacked.fill
        self.cutter = attempt.cutter()

    @property
    def changed(self) -> bool:
        """Whether it changed while it was read."""
        return self._origin.changed

    def read_next(self, view: memoryview) -> int:
        """Read on; never tells of holes. Raises `SourceError`, and `StartAgain` to be read in another way."""
        self._attempt.tell()
        try:
            size = self._fill(view)
        except SourceError as error:
            if error is self._source.failure:
                raise
            if error is self._unpacked.failure:
                raise self._attempt.unpacked_badly(error) from error
            raise self._attempt.misread(error) from error
        self._size += size
        return size

    def finish(self) -> Node:
        """Return the node, with the facts of the collection if it is one."""
        node = self._origin.finish()
        extra = node.extra
        if self.cutter is not None:
            extra = {**(extra or {}), EXTRA: self.cutter.facts().pack()}
        return msgspec.structs.replace(node, name=self._name, size=self._size, extra=extra)

    def close(self) -> None:
        """Give back the origin and temporary files; a second call does nothing."""
        if self._sorted is not None:
            self._sorted.close()
        self._origin.close()

    def _read_origin(self, view: memoryview) -> int:
        """Read on, with zeros for holes."""
        if not self._hole:
            size = self._origin.read_next(view)
            if size >= 0:
                return size
            self._hole = -size
        size = min(self._hole, len(view))
        view[:size] = bytes(size)
        self._hole -= size
        return size
