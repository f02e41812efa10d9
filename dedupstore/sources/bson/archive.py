"""An archive of mongodump (``--archive``, also ``--gzip``), taken apart into its collections.

An archive holds the documents of several namespaces in turns. It is read through once to learn where the
pieces of each lie, with everything checked: structure, field sets, every namespace's end and CRC, that
nothing of what the prelude promises is missing. After that each namespace is read by itself, as a stream,
and its CRC is checked again. What can not be read twice (a pipe, gzip) goes into a temporary file meanwhile.

Disk: the unpacked archive, for pipes and gzip alone. Memory: two of the largest documents or 8 MiB, the
prelude, and 16 bytes a piece (mongodump writes pieces of up to 16 MiB). One thread. Layout: `prelude`.
"""

import os
import stat
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dedupstore.errors import SourceChanged, SourceError
from dedupstore.sources.bson import buffers, raw
from dedupstore.sources.bson.crc64 import crc64
from dedupstore.sources.bson.feed import Fill, behind, fill_up
from dedupstore.sources.bson.gunzip import MAGIC as GZIP
from dedupstore.sources.bson.gunzip import Gunzip
from dedupstore.sources.bson.prelude import (
    MAGIC,
    TERMINATOR,
    Entry,
    Namespace,
    Prelude,
    decode_entry,
    decode_header,
    decode_segment_header,
)
from dedupstore.sources.bson.spill import Spill

WINDOW = 4 * 1024 * 1024
_STEP = "take the archive again, or back the file up as it is (without --archive)"


@dataclass(slots=True)
class Body:
    """Where the documents of one namespace lie."""

    pieces: "array[int]" = field(default_factory=lambda: array("q"))
    """Start and end of each, bytes from the start of the (unpacked) archive; what adjoins is one."""
    size: int = 0
    documents: int = 0
    crc: int = 0
    ended: bool = False

    def add(self, start: int, size: int, count: int) -> None:
        """Note a piece."""
        if self.pieces and self.pieces[-1] == start:
            self.pieces[-1] += size
        else:
            self.pieces.extend((start, start + size))
        self.size += size
        self.documents += count


class Archive:
    """An archive open for reading. Its prelude is read at once, the rest when `bodies` is asked for.

    ``fd`` is read from where it stands and stays the caller's; ``where`` names it in messages; ``folder``
    takes the temporary file (``None``: where the system has such). Close it in every case.
    Raises `SourceError` for what is no archive, or one of a later format.
    """

    def __init__(self, fd: int, where: str, *, folder: Path | None = None) -> None:
        self._where = where
        self._spill: Spill | None = None
        self._bodies: Mapping[Namespace, Body] | None = None
        self._fd = fd
        self._base = os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(os.fstat(fd).st_mode) else 0
        fill = _descriptor(fd, where)
        head = memoryview(bytearray(len(GZIP)))
        fill = behind(bytes(head[: fill_up(fill, head)]), fill)
        packed = head == GZIP
        if packed:
            fill = Gunzip(fill, where).fill
        try:
            if packed or not stat.S_ISREG(os.fstat(fd).st_mode):
                self._spill = Spill(folder)
                self._fd, self._base = self._spill.fd, 0
                fill = _copied(fill, self._spill)
            self._window = _Window(fill)
            self.prelude = _read_prelude(self._window, where)
        except BaseException:
            self.close()
            raise

    def bodies(self) -> Mapping[Namespace, Body]:
        """Read the archive to its end, once; return what it holds by namespace.

        Raises `SourceError` for anything wrong in it, naming the namespace and the offset.
        """
        if self._bodies is None:
            self._bodies = _Index(self._window, self.prelude, self._where).read()
        return self._bodies

    def feed(self, namespace: Namespace) -> Fill:
        """Return a reader of one namespace's documents; it raises `SourceChanged` if they are others now."""
        body = self.bodies().get(namespace, Body())
        return _BodyFeed(self._fd, self._base, body, f"{self._where}: {namespace}").fill

    def close(self) -> None:
        """Give the temporary file back; a second call does nothing."""
        if self._spill is not None:
            self._spill.close()


