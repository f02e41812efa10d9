"""The folder of a local cache: where it may lie, who has it open, and was it left whole.

Owns three files beside the database. ``open.lock`` is held shared by every process that has the
cache open and exclusively by one that is alone with it, so a cache is only ever thrown away when
nobody else looks at it. ``unsynced`` exists while the database holds commits that were never forced
to the disk, and names the boot in which they were made: a process that is killed loses nothing (the
kernel has the pages), a machine that stops does, and then the boot differs. The marker lies outside
the database, because after a power cut the database is the thing that can not be asked. Which boot
this is comes from the kernel; where the kernel does not say, a marker always counts against the cache.

Not safe for concurrent calls from several threads; its one caller holds a lock.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
from pathlib import Path

from dedupstore.errors import StoreError, StoreFull, UsageError

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
OPEN_LOCK = "open.lock"
MARKER = "unsynced"

NETWORK_FILE_SYSTEMS = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFE534D42: "SMB2",
    0xFF534D42: "CIFS",
    0x01021997: "9p",
}
"""``f_type`` of file systems whose locks and shared mappings the database can not rely on."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATFS_SIZE = 256
"""More than any kernel's ``struct statfs``; its first field, a C long, is ``f_type``."""
_ROOM_TO_OPEN = 1 << 20
_FULL_BELOW = 16 << 20
_FULL_CODES = frozenset((errno.ENOSPC, errno.EDQUOT))


def file_system_type(path: Path) -> int | None:
    """Return the kernel's type number of the file system at ``path``; ``None`` if it does not tell."""
    try:
        statfs = ctypes.CDLL(None, use_errno=True).statfs
    except (OSError, AttributeError):
        return None
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if statfs(os.fsencode(path), buffer) != 0:
        return None
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def refuse_network(path: Path, kind: int | None) -> None:
    """Raise `UsageError` if ``kind``, from `file_system_type`, is a network file system."""
    name = NETWORK_FILE_SYSTEMS.get(kind) if kind is not None else None
    if name is not None:
        raise UsageError(
            f"the cache folder {path} lies on {name}, where the index database can not be locked safely: "
            "choose a folder on a local disk with --cache-dir",
            path=path,
        )


def boot_id() -> bytes:
    """Return what names this boot of the machine; empty if the kernel does not say."""
    try:
        return _BOOT_ID.read_bytes().strip()
    except OSError:
        return b""


class CacheFolder:
    """One cache folder, as one process sees it. ``path`` is created, for its owner only, by `prepare`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / DATA_FILE
        self._marker = path / MARKER
        self._lock: int | None = None

    def prepare(self, *, readonly: bool) -> None:
        """Make the folder; raises `UsageError` on a network file system, `StoreError` if it can not be.

        A full disk is refused here: the database maps its lock file, and a page of a mapping that the
        disk has no room for kills the process.
        """
        try:
            if not readonly:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_network(self.path, file_system_type(self.path))
            lock = self.path / LOCK_FILE
            if not readonly and self.free() < _ROOM_TO_OPEN and not (lock.exists() and lock.stat().st_blocks):
                raise self.full()
        except OSError as error:
            raise self.trouble(error) from error

    def enter(self) -> bool:
        """Register as a user of the folder; return whether nobody else is one (then exclusively).

        Waits, shortly, while another process is alone with it.
        """
        try:
            self._lock = os.open(self.path / OPEN_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(self._lock, fcntl.LOCK_SH)
                return False
        except OSError as error:
            self.leave()
            raise self.trouble(error) from error
        return True

    def enter_readonly(self) -> None:
        """Register as a user if the folder lets us; one on a read-only disk has no writers to fear."""
        try:
            self._lock = os.open(self.path / OPEN_LOCK, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError:
            self.leave()

    def share(self) -> None:
        """Let others in. Not atomic in the kernel: compare `inode` before and after."""
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Stop being a user of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def inode(self) -> int | None:
        """Return the inode number of the database file; ``None`` if there is none."""
        try:
            return self.data.stat().st_ino
        except FileNotFoundError:
            return None

    def lost_power(self) -> bool:
        """Return whether unforced commits of an earlier boot are in the database."""
        try:
            made_in = self._marker.read_bytes()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.trouble(error) from error
        return not made_in or made_in != boot_id()

    def mark(self) -> None:
        """Note durably, before the first commit that is not forced to the disk, that there is one.

        Cheap when it is noted already. Called under the database's writer lock, so that no other
        process takes the marker away between this and the commit.
        """
        if self._marker.exists():
            return
        fresh = self.path / f"{MARKER}.new"
        try:
            with fresh.open("wb") as file:
                file.write(boot_id())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._marker)
            self._sync_folder()
        except OSError as error:
            raise self.trouble(error) from error

    def marked(self) -> bool:
        """Return whether the database holds commits that were not forced to the disk."""
        return self._marker.exists()

    def unmark(self) -> None:
        """Note that everything is on the disk. Called under the writer lock, after a sync."""
        try:
            self._marker.unlink(missing_ok=True)
            self._sync_folder()
        except OSError as error:
            raise self.trouble(error) from error

    def fill_up(self, size: int) -> None:
        """Extend the database file to ``size`` bytes where free pages at its end were never written.

        After that, a file that is shorter than its pages has been cut off.
        """
        try:
            if self.data.stat().st_size < size:
                os.truncate(self.data, size)
        except OSError as error:
            raise self.trouble(error) from error

    def wipe(self) -> None:
        """Remove the database and its marker. Only for a process that is alone with the folder."""
        try:
            for name in (DATA_FILE, LOCK_FILE, MARKER):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise self.trouble(error) from error

    def writable(self) -> bool:
        """Return whether this process may write to the folder and the database in it."""
        return os.access(self.path, os.W_OK) and (not self.data.exists() or os.access(self.data, os.W_OK))

    def size_on_disk(self) -> int:
        """Return the bytes that the database file takes on the disk."""
        try:
            return self.data.stat().st_blocks * 512
        except OSError as error:
            raise self.trouble(error) from error

    def free(self) -> int:
        """Return the bytes that are free for this user on the cache's disk."""
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def full(self) -> StoreFull:
        """Return the error that says that there is no room for the cache."""
        return StoreFull(
            f"no space left for the cache in {self.path}: make room there, or choose another folder "
            "with --cache-dir",
            path=self.path,
        )

    def trouble(self, error: OSError) -> StoreError:
        """Return what an error of the file system means, as one of this package's."""
        if self.out_of_space(error.errno):
            return self.full()
        return StoreError(
            f"the cache folder {self.path} can not be used ({error.strerror or error}): check its owner "
            "and disk, or choose another folder with --cache-dir",
            path=self.path,
        )

    def out_of_space(self, code: int | None) -> bool:
        """Return whether an error number means a full disk.

        The database reports a full disk as an input/output error, so that one asks the disk.
        """
        if code in _FULL_CODES:
            return True
        if code != errno.EIO:
            return False
        with contextlib.suppress(OSError):
            return self.free() < _FULL_BELOW
        return False

    def _sync_folder(self) -> None:
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
