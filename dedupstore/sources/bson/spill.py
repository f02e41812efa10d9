"""A temporary file without a name: what does not fit in memory, gone with the process whatever ends that."""

import errno
import os
import tempfile
from pathlib import Path

from dedupstore.errors import SourceError, StoreFull


class Spill:
    """A file that is appended to and read anywhere, in ``folder`` or where the system has such files.

    Close it in every case. One thread. Raises `StoreFull` where there is no room, `SourceError` for other
    trouble.
    """

    def __init__(self, folder: Path | None = None) -> None:
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 - see close()
        except OSError as error:
            raise _trouble(error) from error
        self.fd = self._file.fileno()
        self.size = 0
        """Bytes."""

    def append(self, data: memoryview) -> None:
        """Write behind what is there."""
        try:
            while data:
                written = os.write(self.fd, data)
                self.size += written
                data = data[written:]
        except OSError as error:
            raise _trouble(error) from error

    def read(self, start: int, view: memoryview) -> None:
        """Fill ``view`` with what lies at ``start``, all of which must be there."""
        try:
            while view:
                size = os.preadv(self.fd, (view,), start)
                if not size:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                start, view = start + size, view[size:]
        except OSError as error:
            raise _trouble(error) from error

    def close(self) -> None:
        """Give the file and its room back; a second call does nothing."""
        self._file.close()


def _trouble(error: OSError) -> SourceError | StoreFull:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreFull(
            "there is no room left for a temporary file: make some, or set TMPDIR to a larger place"
        )
    reason = os.strerror(error.errno or 0)
    return SourceError(f"a temporary file can not be used ({reason}): check its folder, or set TMPDIR")
