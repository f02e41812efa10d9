"""A folder whose entries are given: some known already, some new, some read when they are asked for.

Sources that make a tree of things that lie in no folder (slices of a log, collections moved forward by a
log) are built of these. What is known is recognised by a hash of its whole entry, so an entry looks
unchanged exactly when it is; what is new never looks like anything before.

Threads: any, as for every `dedupstore.sources.base.Folder`. Memory: the entries, and their listing.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from dedupstore.clock import Clock
from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Item, Listing, Patch, Stream
from dedupstore.sources.made import MadeFolder, segments_of
from dedupstore.sources.segments import RECORD

_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_WORD = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """A file or stream that an earlier snapshot has, content and all."""

    node: Node


@dataclass(frozen=True, slots=True)
class Written:
    """A small new file."""

    node: Node
    """Without content; its size is that of the data."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A new file that is read, or put together, when its turn comes."""

    node: Node
    """Without content."""
    open: Callable[[], Stream | Patch]


@dataclass(frozen=True, slots=True)
class Below:
    """A folder in the folder."""

    node: Node
    entries: "Sequence[Entry]"


Entry: TypeAlias = Kept | Written | Opened | Below


class GivenFolder(MadeFolder):
    """A folder of these entries; see `dedupstore.sources.base.Folder`."""

    def __init__(self, path: bytes, entries: Iterable[Entry], clock: Clock) -> None:
        """``path`` is absolute; names must differ."""
        super().__init__(path)
        self._clock = clock
        ordered = sorted(entries, key=lambda entry: entry.node.name)
        self.entries = ordered
        self._entries = {entry.node.name: entry for entry in ordered}
        self._listing = segments_of([(entry.node.name, _record(entry, clock)) for entry in ordered])

    def listing(self) -> Listing:
        """Return the entries."""
        return self._listing

    def node(self, item: Item) -> Node:
        """Return an entry's node: all of it where it is kept."""
        return self._entries[item.name].node

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Copy a small file, if it fits."""
        entry = self._entries[item.name]
        if not isinstance(entry, Written) or len(entry.data) > len(into):
            return entry.node, -1
        into[: len(entry.data)] = entry.data
        return _sized(entry), len(entry.data)

    def open(self, item: Item) -> Stream | Patch:
        """Open a file; raises what its opening raises."""
        entry = self._entries[item.name]
        if isinstance(entry, Opened):
            return entry.open()
        if isinstance(entry, Written):
            return BytesStream(_sized(entry), entry.data)
        raise SourceError(f"{printable(self.path)}/{printable(item.name)} can not be read: report this")

    def folder(self, item: Item) -> "GivenFolder":
        """Return the folder behind an entry."""
        entry = self._entries[item.name]
        assert isinstance(entry, Below)
        return GivenFolder(os.path.join(self.path, item.name), entry.entries, self._clock)


class BytesStream:
    """Bytes as a `dedupstore.sources.base.Stream`."""

    changed = False
    cutter = None

    def __init__(self, node: Node, data: bytes) -> None:
        self._node = node
        self._rest = memoryview(data)

    def read_next(self, view: memoryview) -> int:
        """Read on."""
        part = self._rest[: len(view)]
        view[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    def finish(self) -> Node:
        """Return the node."""
        return self._node

    def close(self) -> None:
        """Nothing is held."""


def _sized(entry: Written) -> Node:
    return msgspec.structs.replace(entry.node, size=len(entry.data))


def _record(entry: Entry, clock: Clock) -> bytes:
    """Return a stat record that is equal to another exactly where the entry is."""
    node = entry.node
    permissions = node.mode & 0o7777
    if isinstance(entry, Below):
        # What is below is listed by itself; here only the folder's own entry counts.
        mode, mark = (
            stat.S_IFDIR | permissions,
            hashlib.blake2b(_ENCODER.encode(node), digest_size=16).digest(),
        )
    elif isinstance(entry, Kept):
        mode, mark = permissions or 0o400, hashlib.blake2b(_ENCODER.encode(node), digest_size=16).digest()
    else:
        mode, mark = stat.S_IFREG | permissions, clock.random(16)
    inode, ctime = (int.from_bytes(mark[at : at + _WORD], "little") for at in (0, _WORD))
    if isinstance(entry, Opened):
        size = -1
    elif isinstance(entry, Written):
        size = len(entry.data)
    else:
        size = node.size
    mtime, nanoseconds = divmod(node.mtime, 1_000_000_000)
    # Half of the mark stands where a time of change would, in the past: the entry never looks fresh.
    return RECORD.pack(
        mode, 1, node.uid, node.gid, nanoseconds, 0, inode, size, mtime, -(ctime >> 1), 0, 0
    )  # fmt: skip


def folder_node(name: bytes, mtime: int, uid: int, gid: int) -> Node:
    """Return the entry of a folder that exists in no file system; ``mtime`` in nanoseconds."""
    return Node(name, int(NodeKind.DIR), 0o700, uid, gid, mtime)
