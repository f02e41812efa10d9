"""Telling the kernel what will be read next, so that the disk works while we do something else."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from dedupstore.sources.base import Item

AHEAD = 8 * 1024 * 1024
"""Bytes of a long file that are asked for beyond what was read."""
_FIRST = 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ADVISE = getattr(os, "posix_fadvise", None)


def read_ahead(folder: int, items: Sequence[Item]) -> None:
    """Start reading the first MiB of each regular file of a folder; what can not be opened is passed over."""
    if _ADVISE is None:
        return
    for item in items:
        if not stat.S_ISREG(item.mode) or not item.size:
            continue
        with suppress(OSError):
            fd = os.open(item.name, _FLAGS, dir_fd=folder)
            try:
                _ADVISE(fd, 0, min(item.size, _FIRST), os.POSIX_FADV_WILLNEED)
            finally:
                os.close(fd)


def read_on(fd: int, at: int) -> None:
    """Start reading what follows ``at`` in a file that is read from front to end."""
    if _ADVISE is not None:
        with suppress(OSError):
            _ADVISE(fd, at, AHEAD, os.POSIX_FADV_WILLNEED)
