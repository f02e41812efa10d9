"""A source of tables: files of lines, cut at line ends, each chunk labelled with its first line's key."""

import hashlib
import itertools
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from dedupstore.errors import SourceError
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.base import Item, Known, Listing, Patch, Stream
from dedupstore.sources.segments import RECORD, pack_segment, unpack_folders, unpack_segment

RUNS = itertools.count()
CHUNK = 3000
"""Bytes after which a chunk ends with the line."""


class LineCutter:
    """Cuts behind the line that makes a chunk `CHUNK` bytes long; the label is what is before the colon."""

    max_size = CHUNK + 1000

    def __init__(self) -> None:
        self.ended = False

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        assert not self.ended
        self.ended = final
        text, start, found = bytes(data), 0, []
        while start < len(text):
            end = text.find(b"\n", start + CHUNK - 1) + 1
            if not end:
                if not final:
                    break
                if not text.endswith(b"\n"):
                    raise SourceError("the table ends inside a line")
                end = len(text)
            found.append((end, text[start : text.index(b":", start)]))
            start = end
        return found


class Lines:
    """A table as a stream."""

    changed = False

    def __init__(self, name: bytes, data: bytes, cutter: LineCutter | None) -> None:
        self.cutter = cutter
        self.closed = False
        self._name = name
        self._data = data
        self._at = 0

    def read_next(self, view: memoryview) -> int:
        assert not self.closed
        data = self._data[self._at : self._at + min(len(view), 70_001)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def finish(self) -> Node:
        return Node(self._name, NodeKind.STREAM, 0o600, size=self._at)

    def close(self) -> None:
        self.closed = True


class Table(Lines):
    def __init__(self, name: bytes, data: bytes) -> None:
        super().__init__(name, data, LineCutter())


class Patched:
    """A patch made of what it is given."""

    def __init__(self, name: bytes, parts: Callable[[], Iterator[Known | Stream]]) -> None:
        self._name = name
        self._parts = parts
        self.closed = False

    def parts(self) -> Iterator[Known | Stream]:
        for part in self._parts():
            yield part
            assert isinstance(part, Known) or part.closed  # type: ignore[attr-defined]

    def finish(self) -> Node:
        return Node(self._name, NodeKind.STREAM, 0o600)

    def close(self) -> None:
        self.closed = True


Entry = Lines | Patched | Node


class TableFolder:
    path = b"/"

    def __init__(self, entries: dict[bytes, Entry], key: bytes, run: int) -> None:
        self._entries = entries
        self._run = run
        self.key = key
        self.unstable: set[bytes] = set()

    def listing(self) -> Listing:
        rows = []
        for name, entry in sorted(self._entries.items()):
            mode = 0o600 if isinstance(entry, Node) else stat.S_IFREG | 0o600
            rows.append((name, RECORD.pack(mode, 1, 7, 8, 0, 0, self._run, -1, 0, 0, 0, 0)))
        return (pack_segment(rows),)

    def items(self, segment: bytes) -> list[Item]:
        return unpack_segment(segment, 0)

    def folders(self, segment: bytes) -> list[Item]:
        return unpack_folders(segment, 0)

    def node(self, item: Item) -> Node:
        entry = self._entries[item.name]
        assert isinstance(entry, Node)
        return entry

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        raise AssertionError("its size is not known")

    def expect(self, items: Sequence[Item]) -> None:
        """Hear the hint."""

    def open(self, item: Item) -> Stream | Patch:
        entry = self._entries[item.name]
        assert not isinstance(entry, Node)
        return entry

    def folder(self, item: Item) -> "TableFolder":
        raise AssertionError("there is none")

    def descends(self, item: Item) -> bool:
        return False

    def close(self) -> None:
        pass


class TableSource:
    all_or_nothing = True
    absent: Sequence[tuple[bytes, SourceError]] = ()

    def __init__(self, *entries: tuple[bytes, Entry], adopts: Sequence[TreeId] = ()) -> None:
        self._entries = dict(entries)
        self.adopts = adopts
        self.spec = SourceSpec("table", (b"/",))
        self.key = hashlib.blake2b(repr(sorted(self._entries)).encode(), digest_size=16).digest()
        self.log: bytes | None = None
        self.moment: datetime | None = None
        self.walked = False
        self._run = next(RUNS)

    def top(self) -> TableFolder:
        self.walked = True
        return TableFolder(self._entries, self.key, self._run)

    def position(self) -> bytes | None:
        assert self.walked
        return self.log

    def instant(self) -> datetime | None:
        assert self.walked
        return self.moment

    def user_name(self, uid: int) -> bytes | None:
        return b"user"

    def group_name(self, gid: int) -> bytes | None:
        return None

    def close(self) -> None:
        pass


def table(first: int, last: int, text: bytes = b"some text to fill a line with") -> bytes:
    """Return the lines of these keys."""
    return b"".join(b"%06d:%s %d\n" % (key, text, key * key) for key in range(first, last))
