"""The two calls that write back: whole small files, and the attributes of anything open.

This is their definition. ``_target.c`` does the same in one stretch without the interpreter's lock; a
test holds it to the same answers. `deposit` and `dress` are whichever there is. Measured on 60 000
files of 10 KB: of some 50 µs a file the kernel's creation of the name takes 30 to 45, the detour over a
temporary name 5, and the interpreter, in C, under 1.

Neither keeps any state, neither follows a link. Threads: any. Nothing is forced to the disk.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TypeAlias

from dedupstore.model import Data

_native: ModuleType | None
try:
    from dedupstore.sources.files import _target as _native
except ImportError:
    _native = None

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]
Job: TypeAlias = tuple[int, bytes, int, int, int, int, int, int, Xattrs]
"""Descriptor of the folder, name, start and size in the buffer, mode (or with `STRIP_ACL`), uid, gid,
mtime (ns), extended attributes."""

STRIP_ACL = 0x10000
"""Added to a mode: take off the ACL that the folder's default ACL gave to the new file."""

_ERRNO = 0xFFFF
_REFUSED = 0x10000
_XATTR_SHIFT = 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ACL = b"system.posix_acl_access"
_PRIVILEGED = (b"trusted.", b"security.")


def failure(outcome: int) -> int:
    """Return the errno for which nothing was restored; 0 if all is well."""
    return outcome & _ERRNO


def was_refused(outcome: int) -> bool:
    """Whether an owner or attribute could not be set because that takes privileges."""
    return bool(outcome & _REFUSED)


def xattr_failure(outcome: int) -> int:
    """Return the errno of an extended attribute that could not be set for another reason, or 0."""
    return outcome >> _XATTR_SHIFT


def deposit_defined(data: Data, temp: bytes, jobs: list[Job]) -> list[int]:
    """Write slices of ``data`` as whole files; return an outcome for each job.

    A file is made as ``temp`` in its folder, readable by nobody who may not read it in the end, and
    renamed over ``name`` when it is complete in every respect. What stood there before is gone then,
    unless it is a folder.
    """
    with memoryview(data) as view:
        return [_deposit_one(view, temp, job) for job in jobs]


def dress_defined(fd: int, mode: int, uid: int, gid: int, mtime: int, xattrs: Xattrs) -> int:
    """Give an open file or folder its owner, attributes, mode and mtime; return the outcome.

    The order matters: a change of owner takes set-id bits and capabilities off; user attributes need
    the write permission that the final mode may not give; an ACL changes the mode. Where the owner can
    not be set, set-id bits are left out, because the program would run as somebody else.
    """
    try:
        return _dress(fd, mode, uid, gid, mtime, xattrs)
    except OSError as error:
        return error.errno or errno.EIO


def _deposit_one(view: memoryview, temp: bytes, job: Job) -> int:
    dirfd, name, start, size, mode, uid, gid, mtime, xattrs = job
    if not is_plain_name(name):
        return errno.EINVAL
    if not 0 <= start <= len(view) - size or size < 0:
        raise ValueError("a file lies outside the buffer")
    try:
        fd = _create(dirfd, temp, _first_mode(mode, uid, gid, xattrs))
    except OSError as error:
        return error.errno or errno.EIO
    try:
        try:
            write_all(fd, view[start : start + size], 0)
            outcome = dress_defined(fd, mode, uid, gid, mtime, xattrs)
        finally:
            os.close(fd)
        if not failure(outcome):
            os.rename(temp, name, src_dir_fd=dirfd, dst_dir_fd=dirfd)
            return outcome
    except OSError as error:
        outcome = error.errno or errno.EIO
    os.unlink(temp, dir_fd=dirfd)
    return outcome


def _create(dirfd: int, temp: bytes, mode: int) -> int:
    try:
        return os.open(temp, _CREATE, mode, dir_fd=dirfd)
    except FileExistsError:
        os.unlink(temp, dir_fd=dirfd)  # left behind by an earlier run
        return os.open(temp, _CREATE, mode, dir_fd=dirfd)


def _first_mode(mode: int, uid: int, gid: int, xattrs: Xattrs) -> int:
    """Return the mode to make a file with.

    Its own, which mostly saves a change, where that lets nobody read what they may not: it will be ours, and
    its group (perhaps that of the folder until then) may do what everybody may.
    """
    ours = (uid, gid) == (os.geteuid(), os.getegid()) and not mode & STRIP_ACL
    return mode & 0o777 if ours and not xattrs and mode >> 3 & 7 == mode & 7 else 0o600


def _dress(fd: int, mode: int, uid: int, gid: int, mtime: int, xattrs: Xattrs) -> int:
    now = os.fstat(fd)
    outcome = 0
    bits = mode & 0o7777
    touched = bool(xattrs)  # the mode may no longer be what fstat saw
    if (now.st_uid, now.st_gid) != (uid, gid):
        touched = True
        try:
            os.fchown(fd, uid, gid)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            outcome = _REFUSED
            bits = _without_set_id(fd, now, bits, uid, gid)
    if mode & STRIP_ACL:
        touched = True
        remove_xattr(fd, _ACL)
    for key, value in xattrs:
        outcome = _set_xattr(fd, key, value, outcome)
    if touched or stat.S_IMODE(now.st_mode) != bits:
        os.fchmod(fd, bits)
    os.utime(fd, ns=(now.st_atime_ns, mtime))
    return outcome


def _without_set_id(fd: int, now: os.stat_result, bits: int, uid: int, gid: int) -> int:
    if now.st_uid != uid:
        bits &= ~stat.S_ISUID
    if now.st_gid != gid:
        try:
            os.fchown(fd, -1, gid)
        except OSError:
            if not stat.S_ISDIR(now.st_mode):
                bits &= ~stat.S_ISGID
    return bits


def _set_xattr(fd: int, key: bytes, value: bytes, outcome: int) -> int:
    try:
        os.setxattr(fd, key, value)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES) and key.startswith(_PRIVILEGED):
            return outcome | _REFUSED
        return (outcome & (_ERRNO | _REFUSED)) | ((error.errno or errno.EIO) << _XATTR_SHIFT)
    return outcome


def remove_xattr(where: int | bytes, key: bytes) -> None:
    """Remove an extended attribute if that is possible; what stays is no worse than before."""
    try:
        os.removexattr(where, key)
    except OSError:
        return


def write_all(fd: int, view: memoryview, offset: int) -> None:
    """Write all of ``view`` at an offset (bytes); raises ``OSError``."""
    while view:
        done = os.pwrite(fd, view, offset)
        offset += done
        view = view[done:]


def is_plain_name(name: bytes) -> bool:
    """Whether ``name`` can only mean an entry of the folder it is used in."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


deposit: Callable[[Data, bytes, list[Job]], Sequence[int]]
dress: Callable[[int, int, int, int, int, Xattrs], int]
if _native is None:
    deposit, dress = deposit_defined, dress_defined
else:
    deposit, dress = _native.deposit, _native.dress
