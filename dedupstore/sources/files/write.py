"""The target: a folder of this machine that takes things back, and nothing outside it.

Owns every change a restore makes to a file system. It decides nothing: what is to be made, kept or
removed is said by the caller, who names a `Place` and a plain name.

A name never shows a partial file: content goes to ``.dstore-XXXXXXXX.tmp`` in the same folder, where nobody
reads it who may not read it in the end, and is renamed when it is whole. (Measured on ext4: the rename is
5 of some 50 µs a file, an unnamed ``O_TMPFILE`` with ``linkat`` costs the same and can not replace; a folder
built under another name would lose all of its progress with an interruption.) What a killed run leaves
behind is such names, which the next one removes.

Threads: any; a `Draft` may be written by several at once. Durability: nothing is forced to the disk;
after a power cut, run again. Errors are bare ``OSError`` until the caller says which path they
concern (`refusals`). Memory: at most `DRAFTS` open drafts and `beneath.DESCRIPTORS` folders.
"""

import contextlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from dedupstore.model import Node, NodeKind
from dedupstore.sources.files.beneath import WITHIN, Beneath, Descriptor, Place
from dedupstore.sources.files.deposit import STRIP_ACL, is_plain_name, write_all
from dedupstore.sources.files.metadata_apply import (
    Owners,
    differs,
    dress_link,
    dress_open,
    dress_unopenable,
    gives_acls,
    strip_acls,
)

DRAFTS = 64
"""Open files that are being written; a draft beyond that is reopened for its next piece."""

_TEMP = re.compile(rb"\.dstore-[0-9a-f]{8}\.tmp", re.ASCII)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TYPES = {
    NodeKind.FIFO: stat.S_IFIFO,
    NodeKind.SOCKET: stat.S_IFSOCK,
    NodeKind.CHAR_DEVICE: stat.S_IFCHR,
    NodeKind.BLOCK_DEVICE: stat.S_IFBLK,
}

Keep = Callable[[bytes, bool], bool]
"""Told a path and whether it is a folder: whether it must stay."""


class Draft:
    """A file under way: its temporary name, and the descriptor while that is open."""

    __slots__ = ("descriptor", "identity", "place", "size", "temp")

    def __init__(self, place: Place, size: int) -> None:
        self.place = place
        self.size = size
        self.temp = b""
        self.descriptor: Descriptor | None = None
        self.identity: tuple[int, int] | None = None


