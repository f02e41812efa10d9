"""Opening a local cache: one environment a process, made anew if what lies there can not be used.

Owns the registry of what this process has open, and what a fork does to it. Threads: any. Between
processes the folder's open lock decides who may throw a cache away (see `CacheFolder`).
"""

import errno
import os
import threading
from pathlib import Path

import lmdb

from dedupstore.errors import NotFoundError, RepositoryBusy, StoreError
from dedupstore.repository.indexenv import UNUSABLE, CacheEnvironment
from dedupstore.repository.indexfolder import CacheFolder

CACHE_FORMAT = b"1"
"""Layout of the tables. A cache of any other is thrown away; nothing is ever migrated."""
DEFAULT_MAP_SIZE = 1 << 40
"""Bytes of address space to reserve. The file grows with its contents, so much costs nothing."""
TABLES = (b"meta", b"packs", b"packids", b"chunks", b"trees", b"snapshots", b"segments", b"stat", b"runs")

_LIB_VERSION = 0
"""LMDB's data format v1, said aloud: an environment variable could choose another for new files."""
_MIN_MAP_SIZE = 1 << 30
_MAX_READERS = 512
_SPARE_TRANSACTIONS = 0
"""Finished read transactions kept for reuse. None: they would save 0.15 µs a call, but each holds a slot
in the shared reader table, which a forked child takes from its parent when it closes what it inherited."""
_OPEN_ATTEMPTS = 5
_FORMAT_KEY = b"format"
_REPOSITORY_KEY = b"repository"
_NOT_ALLOWED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE))

_registry: dict[tuple[int, str], CacheEnvironment] = {}
_registry_lock = threading.RLock()


class _Unusable(Exception):
    """What lies in the folder can not be used; says why."""


def acquire(path: Path, repository: bytes, *, map_size: int, readonly: bool) -> CacheEnvironment:
    """Open the cache at ``path`` for a repository (16-byte id), or share it if this process has it open.

    What is missing, of another format or repository, damaged, or was open when the machine stopped is
    thrown away and made anew (``fresh``), except with ``readonly``: then it raises `NotFoundError`.
    Raises `UsageError` on a network file system, `RepositoryBusy` if another process uses a cache that
    this one would have to throw away, `StoreFull` or `StoreError` if the folder can not be used.
    """
    with _registry_lock:
        key = (os.getpid(), os.path.realpath(path))
        shared = _registry.get(key)
        if shared is None:
            shared = _open(Path(key[1]), repository, map_size, readonly)
            _registry[key] = shared
        elif shared.repository != repository:
            raise RepositoryBusy(
                f"the cache in {path} is in use for another repository: give each its own --cache-dir"
            )
        shared.users += 1
        return shared


def release(shared: CacheEnvironment) -> None:
    """Give back what `acquire` returned; the last one closes it."""
    with _registry_lock:
        shared.users -= 1
        key = (os.getpid(), str(shared.folder.path))
        if shared.users == 0 and _registry.get(key) is shared:
            del _registry[key]
            shared.close()


def _open(path: Path, repository: bytes, map_size: int, readonly: bool) -> CacheEnvironment:
    folder = CacheFolder(path)
    if readonly and not folder.data.exists():
        raise _no_cache(path, "it does not exist")
    folder.prepare(readonly=readonly)
    if readonly and not folder.writable():
        folder.enter_readonly()
        try:
            return _attempt(folder, repository, map_size, alone=True, create=False, readonly=True)
        except _Unusable as why:
            folder.leave()
            raise _no_cache(path, str(why)) from why
        except BaseException:
            folder.leave()
            raise
    for _ in range(_OPEN_ATTEMPTS):
        opened = _open_writable(folder, repository, map_size, keep=readonly)
        if opened is not None:
            return opened
    raise RepositoryBusy(f"other processes keep replacing the cache in {path}: give each its own --cache-dir")


def _open_writable(
    folder: CacheFolder, repository: bytes, map_size: int, *, keep: bool
) -> CacheEnvironment | None:
    """Open, or recreate unless ``keep``; ``None`` if another process replaced the files meanwhile."""
    alone = folder.enter()
    try:
        try:
            opened = _attempt(folder, repository, map_size, alone=alone, create=False, readonly=False)
        except _Unusable as why:
            if keep:
                raise _no_cache(folder.path, str(why)) from why
            if not alone:
                raise RepositoryBusy(
                    f"the cache in {folder.path} can not be used ({why}) and another process has it open: "
                    "wait for that one, or choose another folder with --cache-dir"
                ) from why
            opened = _recreate(folder, repository, map_size)
    except BaseException:
        folder.leave()
        raise
    ours = folder.inode()
    if alone:
        folder.share()
    if folder.inode() == ours:
        return opened
    # No flush: the marker that it would take away belongs to the new files.
    opened.abandon()
    return None


