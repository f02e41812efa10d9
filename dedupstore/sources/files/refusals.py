"""What the operating system's refusals mean to a restore: one table, one wording."""

import errno
import os

from dedupstore.errors import StoreFull, TargetError
from dedupstore.findings import printable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_STEPS = {
    errno.EACCES: "run as a user who may write there, or restore to another folder",
    errno.EPERM: "run as root, or leave it out",
    errno.EROFS: "make the file system writable, or restore to another folder",
    errno.EISDIR: "a folder stands there; move it away, or restore with --delete",
    errno.ENOTEMPTY: "a folder stands there; move it away, or restore with --delete",
    errno.EEXIST: "something else stands there; move it away, or restore to another folder",
    errno.ENOTDIR: "something that is no folder stands there; move it away",
    errno.ELOOP: "a symlink stands there, and restores do not follow links; remove it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "this file system does not take so long a name; restore to another one",
    errno.ENOTSUP: "this file system can not hold it; restore to another one",
    errno.EINVAL: "this file system can not hold it; restore to another one",
}


def target_error(number: int, path: bytes) -> TargetError:
    """Return the error for ``path``, which could not be written because of the errno ``number``."""
    step = _STEPS.get(number, "check the file system and the system's log")
    return TargetError(
        f"{printable(path)} can not be restored ({os.strerror(number)}): {step}", path=path, errno=number
    )


def target_full(target: bytes) -> StoreFull:
    """Return the error that ends a run because the target takes no more."""
    return StoreFull(
        f"no space is left in the target {printable(target)}: make room and run the same restore again; "
        "what it has finished is whole and will be kept",
        path=target,
    )
