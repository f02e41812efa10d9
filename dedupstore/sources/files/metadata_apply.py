"""Attributes back onto things: owners by name, and the odd kinds that `deposit.dress` can not open.

Owners go by name where the snapshot knows the name of a number and this system has that name,
because numbers differ between machines; else by number. Threads: any. Errors are bare ``OSError``.
"""

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Mapping

from dedupstore.model import Node, NodeKind
from dedupstore.sources.files.deposit import Xattrs, dress, remove_xattr

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_OURS = (b"user.", b"trusted.", b"system.posix_acl_")
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES})
_EARLIEST, _LATEST = -(2**63), 2**63 - 1
_NUMBERS = 0xFFFFFFFF
_NOBODY = 65534
"""Who gets what belongs to a number that no system has."""
_STREAM = int(NodeKind.STREAM)
_LINK = int(NodeKind.SYMLINK)


class _Numbers(dict[int, int]):
    """Number in the snapshot → number here, asked of the system once each."""

    def __init__(self, names: Mapping[int, bytes], number_of: Callable[[str], int] | None) -> None:
        super().__init__()
        self._names = names
        self._number_of = number_of

    def __missing__(self, number: int) -> int:
        here = number if 0 <= number < _NUMBERS else _NOBODY
        name = self._names.get(number)
        if name is not None and self._number_of is not None:
            with contextlib.suppress(KeyError, ValueError):
                here = self._number_of(os.fsdecode(name))
        self[number] = here
        return here


def _uid_of(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid_of(name: str) -> int:
    return grp.getgrnam(name).gr_gid


class Owners:
    """Whom things belong to after the restore: `users` and `groups` map numbers of the snapshot."""

    def __init__(
        self, users: Mapping[int, bytes], groups: Mapping[int, bytes], *, numeric: bool = False
    ) -> None:
        """``numeric``: take the numbers as they are, whatever they are called."""
        self.users: Mapping[int, int] = _Numbers(users, None if numeric else _uid_of)
        self.groups: Mapping[int, int] = _Numbers(groups, None if numeric else _gid_of)
        self._here = (os.geteuid(), os.getegid())

    def wanted(self, node: Node) -> tuple[int, int, int, int, Xattrs]:
        """Return mode, uid, gid, mtime (ns) and attributes that a node's file is to have."""
        mtime = node.mtime
        if not _EARLIEST <= mtime <= _LATEST:
            mtime = min(max(mtime, _EARLIEST), _LATEST)
        if node.kind == _STREAM:  # nothing was there to have an owner
            return node.mode & 0o7777 or 0o600, *self._here, mtime, node.xattrs
        return node.mode & 0o7777, self.users[node.uid], self.groups[node.gid], mtime, node.xattrs


def differs(node: Node, status: os.stat_result, owners: Owners, where: bytes) -> bool:
    """Whether an existing thing of the right kind has other attributes than it should.

    ``where``: a path for its extended attributes, which the system can not list by descriptor and name.
    """
    mode, uid, gid, mtime, xattrs = owners.wanted(node)
    return (
        (status.st_mtime_ns, status.st_uid, status.st_gid) != (mtime, uid, gid)
        or (node.kind != _LINK and stat.S_IMODE(status.st_mode) != mode)
        or not set(xattrs) <= set(xattrs_at(where))
        or bool(_surplus(where, xattrs))
    )


def xattrs_at(where: int | bytes) -> Xattrs:
    """Return the attributes of something, a link itself included; empty where there can be none."""
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
        return tuple([(os.fsencode(n), os.getxattr(where, n, follow_symlinks=follow)) for n in names])
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return ()
        raise


def _surplus(where: int | bytes, wanted: Xattrs) -> list[bytes]:
    """Return names of attributes that should not be there and that a user, or root, may remove."""
    keep = {name for name, _ in wanted}
    return [name for name, _ in xattrs_at(where) if name not in keep and name.startswith(_OURS)]


def dress_open(fd: int, node: Node, owners: Owners, *, fresh: bool) -> int:
    """Give an open file or folder the attributes of its node; return an outcome as `dress` does.

    Unless it is ``fresh``, attributes it should not have are taken off first.
    """
    mode, uid, gid, mtime, xattrs = owners.wanted(node)
    if not fresh:
        for name in _surplus(fd, xattrs):
            remove_xattr(fd, name)
    return dress(fd, mode, uid, gid, mtime, xattrs)


def strip_acls(fd: int) -> None:
    """Take off the ACLs that a new folder got from its parent."""
    for name in _ACLS:
        remove_xattr(fd, name)


def gives_acls(fd: int) -> bool:
    """Whether new entries of this folder get an ACL from it."""
    try:
        os.getxattr(fd, _ACLS[1])
    except OSError:
        return False
    return True


def dress_link(dirfd: int, name: bytes, node: Node, owners: Owners) -> bool:
    """Give a symlink itself its owner, attributes and mtime; False if privileges were missing."""
    _, uid, gid, mtime, xattrs = owners.wanted(node)
    now = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
    complete = True
    if (now.st_uid, now.st_gid) != (uid, gid):
        complete = _chown(name, uid, gid, dirfd)
    complete &= _set_xattrs(b"/proc/self/fd/%d/%s" % (dirfd, name), xattrs, follow=False)
    os.utime(name, ns=(now.st_atime_ns, mtime), dir_fd=dirfd, follow_symlinks=False)
    return complete


def dress_unopenable(dirfd: int, name: bytes, node: Node, owners: Owners) -> bool:
    """Give a FIFO, socket or device its attributes; False if privileges were missing.

    Opening it would have effects, so it is only held (``O_PATH``) and reached through ``/proc``.
    """
    mode, uid, gid, mtime, xattrs = owners.wanted(node)
    held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        now = os.fstat(held)
        if stat.S_ISLNK(now.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        through = b"/proc/self/fd/%d" % held
        complete = (now.st_uid, now.st_gid) == (uid, gid) or _chown(through, uid, gid, None)
        complete &= _set_xattrs(through, xattrs, follow=True)
        os.chmod(through, mode if complete else mode & 0o777)
        os.utime(through, ns=(now.st_atime_ns, mtime))
    finally:
        os.close(held)
    return complete


def _chown(where: bytes, uid: int, gid: int, dirfd: int | None) -> bool:
    try:
        os.chown(where, uid, gid, dir_fd=dirfd, follow_symlinks=dirfd is None)
    except PermissionError:
        with contextlib.suppress(PermissionError):
            os.chown(where, -1, gid, dir_fd=dirfd, follow_symlinks=dirfd is None)
        return False
    return True


def _set_xattrs(where: bytes, xattrs: Xattrs, *, follow: bool) -> bool:
    complete = True
    for name, value in xattrs:
        try:
            os.setxattr(where, name, value, follow_symlinks=follow)
        except PermissionError:
            complete = False
    return complete