def _recreate(folder: CacheFolder, repository: bytes, map_size: int) -> CacheEnvironment:
    folder.wipe()
    try:
        return _attempt(folder, repository, map_size, alone=True, create=True, readonly=False)
    except _Unusable as why:
        raise StoreError(
            f"no cache can be made in {folder.path} ({why}): choose another folder with --cache-dir",
            path=folder.path,
        ) from why


def _no_cache(path: Path, why: str) -> NotFoundError:
    return NotFoundError(f"there is no usable cache in {path} ({why}): run `dstore cache rebuild`", path=path)


def _attempt(
    folder: CacheFolder, repository: bytes, map_size: int, *, alone: bool, create: bool, readonly: bool
) -> CacheEnvironment:
    """Open once; raises `_Unusable` for what would have to be thrown away."""
    if not create:
        if not folder.data.exists():
            raise _Unusable("it does not exist")
        # With others in it, it was judged by the first of them, in this boot.
        if alone and folder.lost_power():
            raise _Unusable("the machine stopped before it was written out")
    try:
        env = _map(folder, map_size, create=create, readonly=readonly)
    except UNUSABLE as error:
        raise _Unusable(str(error)) from error
    opened = CacheEnvironment(folder, repository, env, fresh=create)
    try:
        if alone and not create:
            _check_length(opened)
        if not readonly:
            env.reader_check()
        if create:
            opened.write(lambda txn: _identify(env, txn, repository))
        _open_tables(opened, env, repository)
    except lmdb.Error as error:
        env.close()
        raise _Unusable(str(error)) from error
    except BaseException:
        env.close()
        raise
    return opened


def _check_length(opened: CacheEnvironment) -> None:
    """Raise `_Unusable` if the file is shorter than its pages: reading those would kill the process.

    A process that was killed may have left free pages at the end unwritten; the marker tells.
    """
    folder = opened.folder
    if folder.data.stat().st_size >= opened.page_bytes():
        return
    if opened.readonly or not folder.marked():
        raise _Unusable("its file is cut off")
    folder.fill_up(opened.page_bytes())


def _map(folder: CacheFolder, map_size: int, *, create: bool, readonly: bool) -> lmdb.Environment:
    """Open with the largest map up to ``map_size`` that the address space has room for."""
    while True:
        try:
            return lmdb.Environment(
                str(folder.path),
                map_size=map_size,
                readonly=readonly,
                sync=False,
                metasync=False,
                map_async=False,
                writemap=False,
                mode=0o600,
                create=create,
                max_readers=_MAX_READERS,
                max_dbs=len(TABLES),
                max_spare_txns=_SPARE_TRANSACTIONS,
                lib_version=_LIB_VERSION,
            )
        except lmdb.MemoryError as error:
            if map_size <= _MIN_MAP_SIZE:
                raise StoreError(
                    f"no address space to map the cache in {folder.path}: raise the limit (ulimit -v)"
                ) from error
            map_size //= 4
        except UNUSABLE:
            raise
        except lmdb.Error as error:
            code = getattr(error, "code", None)
            if folder.out_of_space(code):
                raise folder.full() from error
            if code in _NOT_ALLOWED:
                raise folder.trouble(OSError(code, str(error))) from error
            raise _Unusable(str(error)) from error


def _identify(env: lmdb.Environment, txn: "lmdb.Transaction[bytes]", repository: bytes) -> None:
    tables = {name: env.open_db(name, txn=txn) for name in TABLES}
    txn.put(_FORMAT_KEY, CACHE_FORMAT, db=tables[b"meta"])
    txn.put(_REPOSITORY_KEY, repository, db=tables[b"meta"])


def _open_tables(opened: CacheEnvironment, env: lmdb.Environment, repository: bytes) -> None:
    """Fill ``opened.tables``; raises `_Unusable` for another format or repository."""
    while True:
        try:
            meta = env.open_db(b"meta", create=False)
            with env.begin(db=meta) as txn:
                if txn.get(_FORMAT_KEY) != CACHE_FORMAT:
                    raise _Unusable("it is of another version")
                if txn.get(_REPOSITORY_KEY) != repository:
                    raise _Unusable("it belongs to another repository")
            opened.tables = {name: env.open_db(name, create=False) for name in TABLES}
        except lmdb.MapResizedError:
            env.set_mapsize(0)  # another process grew it since we mapped it; nobody else has ours yet
        else:
            return


def _before_fork() -> None:
    _registry_lock.acquire()
    for shared in _registry.values():
        shared.pause()


def _after_fork_in_parent() -> None:
    for shared in _registry.values():
        shared.resume()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock  # noqa: PLW0603 - the parent's may be held by a thread that does not exist here
    for shared in _registry.values():
        shared.disown()
    _registry.clear()
    _registry_lock = threading.RLock()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
