"""Folders kept open, but not too many: a depth of thousands must not need thousands of descriptors.

A `Handle` stands for one folder. It is opened, relative to its parent, when it is first used. Beyond
the pool's limit the one opened longest ago that nobody uses is closed; in a walk that is the oldest
ancestor. When it is needed again the way down to it is opened component by component from
the nearest ancestor that is still open, and the last ones stay open, so that climbing out of a deep
tree costs one such descent for every ``limit`` levels.

Nothing here follows a symlink, but for the folders above a source path, which the user named.
Threads: all safe; a descriptor in use is never closed. Errors are bare ``OSError``.
"""

import errno
import hashlib
import os
import threading

from dedupstore.sources.files.listing import O_PATH

_WITHIN = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEADING = O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class HandlePool:
    """The open folders of one source; at most ``limit`` (2 or more) beside those in use."""

    def __init__(self, limit: int = 256) -> None:
        self.lock = threading.Lock()
        self._limit = limit
        self._open: dict[Handle, None] = {}  # in order of opening

    def root(self, path: bytes) -> "Handle":
        """Return a handle for a folder named by absolute path; symlinks in it are followed."""
        state = hashlib.blake2b(b"" if path == b"/" else path, digest_size=16)
        return Handle(self, None, path, state)

    def open(self, handle: "Handle") -> None:
        """Open a handle, and on the way those of its ancestors that are closed. The lock is held."""
        if handle.parent is not None and handle.parent.fd >= 0:
            self._keep(handle, handle.open_within(handle.parent.fd))
            return
        closed = []
        at: Handle | None = handle
        while at is not None and at.fd < 0:
            closed.append(at)
            at = at.parent
        fd = at.fd if at is not None else -1
        passing = -1  # of an ancestor that its owner has closed: open only until the next step is
        try:
            for step in reversed(closed):
                new = step.open_within(fd)
                if passing >= 0:
                    os.close(passing)
                    passing = -1
                if step.retired:
                    passing = new
                else:
                    self._keep(step, new)
                fd = new
        finally:
            if passing >= 0:
                os.close(passing)

    def drop(self, handle: "Handle") -> None:
        """Close a handle's descriptor, if it has one. The lock is held."""
        if handle.fd >= 0:
            del self._open[handle]
            os.close(handle.fd)
            handle.fd = -1

    def close(self) -> None:
        """Close everything, whatever still uses it."""
        with self.lock:
            for handle in list(self._open):
                handle.retired = True
                self.drop(handle)

    def _keep(self, handle: "Handle", fd: int) -> None:
        if len(self._open) >= self._limit:
            idle = next((other for other in self._open if not other.users), None)
            if idle is not None:
                self.drop(idle)
        handle.fd = fd
        self._open[handle] = None


class Handle:
    """One folder that can be opened as often as needed; bracket every use with acquire and release."""

    __slots__ = ("_identity", "_pool", "_state", "fd", "name", "parent", "retired", "users")

    def __init__(
        self, pool: HandlePool, parent: "Handle | None", name: bytes, state: "hashlib.blake2b"
    ) -> None:
        self._pool = pool
        self._state = state  # hash of the path; continued by children, or depth would cost its square
        self._identity: tuple[int, int] | None = None
        self.parent = parent
        self.name = name
        """Relative to ``parent``, or an absolute path if there is none."""
        self.fd = -1
        self.users = 0
        self.retired = False

    def child(self, name: bytes) -> "Handle":
        """Return a handle, not yet open, for a folder in this one."""
        state = self._state.copy()
        state.update(b"/" + name)
        return Handle(self._pool, self, name, state)

    def leading(self, name: bytes) -> "Handle":
        """Return a handle, not yet open, for a folder in this one that may be a symlink to a folder."""
        path = self.path
        return self._pool.root(path + name if path == b"/" else path + b"/" + name)

    @property
    def key(self) -> bytes:
        """BLAKE2b-128 of `path`."""
        if self.parent is None and self.name == b"/":
            return hashlib.blake2b(b"/", digest_size=16).digest()
        return self._state.digest()

    @property
    def path(self) -> bytes:
        """The absolute path."""
        names = []
        at = self
        while at.parent is not None:
            names.append(at.name)
            at = at.parent
        names.append(b"" if at.name == b"/" else at.name)
        names.reverse()
        return b"/".join(names) or b"/"

    @property
    def dev(self) -> int:
        """Device the folder lies on; raises ``OSError`` if that takes opening it and it can not be."""
        if self._identity is None:
            self.acquire()
            self.release()
            assert self._identity is not None
        return self._identity[0]

    def acquire(self) -> int:
        """Return the open descriptor, good until `release`; raises ``OSError``."""
        pool = self._pool
        with pool.lock:
            if self.fd < 0:
                if self.retired:
                    raise ValueError("the folder is closed")
                pool.open(self)
            self.users += 1
            return self.fd

    def release(self) -> None:
        """Say that a descriptor from `acquire` is no longer used."""
        with self._pool.lock:
            self.users -= 1
            if self.retired and not self.users:
                self._pool.drop(self)

    def close(self) -> None:
        """Close it, as soon as nobody uses it."""
        with self._pool.lock:
            self.retired = True
            if not self.users:
                self._pool.drop(self)

    def open_within(self, dirfd: int) -> int:
        """Open this folder relative to its parent's descriptor and check that it is still the same."""
        if self.parent is None:
            fd = os.open(self.name, _LEADING)
        else:
            fd = os.open(self.name, _WITHIN, dir_fd=dirfd)
        status = os.fstat(fd)
        identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        elif self._identity != identity:
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return fd
