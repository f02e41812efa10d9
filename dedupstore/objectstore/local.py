"""`LocalStore`: a repository in a folder of a local or network file system.

Layout under the root, fixed by the format: ``config``, ``keys/<name>``, ``packs/<two digits>/<name>``,
``index/<name>``, ``sessions/<name>``, ``snapshots/<name>``, ``gc/<name>``, and ``lock``, an empty file that
matters only while somebody holds a lock on it. Everything else is foreign and left alone.

Durability: a file is flushed before it gets its name, and its folder after; a new folder is flushed in
its parent. See `dedupstore.objectstore.durable` for how. Threads and processes: any number; changes
of mutable objects exclude each other by ``flock`` on ``lock``, all else needs no lock. Reads change
nothing and need no write permission. Memory: what a call returns; a listing, one folder's entries.
No descriptor is kept open between calls.

Permissions follow the root folder: what it lets its owner and group do, they may do with all under it.
"""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import ObjectDamaged, ObjectExists, ObjectNotFound, StoreError, UsageError
from dedupstore.model import Data
from dedupstore.objectstore.base import (
    MUTABLE,
    ObjectInfo,
    ObjectKey,
    ObjectKind,
    is_valid_name,
    require_mutable,
)
from dedupstore.objectstore.durable import FileLock, FileMaker
from dedupstore.objectstore.oserrors import read_failure, write_failure

_FOLDERS = tuple(kind.value for kind in ObjectKind if kind is not ObjectKind.CONFIG)
_FAN_OUT = 2
"""Leading digits of a pack's name that name its folder, so that no folder grows without bound."""
_LOCK = "lock"
# O_NONBLOCK: a FIFO that somebody put in an object's place must not hang the reader.
_READ = os.O_RDONLY | os.O_NONBLOCK