class Target:
    """A folder to restore into.

    A context manager: leaving it removes drafts that were not finished and lets go of all descriptors.
    """

    def __init__(self, path: Path, owners: Owners, random: Callable[[int], bytes]) -> None:
        """Open the folder ``path``, which must exist. Raises ``OSError``."""
        self.owners = owners
        self.incomplete = 0
        """Things whose owner or attributes were not all set for lack of privileges."""
        self._beneath = Beneath(path)
        self.root = self._beneath.root
        self.root.strips = gives_acls(self.open(self.root))
        self._token = int.from_bytes(random(4), "little")
        self._tokens: set[bytes] = set()
        self._drafts: OrderedDict[Draft, None] = OrderedDict()
        self._begun: set[Draft] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for draft in list(self._begun):
            with contextlib.suppress(OSError):
                self.abandon(draft)
        self._beneath.close()

    def open(self, place: Place) -> Descriptor:
        """Return the open folder; keep the result as long as its number is used."""
        return place.descriptor or self._beneath.open(place)

    def temp_name(self) -> bytes:
        """Return a name for something incomplete that nobody else in this run has."""
        with self._lock:
            return self._next_temp()

    def _next_temp(self) -> bytes:
        self._token = (self._token + 1) & 0xFFFFFFFF
        name = b".dstore-%08x.tmp" % self._token
        self._tokens.add(name)
        return name

    # Folders

    def make_folder(self, parent: Place, name: bytes) -> Place:
        """Make a folder that only its owner may enter, until `finish_folder`."""
        _require_plain(name)
        folder = self.open(parent)
        os.mkdir(name, 0o700, dir_fd=folder)
        place = Place(parent, name)
        self._beneath.adopt(place, os.open(name, WITHIN, dir_fd=folder))
        if parent.strips:
            strip_acls(self.open(place))
        return place

    def enter_folder(self, parent: Place, name: bytes, *, write: bool = True) -> Place:
        """Return the place of an existing folder; a link is refused.

        With ``write`` a folder of our own that we may not write to is made so, until `finish_folder`
        or `restore_mode`.
        """
        _require_plain(name)
        place = Place(parent, name)
        folder = self.open(parent)
        if write and os.geteuid() != 0:
            _unlock(folder, name)
        held = self.open(place)
        place.strips = gives_acls(held)
        return place

    def finish_folder(self, place: Place, node: Node, *, fresh: bool) -> int:
        """Give a folder its attributes, after everything in it; return an outcome as `deposit.dress`."""
        outcome = dress_open(self.open(place), node, self.owners, fresh=fresh)
        self._beneath.drop(place)
        return outcome

    def restore_mode(self, place: Place, mode: int) -> None:
        """Give a folder that stays as it was its permission bits back."""
        os.chmod(self.open(place), mode)
        self._beneath.drop(place)

    # Looking

    def look(self, place: Place, name: bytes) -> os.stat_result | None:
        """Return what stands at a name, the link itself if it is one; None if nothing does."""
        try:
            return os.stat(name, dir_fd=self.open(place), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def link_target(self, place: Place, name: bytes) -> bytes:
        """Return where a symlink points."""
        return os.readlink(name, dir_fd=self.open(place))

    def differs(self, place: Place, name: bytes, node: Node) -> bool:
        """Whether an existing thing of the node's kind has other attributes than the node."""
        folder = self.open(place)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        # There is no listxattrat(); this path leads through the descriptor, not through the folders.
        return differs(node, status, self.owners, b"/proc/self/fd/%d/%s" % (folder, name))

    def names(self, place: Place) -> list[bytes]:
        """Return the names in a folder, sorted as a snapshot sorts them."""
        return sorted(map(os.fsencode, os.listdir(self.open(place))))

    def read(self, place: Place, name: bytes) -> Descriptor:
        """Open an existing regular file for reading; a link is refused."""
        held = Descriptor(os.open(name, _LOOK, dir_fd=self.open(place)))
        if not stat.S_ISREG(os.fstat(held).st_mode):
            raise FileNotFoundError(2, "no longer a regular file")
        return held

    # Files of several pieces

    def write(self, draft: Draft, view: memoryview, offset: int) -> None:
        """Write a piece of a file; the first one makes the file, at its full size."""
        write_all(self._writable(draft), view, offset)

    def finish(self, draft: Draft, name: bytes, node: Node) -> int:
        """Give a whole file its attributes and its name; return an outcome as `deposit.dress`.

        If the outcome is a failure, nothing of the file is left.
        """
        _require_plain(name)
        held = self._writable(draft)
        if draft.place.strips:
            strip_acls(held)
        outcome = dress_open(held, node, self.owners, fresh=True)
        if outcome & 0xFFFF:
            self.abandon(draft)
            return outcome
        folder = self.open(draft.place)
        os.rename(draft.temp, name, src_dir_fd=folder, dst_dir_fd=folder)
        self._forget(draft)
        return outcome

    def abandon(self, draft: Draft) -> None:
        """Remove what there is of a file that will not be whole."""
        if draft.identity is not None:
            try:
                os.unlink(draft.temp, dir_fd=self.open(draft.place))
            finally:
                self._forget(draft)

    def _writable(self, draft: Draft) -> Descriptor:
        held = draft.descriptor
        if held is not None:
            return held
        with self._lock:
            held = draft.descriptor
            if held is None:
                if not draft.temp:
                    draft.temp = self._next_temp()
                held = self._open_draft(draft)
                draft.descriptor = held
                self._drafts[draft] = None
                while len(self._drafts) > DRAFTS:
                    oldest, _ = self._drafts.popitem(last=False)
                    oldest.descriptor = None
            return held

    def _open_draft(self, draft: Draft) -> Descriptor:
        folder = self.open(draft.place)
        held = Descriptor(
            os.open(draft.temp, _CREATE if draft.identity is None else _AGAIN, 0o600, dir_fd=folder)
        )
        status = os.fstat(held)
        identity = (status.st_dev, status.st_ino)
        if draft.identity is None:
            draft.identity = identity
            self._begun.add(draft)
            os.truncate(held, draft.size)
        elif draft.identity != identity or not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(2, "the file was replaced while it was written")
        return held

    def _forget(self, draft: Draft) -> None:
        with self._lock:
            self._drafts.pop(draft, None)
            self._tokens.discard(draft.temp)
            self._begun.discard(draft)
            draft.descriptor = None

    # Everything that is not a regular file, and second names

    def make_other(self, place: Place, name: bytes, node: Node, *, replace: bool) -> None:
        """Make a symlink, FIFO, socket or device; ``replace``: in place of what stands there."""
        _require_plain(name)
        folder = self.open(place)
        made = self.temp_name() if replace else name
        try:
            if node.kind == NodeKind.SYMLINK:
                os.symlink(node.target, made, dir_fd=folder)
            else:
                kind = _TYPES[NodeKind(node.kind)]
                device = node.rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
                os.mknod(made, kind | 0o600, device, dir_fd=folder)
            self.dress_other(place, made, node)
            if replace:
                os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            if replace:
                remove_quietly(folder, made)
            raise
        finally:
            self._tokens.discard(made)

    def dress_other(self, place: Place, name: bytes, node: Node) -> None:
        """Give something that is neither file nor folder its attributes."""
        apply = dress_link if node.kind == NodeKind.SYMLINK else dress_unopenable
        self.count(not apply(self.open(place), name, node, self.owners))

    def dress_file(self, place: Place, name: bytes, node: Node) -> int:
        """Give an existing regular file its attributes; return an outcome as `deposit.dress`."""
        return dress_open(self.read(place, name), node, self.owners, fresh=False)

    def link(self, first: tuple[Place, bytes], place: Place, name: bytes) -> bool:
        """Make ``name`` another name of a file; False if it was one already."""
        _require_plain(name)
        source, folder = self.open(first[0]), self.open(place)
        numbers = {"src_dir_fd": source, "dst_dir_fd": folder}
        try:
            os.link(first[1], name, follow_symlinks=False, **numbers)
        except FileExistsError:
            there, ours = self.look(place, name), self.look(*first)
            if there and ours and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return False
            temp = self.temp_name()
            os.link(first[1], temp, follow_symlinks=False, **numbers)
            try:
                os.rename(temp, name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                self._tokens.discard(temp)
        return True

    # Removing

    def remove(self, place: Place, name: bytes, keep: Keep | None = None, path: bytes = b"") -> int:
        """Remove an entry, a folder with everything in it but what ``keep`` says; return how many went.

        No link is followed. ``path`` is what ``keep`` is told for the entry.
        """
        status = self.look(place, name)
        if status is None:
            return 0
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self.open(place))
            return 1
        return self._remove_folder(place, name, keep, path)

    def remove_empty(self, place: Place, name: bytes) -> None:
        """Remove a folder that has nothing in it."""
        os.rmdir(name, dir_fd=self.open(place))

    def _remove_folder(self, place: Place, name: bytes, keep: Keep | None, path: bytes) -> int:
        removed = 0
        top = self.enter_folder(place, name)
        stack: list[tuple[Place, bytes, list[bytes], bool]] = [(top, path, self.names(top), False)]
        while stack:
            here, where, names, kept = stack.pop()
            while names:
                entry = names.pop()
                status = self.look(here, entry)
                inner = where + b"/" + entry
                is_dir = status is not None and stat.S_ISDIR(status.st_mode)
                if keep is not None and keep(inner, is_dir):
                    kept = True
                elif is_dir:
                    stack.append((here, where, names, kept))
                    deeper = self.enter_folder(here, entry)
                    stack.append((deeper, inner, self.names(deeper), False))
                    break
                elif status is not None:
                    os.unlink(entry, dir_fd=self.open(here))
                    removed += 1
            else:
                self._beneath.drop(here)
                if not kept and here.parent is not None:
                    os.rmdir(here.name, dir_fd=self.open(here.parent))
                    removed += 1
                elif stack:
                    stack[-1] = (*stack[-1][:3], True)
        return removed

    def remove_stale(self, place: Place, names: list[bytes]) -> Iterator[bytes]:
        """Remove what an interrupted run left in a folder, and yield each such name of ``names``."""
        folder = self.open(place)
        for name in names:
            if name.startswith(b".dstore-") and _TEMP.fullmatch(name) and name not in self._tokens:
                status = self.look(place, name)
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    os.unlink(name, dir_fd=folder)
                    yield name

    def count(self, incomplete: bool) -> None:
        """Count something that lacks an owner or attribute for want of privileges."""
        if incomplete:
            with self._lock:
                self.incomplete += 1

    def job_mode(self, place: Place, mode: int) -> int:
        """Return a mode for `deposit.deposit` of a file in this folder."""
        return mode | STRIP_ACL if place.strips else mode


def remove_quietly(dirfd: int, name: bytes) -> None:
    """Unlink a name of ours if it is still there."""
    try:
        os.unlink(name, dir_fd=dirfd)
    except OSError:
        return


def _unlock(dirfd: int, name: bytes) -> None:
    """Make a folder of our own readable and writable for ourselves, without following a link."""
    held = Descriptor(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd))
    status = os.fstat(held)
    if status.st_uid == os.geteuid() and status.st_mode & 0o700 != 0o700:
        os.chmod(b"/proc/self/fd/%d" % held, stat.S_IMODE(status.st_mode) | 0o700)


def _require_plain(name: bytes) -> None:
    if not is_plain_name(name):
        raise OSError(22, "not a plain name")
