"""Whether a file on the disk has the content that a snapshot says: chunk by chunk, by their ids."""

import os
from collections.abc import Callable, Iterable

from dedupstore.ids import HOLE, ChunkId
from dedupstore.model import Data

_STEP = 1 << 20
_ZEROS = bytes(_STEP)


def has_content(
    fd: int, size: int, entries: Iterable[tuple[ChunkId, int]], names: Callable[[Data, ChunkId], bool]
) -> bool:
    """Read an open file and compare it with content entries; stops at the first difference.

    ``size`` is what the entries come to, in bytes. Memory: the longest chunk. Raises ``OSError``.
    """
    if os.fstat(fd).st_size != size:
        return False
    offset = 0
    buffer = bytearray()
    for chunk, length in entries:
        if length > size - offset:
            return False
        if chunk == HOLE:
            good = _is_zero(fd, offset, length)
        else:
            if len(buffer) < length:
                buffer = bytearray(length)
            with memoryview(buffer)[:length] as view:
                good = _fill(fd, view, offset) and names(view, chunk)
        if not good:
            return False
        offset += length
    return offset == size


def _fill(fd: int, view: memoryview, offset: int) -> bool:
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if not count:
            return False
        done += count
    return True


def _is_zero(fd: int, offset: int, length: int) -> bool:
    end = offset + length
    while offset < end:
        try:
            offset = max(offset, os.lseek(fd, offset, os.SEEK_DATA))
        except OSError:  # nothing but a hole from here on
            return True
        data = os.pread(fd, max(min(_STEP, end - offset), 0), offset)
        if data != _ZEROS[: len(data)]:
            return False
        offset += len(data)
        if not data:
            break
    return True
