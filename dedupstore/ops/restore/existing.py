"""What to do where something stands already: one table, without any effect."""

import os
import stat
from enum import Enum

from dedupstore.model import Node, NodeKind
from dedupstore.ops.restore.request import Overwrite

_TYPES = {
    NodeKind.FILE: stat.S_IFREG,
    NodeKind.STREAM: stat.S_IFREG,
    NodeKind.DIR: stat.S_IFDIR,
    NodeKind.SYMLINK: stat.S_IFLNK,
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.SOCKET: stat.S_IFSOCK,
    NodeKind.CHAR_DEVICE: stat.S_IFCHR,
    NodeKind.BLOCK_DEVICE: stat.S_IFBLK,
}
_DEVICES = (NodeKind.CHAR_DEVICE, NodeKind.BLOCK_DEVICE)


class Step(Enum):
    """What to do with one entry whose name is taken."""

    WRITE = 1
    """Restore it in place of what is there."""
    CHECK = 2
    """Compare the content, then `WRITE` or `DRESS`."""
    DRESS = 3
    """It is right already; set its attributes."""
    KEEP = 4
    BESIDE = 5
    """Restore it under another name."""


def decide(node: Node, status: os.stat_result, overwrite: Overwrite, aim: bytes = b"") -> Step:
    """Say what to do about an entry that is no folder, where ``status`` is what stands there.

    ``aim``: where that points, if it is a symlink.
    """
    if overwrite is Overwrite.NEVER:
        return Step.KEEP
    same = _looks_same(node, status) and (node.kind != NodeKind.SYMLINK or aim == node.target)
    if overwrite is Overwrite.KEEP_BOTH and not same:
        return Step.BESIDE
    if same:
        return Step.CHECK if overwrite is Overwrite.ALWAYS and node.size else Step.DRESS
    if overwrite is Overwrite.IF_NEWER and node.mtime <= status.st_mtime_ns:
        return Step.KEEP
    return Step.WRITE


def replaces(overwrite: Overwrite) -> bool:
    """Whether the mode lets a folder take the place of something that is none."""
    return overwrite in (Overwrite.ALWAYS, Overwrite.IF_CHANGED)


def _looks_same(node: Node, status: os.stat_result) -> bool:
    """Whether type, mtime and size (or device number) are those of the node."""
    kind = NodeKind(node.kind)
    if stat.S_IFMT(status.st_mode) != _TYPES[kind] or status.st_mtime_ns != node.mtime:
        return False
    if kind in (NodeKind.FILE, NodeKind.STREAM):
        return status.st_size == node.size
    return kind not in _DEVICES or status.st_rdev == node.rdev
