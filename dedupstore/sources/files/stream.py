"""One large file, read from front to end, holes passed over."""

import errno
import os
import stat

from dedupstore.model import Node
from dedupstore.sources.base import Item
from dedupstore.sources.files.failures import replaced, source_error
from dedupstore.sources.files.listing import open_file, xattrs_of
from dedupstore.sources.files.metadata import file_node
from dedupstore.sources.files.readahead import read_on
from dedupstore.sources.segments import pack_record, unpack_record

_BLOCK = 512


class FileStream:
    """A regular file, open since `FileStream` was made; see `dedupstore.sources.base.Stream`.

    ``path`` is for messages, ``dev`` and ``home`` as in the folder. Belongs to one thread.
    """

    cutter = None

    def __init__(
        self, dirfd: int, item: Item, *, path: bytes, dev: int, home: int, unstable: set[bytes]
    ) -> None:
        self._name = item.name
        self._path = path
        self._dev = dev
        self._home = home
        self._unstable = unstable
        self._at = 0
        self._data_end = 0
        self.changed = False
        self._fd = -1
        try:
            self._fd = open_file(dirfd, item.name)
            status = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise source_error(error, path) from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise replaced(path)
        self._record = pack_record(status, dev)
        self._sparse = status.st_blocks * _BLOCK < status.st_size
        if not self._sparse and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def read_next(self, view: memoryview) -> int:
        """Read on: n > 0 bytes at the start of ``view``, n < 0 a hole of -n bytes, 0 the end."""
        try:
            if self._sparse and self._at >= self._data_end:
                hole = self._pass_hole()
                if hole:
                    return -hole
            if self._sparse:
                view = view[: self._data_end - self._at]
            size = os.readv(self._fd, (view,))
        except OSError as error:
            raise source_error(error, self._path) from error
        self._at += size
        if not self._sparse:
            read_on(self._fd, self._at)
        return size

    def finish(self) -> Node:
        """Return the node: metadata as of now, size as it was read."""
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            raise source_error(error, self._path) from error
        record = pack_record(status, self._dev)
        if record != self._record or self._at != status.st_size:
            self.changed = True
            self._unstable.add(self._name)
        item = unpack_record(self._name, record, self._dev)
        try:
            return file_node(item, self._at, xattrs_of(self._fd), self._home)
        except OSError as error:
            raise source_error(error, self._path) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _pass_hole(self) -> int:
        """Find the next data; returns the length of the hole before it and sets where that data ends.

        The file position is left at the data, or at the end of the file, which both are where the next
        read belongs.
        """
        try:
            start = os.lseek(self._fd, self._at, os.SEEK_DATA)
            self._data_end = os.lseek(self._fd, start, os.SEEK_HOLE)
            os.lseek(self._fd, start, os.SEEK_SET)
        except OSError as error:
            if error.errno == errno.EINVAL:  # this file system can not tell
                self._sparse = False
                return 0
            if error.errno != errno.ENXIO:
                raise
            # Nothing but a hole from here to the end (which may have come nearer just now).
            start = self._data_end = max(self._at, os.lseek(self._fd, 0, os.SEEK_END))
        hole, self._at = start - self._at, start
        return hole