class LocalStore:
    """An `ObjectStore` in the folder ``path``."""

    def __init__(
        self, path: Path, *, direct: bool = True, anonymous: bool = True, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Name the folder; nothing is touched yet, and it need not exist to be asked for its config.

        ``direct``: let large writes pass by the page cache (packs are not read back soon).
        ``anonymous``: write through nameless files. Both give way by themselves where the file system
        can not; switching them off is for file systems that only pretend.
        """
        self._root = os.path.abspath(path)
        permissions = _permissions(self._root)
        self._folder_mode = permissions
        self._lock = FileLock(f"{self._root}/{_LOCK}", permissions & 0o666)
        self._files = FileMaker(
            self._lock, mode=permissions & 0o666, anonymous=anonymous, direct=direct, clock=clock
        )
        self._durable_folders: set[str] = set()

    @classmethod
    def create(
        cls, path: Path, *, direct: bool = True, anonymous: bool = True, clock: Clock = SYSTEM_CLOCK
    ) -> Self:
        """Make the folder and those inside it, durable on return, and return the store.

        The folder must be absent (its parent must exist) or empty, as a first attempt that was cut
        short leaves it; a new one is for its owner alone. Raises `ObjectExists` if it holds anything,
        `StoreFull`, `ReadOnlyError`, `StoreError`.
        """
        root = os.path.abspath(path)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(root, 0o700)
            if not _is_empty(root):
                if os.path.lexists(f"{root}/{ObjectKind.CONFIG.value}"):
                    raise ObjectExists(
                        f"{root} holds a repository already: use it, or choose a new or an empty folder",
                        path=root,
                    )
                raise ObjectExists(f"{root} is not empty: choose a new or an empty folder", path=root)
            _flush_folder(os.path.dirname(root))
            mode = _permissions(root)
            for name in _FOLDERS:
                _make_folder(f"{root}/{name}", mode)
            _flush_folder(root)
        except OSError as error:
            raise write_failure(error, "a new repository", root, path=root) from error
        return cls(path, direct=direct, anonymous=anonymous, clock=clock)

    def __repr__(self) -> str:
        return f"LocalStore({self._root!r})"

    def get(self, key: ObjectKey) -> bytes:
        """Return a whole object. See `ObjectReader.get`."""
        with self._opened(key) as (descriptor, size):
            return _read(descriptor, 0, size, key)

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one object. See `ObjectReader.get_ranges`."""
        with self._opened(key) as (descriptor, size):
            for offset, length in ranges:
                if offset < 0 or length < 0:
                    raise UsageError(f"range {offset}+{length} of {key} is negative", key=key)
                if offset + length > size:
                    raise _too_short(key, size, offset, length)
            return [_read(descriptor, offset, length, key) for offset, length in ranges]

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Return size and time of an object. See `ObjectReader.stat`."""
        with self._reading(key):
            status = os.stat(self._path(key))
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(key)
        return _info(key, status)

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        """Visit the objects of a kind, sorted within each folder. See `ObjectReader.listing`."""
        if kind is ObjectKind.CONFIG:
            key = ObjectKey(kind, kind.value)
            if key.name.startswith(prefix):
                with contextlib.suppress(ObjectNotFound):
                    yield self.stat(key)
            return
        top = f"{self._root}/{kind.value}"
        if kind is not ObjectKind.PACK:
            yield from self._folder_listing(kind, top, prefix)
            return
        try:
            fans = sorted(name for name in os.listdir(top) if name.startswith(prefix[:_FAN_OUT]))
        except OSError as error:
            self._check_missing_folder(error, top)
            return
        for fan in fans:
            if len(fan) == _FAN_OUT:
                yield from self._folder_listing(
                    kind, f"{top}/{fan}", prefix if len(prefix) > _FAN_OUT else fan
                )

    def close(self) -> None:
        """Do nothing: no descriptor is kept."""

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        """Create an object. See `ObjectWriter.put`."""
        with self._writing(key), self._folder(key) as folder:
            self._files.create(folder, key.name, parts)
            os.fsync(folder)

    def replace(self, key: ObjectKey, data: bytes | None, *, expect: bytes | None) -> None:
        """Compare and swap a mutable object, under the store's lock. See `ObjectWriter.replace`."""
        require_mutable(key, data, expect)
        with self._writing(key), self._folder(key) as folder, self._lock.held():
            try:
                present = self.get(key)
            except ObjectNotFound:
                present = None
            if present != expect:
                raise ObjectExists(f"{key} is not what was expected there: read it again", key=key)
            if data is None:
                os.unlink(key.name, dir_fd=folder)
            elif expect is None:
                # A put() of the same name takes no lock, so this too must not overwrite.
                self._files.create(folder, key.name, (data,), locked=True)
            else:
                self._files.overwrite(folder, key.name, data)
            os.fsync(folder)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove objects, flushing each folder once at the end. See `ObjectStore.delete`."""
        changed: dict[str, ObjectKey] = {}
        try:
            for key in keys:
                path = self._path(key)
                with self._writing(key), self._excluding_swaps(key):
                    try:
                        os.unlink(path)
                    except FileNotFoundError:
                        os.stat(self._root)  # already gone is fine, the whole disk being gone is not
                    else:
                        changed[os.path.dirname(path)] = key
        finally:
            for folder, key in changed.items():
                with self._writing(key):
                    _flush_folder(folder)

    def _path(self, key: ObjectKey) -> str:
        if key.kind is ObjectKind.PACK:
            return f"{self._root}/packs/{key.name[:_FAN_OUT]}/{key.name}"
        if key.kind is ObjectKind.CONFIG:
            return f"{self._root}/{key.name}"
        return f"{self._root}/{key.kind.value}/{key.name}"

    @contextlib.contextmanager
    def _reading(self, key: ObjectKey) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectNotFound(
                f"{key} is not in {self._root}: check that its disk is mounted, then run verify", key=key
            ) from error
        except OSError as error:
            raise read_failure(error, str(key), self._root, key=key) from error

    @contextlib.contextmanager
    def _writing(self, key: ObjectKey) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise ObjectExists(f"{key} is already in {self._root}: choose a new name", key=key) from error
        except OSError as error:
            raise write_failure(error, str(key), self._root, key=key) from error

    @contextlib.contextmanager
    def _opened(self, key: ObjectKey) -> Iterator[tuple[int, int]]:
        with self._reading(key):
            descriptor = os.open(self._path(key), _READ)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise _not_a_file(key)
                yield descriptor, status.st_size
            finally:
                os.close(descriptor)

    @contextlib.contextmanager
    def _folder(self, key: ObjectKey) -> Iterator[int]:
        """Open the folder that ``key`` lies in, made and durable if it was not."""
        path = os.path.dirname(self._path(key))
        if path != self._root:
            self._ensure_folder(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _ensure_folder(self, path: str) -> None:
        if path in self._durable_folders:
            return
        parent = os.path.dirname(path)
        if parent == self._root:
            # Made by create(). One that a copying tool dropped for being empty is made again, but only
            # beside a config: an empty mount point whose disk is away must not fill with objects.
            if not os.path.isdir(path) and os.path.exists(f"{self._root}/{ObjectKind.CONFIG.value}"):
                _make_folder(path, self._folder_mode)
        else:
            self._ensure_folder(parent)
            _make_folder(path, self._folder_mode)
        # Also when it was there: whoever made it may not have come to this yet.
        _flush_folder(parent)
        self._durable_folders.add(path)  # a race between threads does the work twice, which is harmless

    @contextlib.contextmanager
    def _excluding_swaps(self, key: ObjectKey) -> Iterator[None]:
        if key.kind not in MUTABLE:
            yield
            return
        with self._lock.held():
            yield

    def _folder_listing(self, kind: ObjectKind, path: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(path) as entries:
                # Read to the end before the first is handed out: whatever the caller adds or deletes on the
                # way can not make the file system show an entry twice.
                found = sorted(
                    (entry for entry in entries if entry.name.startswith(prefix)),
                    key=lambda entry: entry.name,
                )
        except OSError as error:
            self._check_missing_folder(error, path)
            return
        for entry in found:
            if not is_valid_name(kind, entry.name):
                continue
            key = ObjectKey(kind, entry.name)
            try:
                with self._reading(key):
                    status = entry.stat()
            except ObjectNotFound:
                continue  # deleted since
            if stat.S_ISREG(status.st_mode):
                yield _info(key, status)

    def _check_missing_folder(self, error: OSError, path: str) -> None:
        """Return if a folder that may be missing is; raise for everything else that went wrong."""
        if isinstance(error, NotADirectoryError):
            return  # a foreign file
        if not isinstance(error, FileNotFoundError):
            raise read_failure(error, path, self._root) from error
        if not os.path.isdir(self._root):
            raise StoreError(
                f"{self._root} is not there: check that its disk is mounted", path=self._root
            ) from error


def open_folder(url: str, create: bool) -> LocalStore:
    """Open or create the store at a path or an absolute ``file`` URL; raises `UsageError` and as `create`."""
    path = url
    if url.lower().startswith("file:"):
        parts = urlsplit(url)
        path = unquote(parts.path)
        if parts.netloc not in {"", "localhost"} or parts.query or parts.fragment or path[:1] != "/":
            raise UsageError(
                f"{url!r} is no local file URL: write file:///path, with %3F for ? and %23 for #"
            )
    if not path or "\0" in path:
        raise UsageError(f"{url!r} names no folder: give the path of one")
    return LocalStore.create(Path(path)) if create else LocalStore(Path(path))


def _permissions(root: str) -> int:
    """Return the mode for folders in a store; that of files is the same without the x bits."""
    try:
        mode = stat.S_IMODE(os.stat(root).st_mode)
    except OSError:
        return 0o700  # whatever is wrong with it, the first real access says so better
    return 0o700 | mode & 0o2070


def _is_empty(root: str) -> bool:
    for name in os.listdir(root):
        if name == "lost+found":  # the top of a fresh file system
            continue
        if name not in _FOLDERS or os.listdir(f"{root}/{name}"):
            return False
    return True


def _make_folder(path: str, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)
        os.chmod(path, mode)  # the umask is this process's, the store's mode is the store's


def _flush_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, length: int, key: ObjectKey) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) == length:
        return data
    pieces = [data]  # a signal, or a length above the kernel's limit of about 2 GiB a call
    done = len(data)
    while done < length:
        piece = os.pread(descriptor, length - done, offset + done)
        if not piece:
            raise _too_short(key, offset + done, offset, length)
        pieces.append(piece)
        done += len(piece)
    return b"".join(pieces)


def _info(key: ObjectKey, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _too_short(key: ObjectKey, size: int, offset: int, length: int) -> ObjectDamaged:
    return ObjectDamaged(
        f"{key} is {size} bytes long, but bytes {offset}+{length} of it are needed: "
        "run verify to learn what is affected",
        key=key,
    )


def _not_a_file(key: ObjectKey) -> ObjectDamaged:
    return ObjectDamaged(f"{key} is no regular file: move away what lies in its place", key=key)
