"""From a stat record to a node: everything a folder entry has beside its content."""

import errno
import os
import stat

from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Item
from dedupstore.sources.files.listing import Xattrs, xattrs_of

FILE = int(NodeKind.FILE)

_MODE_BITS = 0o7777
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: int(NodeKind.DIR),
    stat.S_IFLNK: int(NodeKind.SYMLINK),
    stat.S_IFIFO: int(NodeKind.FIFO),
    stat.S_IFSOCK: int(NodeKind.SOCKET),
    stat.S_IFCHR: int(NodeKind.CHAR_DEVICE),
    stat.S_IFBLK: int(NodeKind.BLOCK_DEVICE),
}
_EARLIEST, _LATEST = -(2**63), 2**63 - 1
XATTRS_MAX = 4 * 1024 * 1024
"""Most bytes of extended attributes of one entry. They lie in its tree page, and a page must fit in a record
and a pack; a file system may let any user attach half a gigabyte."""


def file_node(item: Item, size: int, xattrs: Xattrs, home: int) -> Node:
    """Return the node of a regular file of which ``size`` bytes were read; ``home`` as in `link_group`.

    Raises ``OSError`` for attributes beyond `XATTRS_MAX`.
    """
    if xattrs:
        _check_xattrs(xattrs)
    return Node(
        item.name,
        FILE,
        item.mode & _MODE_BITS,
        item.uid,
        item.gid,
        item.mtime if _EARLIEST <= item.mtime <= _LATEST else _stored_time(item.mtime),
        size,
        link=link_group(item, home) if item.nlink > 1 else b"",
        xattrs=xattrs,
    )


def other_node(fd: int, item: Item, home: int, *, follow: bool = False) -> Node:
    """Return the node of anything but a regular file: an entry of the folder open as ``fd``.

    It is never opened, only looked at. ``follow``: it is a folder, perhaps reached by a symlink.
    Raises ``OSError``.
    """
    kind = _KINDS[stat.S_IFMT(item.mode)]
    target = os.readlink(item.name, dir_fd=fd) if kind == NodeKind.SYMLINK else b""
    # There is no listxattrat(); this path leads through the descriptor, not through the folders.
    xattrs = xattrs_of(b"/proc/self/fd/%d/%s" % (fd, item.name), follow=follow)
    _check_xattrs(xattrs)
    return Node(
        item.name,
        kind,
        item.mode & _MODE_BITS,
        item.uid,
        item.gid,
        _stored_time(item.mtime),
        target=target,
        rdev=item.rdev,
        link=link_group(item, home),
        xattrs=xattrs,
    )


def link_group(item: Item, home: int) -> bytes:
    """Return what is equal in all names of one file, and empty where there is one name only.

    The inode (8 bytes) on device ``home``, where the first source path lies; device and inode
    (16 bytes) on others.
    """
    if item.nlink < 2 or stat.S_ISDIR(item.mode):
        return b""
    inode = item.ino.to_bytes(8, "little")
    return inode if item.dev == home else item.dev.to_bytes(8, "little") + inode


def _check_xattrs(xattrs: Xattrs) -> None:
    if sum([len(name) + len(value) for name, value in xattrs]) > XATTRS_MAX:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))


def _stored_time(nanoseconds: int) -> int:
    """Clip to what 64 bits hold: the years 1677 to 2262 (some file systems go further)."""
    return min(max(nanoseconds, _EARLIEST), _LATEST)
