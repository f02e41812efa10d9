"""A disk in memory with a clock of its own: a source whose every time, inode and failure a test decides."""

import errno
import hashlib
import random
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from dedupstore.errors import SourceError
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.base import SEGMENT_ENTRIES, Item, Listing
from dedupstore.sources.files.metadata import file_node
from dedupstore.sources.segments import pack_record, pack_segment, unpack_folders, unpack_segment

START = 1_800_000_000_000_000_000
DEVICE = 7


@dataclass
class Inode:
    number: int
    mode: int
    mtime: int
    ctime: int
    data: bytes = b""
    children: "dict[bytes, Inode]" = field(default_factory=dict)
    unreadable: bool = False
    """Reading or listing fails, without any trace in the stat record."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Disk:
    """Folders and files below ``/src``; also the clock of the machine it is in."""

    def __init__(self, tick: int = 4_000_000) -> None:
        self.tick = tick
        """Nanoseconds by which the times of files advance."""
        self.now_ns = START
        self._inodes = 1
        self._random = random.Random(self.tick)
        self.root = self._inode(stat.S_IFDIR | 0o755)
        self.reads = 0

    # The clock

    def now(self) -> datetime:
        return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=self.now_ns // 1000)

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def random(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def pass_time(self, nanoseconds: int = 5_000_000_000) -> None:
        self.now_ns += nanoseconds

    # The files

    def write(self, path: bytes, data: bytes) -> None:
        folder, name = self._parent(path)
        inode = folder.children.get(name)
        if inode is None:
            inode = folder.children[name] = self._inode(stat.S_IFREG | 0o644)
            self._touch(folder)
        inode.data = data
        self._touch(inode)

    def folder(self, path: bytes) -> None:
        parent, name = self._parent(path)
        parent.children[name] = self._inode(stat.S_IFDIR | 0o755)
        self._touch(parent)

    def remove(self, path: bytes) -> None:
        folder, name = self._parent(path)
        del folder.children[name]
        self._touch(folder)

    def rename(self, old: bytes, new: bytes) -> None:
        source, name = self._parent(old)
        target, fresh = self._parent(new)
        inode = source.children.pop(name)
        target.children[fresh] = inode
        inode.ctime = self._time()
        self._touch(source)
        self._touch(target)

    def swap(self, one: bytes, other: bytes) -> None:
        first, name = self._parent(one)
        second, fresh = self._parent(other)
        a, b = first.children[name], second.children[fresh]
        first.children[name], second.children[fresh] = b, a
        a.ctime = b.ctime = self._time()
        self._touch(first)
        self._touch(second)

    def at(self, path: bytes) -> Inode:
        inode = self.root
        for name in path.split(b"/"):
            if name:
                inode = inode.children[name]
        return inode

    def contents(self) -> dict[bytes, bytes | None]:
        found: dict[bytes, bytes | None] = {}
        stack = [(b"", self.root)]
        while stack:
            path, inode = stack.pop()
            for name, child in inode.children.items():
                found[path + b"/" + name] = None if child.is_folder else child.data
                if child.is_folder:
                    stack.append((path + b"/" + name, child))
        return found

    def source(self, name: bytes = b"/src") -> "DiskSource":
        return DiskSource(self, name)

    def _parent(self, path: bytes) -> tuple[Inode, bytes]:
        above, _, name = path.rpartition(b"/")
        return self.at(above), name

    def _inode(self, mode: int) -> Inode:
        self._inodes += 1
        return Inode(self._inodes, mode, self._time(), self._time())

    def _touch(self, inode: Inode) -> None:
        inode.mtime = inode.ctime = self._time()

    def _time(self) -> int:
        return self.now_ns // self.tick * self.tick


def record_of(inode: Inode) -> bytes:
    status = SimpleNamespace(
        st_mode=inode.mode,
        st_nlink=1,
        st_uid=1,
        st_gid=2,
        st_mtime_ns=inode.mtime,
        st_ctime_ns=inode.ctime,
        st_ino=inode.number,
        st_size=len(inode.data),
        st_rdev=0,
        st_dev=DEVICE,
    )
    return pack_record(status, DEVICE)  # type: ignore[arg-type]


class DiskFolder:
    def __init__(self, disk: Disk, inode: Inode, path: bytes) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path
        self.key = hashlib.blake2b(path, digest_size=16).digest()
        self.unstable: set[bytes] = set()

    def listing(self) -> Listing:
        if self._inode.unreadable:
            raise SourceError(f"{self.path!r} can not be listed")
        rows = [(name, record_of(inode)) for name, inode in sorted(self._inode.children.items())]
        return tuple(
            pack_segment(rows[start : start + SEGMENT_ENTRIES])
            for start in range(0, len(rows), SEGMENT_ENTRIES)
        )

    def items(self, segment: bytes) -> list[Item]:
        return unpack_segment(segment, DEVICE)

    def folders(self, segment: bytes) -> list[Item]:
        return unpack_folders(segment, DEVICE)

    def node(self, item: Item) -> Node:
        self._child(item)
        return Node(item.name, NodeKind.DIR, item.mode & 0o7777, item.uid, item.gid, item.mtime)

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        inode = self._child(item)
        self._disk.reads += 1
        if inode.unreadable:
            raise SourceError(f"{item.name!r} can not be read", errno=errno.EIO)
        if len(inode.data) > len(into):
            return Node(item.name, NodeKind.FILE), -1
        into[: len(inode.data)] = inode.data
        return file_node(item, len(inode.data), (), DEVICE), len(inode.data)

    def open(self, item: Item) -> "DiskStream":
        inode = self._child(item)
        self._disk.reads += 1
        return DiskStream(inode, item)

    def folder(self, item: Item) -> "DiskFolder":
        return DiskFolder(self._disk, self._child(item), self.path + b"/" + item.name)

    def expect(self, items: Sequence[Item]) -> None:
        """Hear the hint."""

    def descends(self, item: Item) -> bool:
        return True

    def close(self) -> None:
        pass

    def _child(self, item: Item) -> Inode:
        return self._inode.children[item.name]


class DiskStream:
    changed = False
    cutter = None

    def __init__(self, inode: Inode, item: Item) -> None:
        self._inode = inode
        self._item = item
        self._at = 0

    def read_next(self, view: memoryview) -> int:
        if self._inode.unreadable and self._at > 100_000:
            raise SourceError("the disk gave up in the middle", errno=errno.EIO)
        data = self._inode.data[self._at : self._at + min(len(view), 70_000)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def finish(self) -> Node:
        return file_node(self._item, self._at, (), DEVICE)

    def close(self) -> None:
        pass


class DiskSource:
    all_or_nothing = False
    absent: Sequence[tuple[bytes, SourceError]] = ()
    adopts: Sequence[TreeId] = ()

    def __init__(self, disk: Disk, name: bytes) -> None:
        self._disk = disk
        self._name = name
        self.spec = SourceSpec("files", (name,))
        self.key = hashlib.blake2b(b"source" + name, digest_size=16).digest()

    def top(self) -> DiskFolder:
        return DiskFolder(self._disk, self._disk.root, self._name)

    def position(self) -> bytes | None:
        return None

    def instant(self) -> datetime | None:
        return None

    def user_name(self, uid: int) -> bytes | None:
        return b"user"

    def group_name(self, gid: int) -> bytes | None:
        return None

    def close(self) -> None:
        pass
