"""What the operating system's refusals mean to a backup: one table, one wording."""

import errno
import os

from dedupstore.errors import SourceChanged, SourceError, SourceVanished
from dedupstore.findings import printable

_GONE = frozenset({errno.ENOENT, errno.ESTALE, errno.ENOTDIR})
_REPLACED = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


def source_error(error: OSError, path: bytes) -> SourceError:
    """Return what to raise (``from error``) when ``path`` could not be read."""
    where = printable(path)
    number = error.errno or 0
    if number in _GONE:
        return SourceVanished(
            f"{where} was gone when it was to be read: nothing to do if it was meant to go",
            path=path,
            errno=number,
        )
    if number in _REPLACED:
        return replaced(path)
    if number in _REFUSED:
        step = "run as a user who may read it, or exclude it"
    elif number in _EXHAUSTED:
        step = "raise the limit of open files (ulimit -n)"
    elif number == errno.E2BIG:
        step = "it has more extended attributes than can be stored; remove some, or exclude it"
    else:
        step = "check the file system and the system's log"
    reason = os.strerror(number) if number else str(error)
    return SourceError(f"{where} can not be read ({reason}): {step}", path=path, errno=number)


def replaced(path: bytes) -> SourceChanged:
    """Return what to raise when ``path`` is no longer the kind of thing that was listed."""
    return SourceChanged(
        f"{printable(path)} became something else while its folder was read: back it up again at rest",
        path=path,
    )