class _Window:
    """What was read of an archive and not looked at yet."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self._data = bytearray(WINDOW)
        self._at = self._used = 0
        self.offset = 0
        """Where the window begins, bytes from the start of the archive."""

    @property
    def view(self) -> memoryview:
        """All that is here; valid until more is read."""
        return memoryview(self._data)[self._at : self._used]

    def has(self, size: int) -> bool:
        """Read on until that much is here; says whether there is that much."""
        while self._used - self._at < size:
            rest = self._data[self._at : self._used]
            if len(self._data) < size:
                self._data = bytearray(max(size, 2 * len(self._data)))
            self._data[: len(rest)] = rest
            self._at, self._used = 0, len(rest)
            found = self._fill(memoryview(self._data)[self._used :])
            if not found:
                return False
            self._used += found
        return True

    def drop(self, size: int) -> None:
        """Go on by so many bytes, which must be here."""
        self._at += size
        self.offset += size

    def document(self) -> memoryview | None:
        """Return the document that begins here, without going on; None if none does, or it is cut short."""
        if not self.has(4):
            return None
        size = int.from_bytes(self.view[:4], "little")
        if not raw.DOCUMENT_MIN <= size <= raw.DOCUMENT_MAX or not self.has(size) or self.view[size - 1]:
            return None
        return self.view[:size]


class _Index:
    """The one pass over everything behind the prelude."""

    def __init__(self, window: _Window, prelude: Prelude, where: str) -> None:
        self._window = window
        self._where = where
        self._expected = {prelude.data_of(entry): entry for entry in prelude.entries}
        self._bodies: dict[Namespace, Body] = {}

    def read(self) -> Mapping[Namespace, Body]:
        """Read on to the end of the archive."""
        while self._window.has(1):
            document = self._window.document()
            if document is None:
                raise self._wrong("the archive", "does not go on with the header of a segment")
            try:
                header = decode_segment_header(document)
            except SourceError as error:
                raise self._wrong(
                    "the archive", f"has no header of a segment where one belongs: {error}"
                ) from error
            body = self._body(header.namespace)
            self._window.drop(len(document))
            if not header.ends:
                self._documents(header.namespace, body)
                continue
            if not self._window.has(4) or self._window.view[:4] != TERMINATOR:
                raise self._wrong(header.namespace, "has no terminator behind its end")
            if header.crc != body.crc:
                raise self._wrong(
                    header.namespace, f"has the CRC {body.crc:016x}, and the archive says {header.crc:016x}"
                )
            self._window.drop(4)
            body.ended = True
        for namespace in self._expected:
            if namespace not in self._bodies or not self._bodies[namespace].ended:
                raise self._wrong(namespace, "is not complete where the archive ends")
        return self._bodies

    def _body(self, namespace: Namespace) -> Body:
        if namespace not in self._expected:
            raise self._wrong(namespace, "is not in the archive's list of collections")
        body = self._bodies.setdefault(namespace, Body())
        if body.ended:
            raise self._wrong(namespace, "goes on behind its end")
        return body

    def _documents(self, namespace: Namespace, body: Body) -> None:
        """Read the documents of one segment."""
        window = self._window
        while True:
            view = window.view
            found = buffers.whole(view)
            if found.end:
                body.crc = crc64(view[: found.end], body.crc)
                body.add(window.offset, found.end, found.documents)
                window.drop(found.end)
            if window.has(4) and window.view[:4] == TERMINATOR:
                window.drop(4)
                return
            if window.document() is None:
                raise self._wrong(namespace, "goes on with neither a document nor a terminator")

    def _wrong(self, what: object, how: str) -> SourceError:
        offset = self._window.offset
        return SourceError(f"{self._where}: {what} {how} (byte {offset}): {_STEP}", offset=offset)


class _BodyFeed:
    """The documents of one namespace, piece by piece."""

    def __init__(self, fd: int, base: int, body: Body, where: str) -> None:
        self._fd = fd
        self._body = body
        self._where = where
        self._left = deque(zip(body.pieces[::2], body.pieces[1::2], strict=True))
        self._base = base
        self._at = self._end = 0
        self._crc = 0

    def fill(self, view: memoryview) -> int:
        """Put the next bytes at the start of ``view``; returns how many, 0 at the end."""
        if self._at == self._end:
            if not self._left:
                if self._crc != self._body.crc:
                    raise self._changed()
                return 0
            self._at, self._end = self._left.popleft()
        try:
            size = os.preadv(self._fd, (view[: self._end - self._at],), self._base + self._at)
        except OSError as error:
            raise _unreadable(self._where, error) from error
        if not size:
            raise self._changed()
        self._crc = crc64(view[:size], self._crc)
        self._at += size
        return size

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self._where} changed while it was read: back it up again at rest")


def _read_prelude(window: _Window, where: str) -> Prelude:
    """Read up to the first segment."""
    if not window.has(len(MAGIC)) or window.view[: len(MAGIC)] != MAGIC:
        raise SourceError(f"{where} is no archive of mongodump: name one, or back it up as a file")
    window.drop(len(MAGIC))
    prelude: Prelude | None = None
    entries: list[Entry] = []
    while not (prelude and window.has(4) and window.view[:4] == TERMINATOR):
        document = window.document()
        if document is None:
            raise SourceError(
                f"{where} ends, or is damaged, before its first collection (byte {window.offset}): {_STEP}"
            )
        try:
            if prelude is None:
                prelude = decode_header(document)
            else:
                entries.append(decode_entry(document))
        except SourceError as error:
            raise SourceError(f"{where}: {error} (byte {window.offset}): {_STEP}") from error
        window.drop(len(document))
    window.drop(len(TERMINATOR))
    if len({entry.namespace for entry in entries}) < len(entries):
        raise SourceError(f"{where} lists a collection twice: {_STEP}")
    return replace(prelude, entries=tuple(entries))


def _descriptor(fd: int, where: str) -> Fill:
    def fill(view: memoryview) -> int:
        try:
            return os.readv(fd, (view,))
        except OSError as error:
            raise _unreadable(where, error) from error

    return fill


def _copied(fill: Fill, spill: Spill) -> Fill:
    """Return a reader that also keeps what it reads."""

    def copied(view: memoryview) -> int:
        size = fill(view)
        spill.append(view[:size])
        return size

    return copied


def _unreadable(where: str, error: OSError) -> SourceError:
    reason = os.strerror(error.errno or 0)
    return SourceError(f"{where} can not be read ({reason}): check the file system and the system's log")
