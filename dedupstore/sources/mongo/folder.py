"""A server as the folders that mongodump would write of it; see `dedupstore.sources.base.Folder`.

::

    prelude.json                 versions of the server and of this program
    oplog.bson                   the log of the time of reading, where the server has one; read after all else
    <db>/<name>.bson             documents, raw
    <db>/<name>.metadata.json    options, indexes, UUID

No listing ever equals an earlier one: what a server has can be known only by reading it.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Item, Listing, Stream
from dedupstore.sources.made import MadeFolder, segments_of
from dedupstore.sources.segments import RECORD

FILE_MODE, FOLDER_MODE = stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Text:
    """A small file that is known already."""

    content: Callable[[], bytes]
    """Returns it; raises `SourceError` if it is not to be stored after all."""


class Opener(Protocol):
    """A file that has to be read from the server."""

    def open(self, item: Item) -> Stream:
        """Begin to read it."""
        ...


@dataclass(frozen=True, slots=True)
class Large:
    """A file that is streamed."""

    opener: Opener
    size: int = -1
    """As `Item.size`."""


Content: TypeAlias = "Text | Large | dict[bytes, Content]"


@dataclass(frozen=True, slots=True)
class Look:
    """What all entries of one run look like."""

    mtime: int
    """Nanoseconds since 1970."""
    inode: int
    """Different in every run, so that no listing equals an earlier one."""

    def record(self, content: Content) -> bytes:
        """Return the stat record of an entry."""
        mode = FOLDER_MODE if isinstance(content, dict) else FILE_MODE
        size = content.size if isinstance(content, Large) else -1
        seconds, nanoseconds = divmod(self.mtime, _SECOND)
        owner = os.getuid(), os.getgid()
        return RECORD.pack(mode, 1, *owner, nanoseconds, 0, self.inode, size, seconds, 0, 0, 0)


class MongoFolder(MadeFolder):
    """The root, or the folder of a database. One thread."""

    def __init__(self, path: bytes, contents: Mapping[bytes, Content], look: Look) -> None:
        super().__init__(path)
        self._contents = contents
        self._look = look

    def listing(self) -> Listing:
        """Return all entries."""
        return segments_of(
            [(name, self._look.record(content)) for name, content in sorted(self._contents.items())]
        )

    def node(self, item: Item) -> Node:
        """Return the node of a database's folder."""
        return node_of(item, NodeKind.DIR)

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Say that it does not fit, so that everything is opened: sizes are not known before."""
        del into
        return node_of(item, NodeKind.STREAM), -1

    def open(self, item: Item) -> Stream:
        """Open documents, metadata or the log."""
        content = self._contents[item.name]
        if isinstance(content, Text):
            return _TextStream(item, content.content())
        if isinstance(content, Large):
            return content.opener.open(item)
        raise SourceError(f"{printable(item.name)} is a database, not a file; report this")

    def folder(self, item: Item) -> "MongoFolder":
        """Return the folder of a database."""
        content = self._contents[item.name]
        if not isinstance(content, dict):
            raise SourceError(f"{printable(item.name)} is no database; report this")
        return MongoFolder(os.path.join(self.path, item.name), content, self._look)


class _TextStream:
    """Bytes in memory as a stream."""

    changed = False
    cutter = None

    def __init__(self, item: Item, content: bytes) -> None:
        self._item = item
        self._content = content
        self._at = 0

    def read_next(self, view: memoryview) -> int:
        part = self._content[self._at : self._at + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def finish(self) -> Node:
        return node_of(self._item, NodeKind.STREAM, len(self._content))

    def close(self) -> None:
        pass


def node_of(item: Item, kind: NodeKind, size: int = 0, extra: dict[str, bytes] | None = None) -> Node:
    """Return the node of an item; content and subtree are empty."""
    return Node(
        item.name, int(kind), stat.S_IMODE(item.mode), item.uid, item.gid, item.mtime, size, extra=extra
    )
