"""The two calls that touch every entry: list a folder, read small files. This is their definition.

``_folder.c`` does the same in one stretch without the interpreter's lock; a property test holds it to
byte-identical answers. `make_lister` picks what there is. Neither keeps any state; both raise a bare
``OSError``, which the folder turns into a named one.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

from dedupstore.errors import UsageError
from dedupstore.sources.segments import failed_record, pack_record, pack_segment

_native: ModuleType | None
try:
    from dedupstore.sources.files import _folder as _native
except ImportError:
    _native = None

Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]

O_PATH = getattr(os, "O_PATH", os.O_RDONLY)
O_NOATIME = getattr(os, "O_NOATIME", 0)
_LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


Reading: TypeAlias = tuple[int, bytes, Xattrs]
"""Bytes read, or -1 if there are more than fit; stat record; extended attributes."""


@dataclass(frozen=True, slots=True)
class Lister:
    """One implementation of the two calls."""

    name: str
    list_folder: Callable[[int, int], Sequence[bytes]]
    read_files: Callable[
        [int, tuple[tuple[bytes, int], ...], memoryview | bytearray, int], Sequence[Reading | int]
    ]

    def read_file(self, dirfd: int, name: bytes, buffer: memoryview | bytearray, dev: int) -> Reading:
        """Read one file, with all of ``buffer`` as its room. Raises ``OSError``."""
        (found,) = self.read_files(dirfd, ((name, len(buffer)),), buffer, dev)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found


def list_folder(fd: int, segment_entries: int) -> list[bytes]:
    """Return the segments of the folder open as ``fd`` (``O_PATH`` is enough).

    Entries that vanish before they are looked at are left out; those that can not be looked at for
    another reason stay, with mode 0. Raises ``OSError`` if the folder itself can not be read.
    """
    dev = os.fstat(fd).st_dev
    # A second open gives a position of our own, and fails once where entries could not be reached.
    own = open_quietly(b".", _LIST_FLAGS, fd)
    try:
        names = sorted(set(map(os.fsencode, os.listdir(own))))
        if not os.fstat(own).st_nlink:  # the C library calls a removed folder empty
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    finally:
        os.close(own)
    segments = []
    for start in range(0, len(names), segment_entries):
        entries = []
        for name in names[start : start + segment_entries]:
            try:
                record = pack_record(os.stat(name, dir_fd=fd, follow_symlinks=False), dev)
            except FileNotFoundError:
                continue
            except OSError as error:
                record = failed_record(error.errno or errno.EIO)
            entries.append((name, record))
        if entries:
            segments.append(pack_segment(entries))
    return segments


def read_files(
    dirfd: int, wanted: tuple[tuple[bytes, int], ...], buffer: memoryview | bytearray, dev: int
) -> list[Reading | int]:
    """Read whole regular files of one folder into ``buffer``, each into room of its own behind the last.

    ``wanted``: names, and bytes of room. Returns for each the bytes read, or -1 if there are more than
    fit (its room is then full); the stat record (for a folder on device ``dev``) and the extended
    attributes, both taken after the last byte. A name that is no regular file is not read, and its record
    says so; one that can not be read gives an errno. Raises ``ValueError`` if ``buffer`` is too small.
    """
    left = memoryview(buffer).cast("B")
    if any(room < 0 for _, room in wanted) or sum([room for _, room in wanted]) > len(left):
        raise ValueError("the files do not fit in the buffer")
    found: list[Reading | int] = []
    for name, room in wanted:
        try:
            found.append(_read_one(dirfd, name, left[:room], dev))
        except OSError as error:
            found.append(error.errno or errno.EIO)
        left = left[room:]
    return found


def _read_one(dirfd: int, name: bytes, view: memoryview, dev: int) -> Reading:
    fd = open_file(dirfd, name)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return 0, pack_record(status, dev), ()
        size = 0
        while size < len(view) and (n := os.readv(fd, (view[size:],))):
            size += n
        if size == len(view) and os.read(fd, 1):
            size = -1
        return size, pack_record(os.fstat(fd), dev), xattrs_of(fd)
    finally:
        os.close(fd)


def open_file(dirfd: int, name: bytes) -> int:
    """Open a file for reading without following a symlink, waiting for a writer, or touching its atime."""
    return open_quietly(name, _READ_FLAGS, dirfd)


def open_quietly(name: bytes, flags: int, dirfd: int) -> int:
    """Open ``name``; its access time stays as it is where we are allowed to leave it (owner, root)."""
    try:
        return os.open(name, flags | O_NOATIME, dir_fd=dirfd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(name, flags, dir_fd=dirfd)


def xattrs_of(file: int | bytes, *, follow: bool = True) -> Xattrs:
    """Return the extended attributes that can be read, sorted by name, values unmodified.

    None where the file system has none. An attribute that is refused or gone is left out: which ones
    we may see is a matter of privilege, not of the file.
    """
    try:
        names = os.listxattr(file, follow_symlinks=follow)
    except OSError:
        return ()
    found = []
    for text in names:
        try:
            found.append((os.fsencode(text), os.getxattr(file, text, follow_symlinks=follow)))
        except OSError:
            continue
    found.sort()
    return tuple(found)


def make_lister(*, native: bool | None = None) -> Lister:
    """Return the native calls if they were built, else these; ``native`` insists on one of them.

    Raises `UsageError` if the native ones are wanted and were not built.
    """
    if _native is not None and native is not False:
        return Lister("native", _native.list_folder, _native.read_files)
    if native:
        raise UsageError("the native folder reader was not built: install a C compiler and build again")
    return Lister("python", list_folder, read_files)
