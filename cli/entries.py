"""How an entry of a snapshot is shown, one line or one JSON object."""

import stat

from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind

from .render import nanoseconds, nanoseconds_shown, path_fields, path_shown

KIND_NAMES: dict[int, str] = {
    NodeKind.FILE: "file",
    NodeKind.DIR: "dir",
    NodeKind.SYMLINK: "symlink",
    NodeKind.FIFO: "fifo",
    NodeKind.SOCKET: "socket",
    NodeKind.CHAR_DEVICE: "chardev",
    NodeKind.BLOCK_DEVICE: "blockdev",
    NodeKind.STREAM: "stream",
}
_TYPE_BITS: dict[int, int] = {
    NodeKind.FILE: stat.S_IFREG,
    NodeKind.DIR: stat.S_IFDIR,
    NodeKind.SYMLINK: stat.S_IFLNK,
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.SOCKET: stat.S_IFSOCK,
    NodeKind.CHAR_DEVICE: stat.S_IFCHR,
    NodeKind.BLOCK_DEVICE: stat.S_IFBLK,
    NodeKind.STREAM: stat.S_IFREG,
}


def entry_fields(path: bytes, node: Node) -> dict[str, object]:
    """Return an entry for JSON."""
    fields = path_fields(path)
    fields |= {
        "type": KIND_NAMES.get(node.kind, "unknown"),
        "size": node.size,
        "mode": node.mode,
        "mtime": nanoseconds(node.mtime),
        "uid": node.uid,
        "gid": node.gid,
    }
    if node.target:
        fields["target"] = node.target.decode("utf-8", "backslashreplace")
    return fields


def entry_line(path: bytes, node: Node, *, long: bool) -> str:
    """Return an entry for people: the path, or what ``ls -l`` shows of it."""
    shown = path_shown(path)
    if not long:
        return shown
    mode = stat.filemode(_TYPE_BITS.get(node.kind, 0) | node.mode)
    arrow = f" -> {printable(node.target)}" if node.target else ""
    when = nanoseconds_shown(node.mtime)
    return f"{mode} {node.uid:>5} {node.gid:>5} {node.size:>12} {when} {shown}{arrow}"
