"""Folders of the target: every step goes by descriptor, one plain name at a time, never along a link.

The target's own path is opened once and links in it are followed, because the user named it. From there
on a folder is reached from its parent's descriptor with ``O_NOFOLLOW | O_DIRECTORY``: with single names
that is what ``openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`` promises, on every kernel. Reopening
checks that it is the same folder.

Descriptors are shared and counted by references: whoever holds a `Descriptor` may use its number, and it
is closed when the last holder lets go. So the cache drops one at any time, and no call needs a lock
while the descriptor is there. Threads: any. Errors are bare ``OSError``. Memory: a `Place` (about 120
bytes) for every folder somebody still refers to; at most ``limit`` descriptors beside those in use.
"""

import errno
import os
import resource
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

WITHIN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
DESCRIPTORS = 8192
"""Folders kept open, if this process may open four times as many files: as many as a restore works in at a
time. With 256, the 11 300 folders of a system's library folder were opened 37 000 times."""


class Descriptor(int):
    """The number of an open file, which is closed when nobody refers to it any more.

    So it must be handed on as it is: a plain ``int`` made of it keeps nothing open.
    """

    __slots__ = ()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Bound early: `os` may be gone when the interpreter ends.
        close(self)


class Place:
    """One folder of the target that exists. Use `descriptor` if it is there, else `Beneath.open`."""

    __slots__ = ("descriptor", "identity", "name", "parent", "strips")

    def __init__(self, parent: "Place | None", name: bytes) -> None:
        self.parent = parent
        self.name = name
        """A plain name; of the root, its path."""
        self.descriptor: Descriptor | None = None
        self.identity: tuple[int, int] | None = None
        self.strips = False
        """Whether it gives new entries an ACL that they must not keep."""

    @property
    def path(self) -> bytes:
        """The whole path, for messages; never used to reach anything."""
        names = []
        at: Place | None = self
        while at is not None:
            names.append(at.name)
            at = at.parent
        names[-1] = names[-1].rstrip(b"/")
        return b"/".join(reversed(names)) or b"/"


class Beneath:
    """The target folder, and which folders under it are open."""

    def __init__(self, path: Path, limit: int | None = None) -> None:
        """Open ``path``, which must be a folder, and keep ``limit`` open beneath it. Raises ``OSError``."""
        self._lock = threading.Lock()
        self._kept: deque[Place] = deque()
        self._limit = _within_limits() if limit is None else limit
        self.root = Place(None, os.fsencode(path))
        self.root.descriptor = Descriptor(os.open(path, _ROOT))

    def open(self, place: Place) -> Descriptor:
        """Return a place's descriptor, opening what is closed on the way down to it."""
        kept = place.descriptor
        if kept is not None:
            return kept
        with self._lock:
            closed = []
            at = place
            while (held := at.descriptor) is None:
                closed.append(at)
                assert at.parent is not None  # the root stays open
                at = at.parent
            while closed:
                step = closed.pop()
                held = Descriptor(os.open(step.name, WITHIN, dir_fd=held))
                self._check(step, held)
                self._keep(step, held)
            return held

    def adopt(self, place: Place, number: int) -> None:
        """Take over a descriptor that somebody opened for a new place."""
        held = Descriptor(number)
        with self._lock:
            self._check(place, held)
            self._keep(place, held)

    def drop(self, place: Place) -> None:
        """Close a place's descriptor as soon as nobody uses it; it may be opened again."""
        if place.parent is not None:
            place.descriptor = None

    def close(self) -> None:
        """Let go of every descriptor, the root's too."""
        with self._lock:
            for place in self._kept:
                place.descriptor = None
            self._kept.clear()
            self.root.descriptor = None

    def _check(self, place: Place, held: Descriptor) -> None:
        status = os.fstat(held)
        identity = (status.st_dev, status.st_ino)
        if place.identity is None:
            place.identity = identity
        elif place.identity != identity:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def _keep(self, place: Place, held: Descriptor) -> None:
        # First in, first out: a restore goes in path order, so the oldest is the one it has left.
        while len(self._kept) >= self._limit:
            self._kept.popleft().descriptor = None
        place.descriptor = held
        self._kept.append(place)


def _within_limits() -> int:
    """Return how many folders may be open, so that most of what the process may open is left to others."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else max(1, min(DESCRIPTORS, soft // 4))
