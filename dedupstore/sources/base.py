"""What a source is: a tree of folders that the archiver walks and reads, whatever lies behind it.

The archiver goes depth first, in byte order of names, with a stack of its own. It asks a folder for
its `Listing` first: opaque bytes that are equal exactly when nothing it could see has changed, so
an unchanged folder costs one comparison. Only a listing that differs is taken apart into `Item`.

Errors: whatever can not be read raises `SourceError` (or `SourceVanished`, `SourceChanged`) naming
the path; the source stays usable and the archiver decides whether to go on.

Threads: any method of a folder may be called from any thread, and several at once; a `Stream`
belongs to one thread at a time. Memory: a listing costs about 100 bytes an entry, everything else
is bounded by a segment or by the caller's buffer.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from dedupstore.errors import SourceError
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import Node, SourceSpec

SEGMENT_ENTRIES = 4096
"""Most entries in one segment of a listing."""

LAST = -2
"""`Item.size` of a regular file that is read only when all else in its folder, and below, has been."""

Listing: TypeAlias = tuple[bytes, ...]
"""A folder's entries as segments in byte order of names; layout in ``segments.py``."""


class StartAgain(Exception):
    """Asks to forget what was read of a file and to open it once more: it has to be read in another way.

    Raised while a stream is read or cut, by it or its cutter; the folder sees to it that this ends.
    ``doubt`` is what is wrong with the file though it will be stored: a finding once it is.
    """

    def __init__(self, doubt: SourceError | None = None) -> None:
        super().__init__("open the file once more")
        self.doubt = doubt


class Item(NamedTuple):
    """One entry of a folder as its listing tells it."""

    name: bytes
    record: bytes
    """The fixed-size stat record: equal bytes, unchanged entry."""
    mode: int
    """``st_mode`` with its type bits; 0 if the entry could not be looked at (`Folder.node` raises).

    Permission bits without type bits: the content is known already, `Folder.node` gives all of it.
    """
    nlink: int
    uid: int
    gid: int
    dev: int
    ino: int
    size: int
    """Bytes; -1 if not known before reading (a command's output); or `LAST`."""
    mtime: int
    """Nanoseconds since 1970."""
    ctime: int
    """Nanoseconds since 1970."""
    rdev: int
    """Devices: number as the kernel gives it; 0 otherwise (or the errno, where ``mode`` is 0)."""


class Cutter(Protocol):
    """Where the chunks of one stream end, and what each is called. One stream, one thread.

    A label is opaque: up to 255 bytes, not less than the label before it in the same file. Either every
    chunk of a file has one or none has (it is empty then).
    """

    @property
    def max_size(self) -> int:
        """Bytes: no chunk is longer, and a window this long always holds a whole chunk."""
        ...

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        """Return the whole chunks in ``data``, each as where it ends and its label.

        ``data`` begins where a chunk begins. Without ``final`` what is behind the last end is offered
        again, with more behind it. The last call has ``final`` and must cut all that is left, which may
        be nothing. The memory belongs to the caller again afterwards.
        Raises `SourceError` for bytes that are not what this cutter cuts.
        """
        ...


class Stream(Protocol):
    """One open file, read from front to end. Close it in every case."""

    @property
    def cutter(self) -> Cutter | None:
        """What cuts it; ``None``: the repository's own chunker. With a cutter there are no holes."""
        ...

    @property
    def changed(self) -> bool:
        """After `finish`: whether it changed while it was read, so that the bytes may be a mixture."""
        ...

    def read_next(self, view: memoryview) -> int:
        """Read on.

        Returns n > 0: n bytes were put at the start of ``view`` (perhaps fewer than fit);
        n < 0: a hole of -n bytes, any length, comes next and is passed over; 0: the end.
        Raises `SourceError`.
        """
        ...

    def finish(self) -> Node:
        """Return the node after the end was reached: metadata as of now, size as it was read."""
        ...

    def close(self) -> None:
        """Give the file back; a second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """Content that the repository has: a part of a patched file. A few thousand entries at most."""

    entries: Sequence[tuple[ChunkId, int, bytes]]
    """Chunk, its bytes, its label (empty where the file's chunks have none)."""
    expand: Callable[[tuple[ChunkId, int, bytes]], Sequence[tuple[ChunkId, int, bytes]]] | None = None
    """If there is one the entries are whole pages of a chunk list, each with the bytes under it and its first
    label, and this returns the chunks of one. Those are not looked up: pages must hang under a tree that the
    source adopts."""


@runtime_checkable
class Patch(Protocol):
    """A file that consists of parts of an old one and new parts. Close it in every case.

    The archiver looks every known chunk up. If the repository has lost one it raises `ObjectNotFound`
    and no snapshot comes of it: the source has to be read anew.
    """

    def parts(self) -> Iterator[Known | Stream]:
        """Yield what the file consists of, front to end; called once.

        Each stream is read to its end and closed before the next part is asked for; its `Stream.finish`
        is not called. A cutter ends its last chunk where its stream ends. Raises `SourceError`.
        """
        ...

    def finish(self) -> Node:
        """Return the node after the last part; content and size are filled in by the archiver."""
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...


class Folder(Protocol):
    """One folder of a source. Close it when its entries, and the folders below it, are done."""

    @property
    def path(self) -> bytes:
        """Absolute path, for messages; built on every call."""
        ...

    @property
    def key(self) -> bytes:
        """BLAKE2b-128 of `path`: names this folder in the stat cache."""
        ...

    @property
    def unstable(self) -> set[bytes]:
        """Names of files that changed while they were read; what is cached of them must not be trusted."""
        ...

    def listing(self) -> Listing:
        """Look at the folder now: every entry, before any exclusion. Raises `SourceError`."""
        ...

    def items(self, segment: bytes) -> list[Item]:
        """Take one segment of this folder's listing apart and leave out what is excluded."""
        ...

    def folders(self, segment: bytes) -> list[Item]:
        """Return only the folders among `items`: cheaper where nothing else is wanted."""
        ...

    def node(self, item: Item) -> Node:
        """Return the whole node of an entry that is not a regular file; content and subtree are empty.

        Where `Item.mode` has no type bits it is a file or stream with content, which hangs under one of
        `Source.adopts` and is taken over on trust: its chunks are not looked up.
        Raises `SourceError` if it can not be looked at, `SourceVanished` if it is gone.
        """
        ...

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Read a whole regular file in one go; returns its node and how many bytes are in ``into``.

        -1 bytes: it does not fit (or its size is not known), use `open`; the node then has no meaning.
        The metadata is of the moment after the last byte. A file that changed meanwhile is read once
        more; if it changed again its name goes to `unstable` and the bytes last read are returned.
        Raises `SourceError`, `SourceVanished`, `SourceChanged` (it is no regular file any more).
        """
        ...

    def expect(self, items: Sequence[Item]) -> None:
        """Hear that these are about to be read, in this order: a hint, which may do nothing."""
        ...

    def open(self, item: Item) -> Stream | Patch:
        """Open a regular file of any size; raises as `read` does.

        A `Patch` is for files that `read` says do not fit (an `Item.size` of -1 spares that question).
        """
        ...

    def folder(self, item: Item) -> "Folder":
        """Return the folder behind an item; it is opened when it is first listed."""
        ...

    def descends(self, item: Item) -> bool:
        """Whether to go into this folder; if not it is stored empty (a mount point left out)."""
        ...

    def close(self) -> None:
        """Give the folder back; a second call does nothing. Reads under way in other threads end well."""
        ...


@runtime_checkable
class ReadsRuns(Protocol):
    """A `Folder` that can read many small files in one go."""

    def read_run(self, items: Sequence[Item], into: memoryview) -> list[Node | None]:
        """Read whole regular files one behind the other, each with the bytes that its item says.

        Returns the node of each; ``None`` for one that is not as its item says, or that can not be
        read: ask `Folder.read` for that one. Its bytes in ``into`` mean nothing then.
        """
        ...


class Source(Protocol):
    """A tree to be backed up."""

    @property
    def spec(self) -> SourceSpec:
        """What is backed up, in words that a later run can compare."""
        ...

    @property
    def key(self) -> bytes:
        """16 bytes: hash of the kind, the paths and every option that decides what is included."""
        ...

    @property
    def all_or_nothing(self) -> bool:
        """Whether any `SourceError` must end the run without a snapshot (a command that failed)."""
        ...

    @property
    def absent(self) -> Sequence[tuple[bytes, SourceError]]:
        """After `top`: source paths that are not there, each with its error."""
        ...

    @property
    def adopts(self) -> Sequence[TreeId]:
        """After `top`: trees of earlier snapshots under which the content hangs that is given as known."""
        ...

    def top(self) -> Folder:
        """Return the folder ``/``, which holds only what leads to the source paths, down to them.

        Raises `SourceError` if none of the source paths is there, `UsageError` if they contradict
        each other.
        """
        ...

    def position(self) -> bytes | None:
        """After the walk: where the source's log stood, for the snapshot to keep. Raises `SourceError`."""
        ...

    def instant(self) -> datetime | None:
        """After the walk: the moment (UTC) that the data is of; ``None``: when the run commits."""
        ...

    def user_name(self, uid: int) -> bytes | None:
        """Name of a numeric owner, if it has one; remembered."""
        ...

    def group_name(self, gid: int) -> bytes | None:
        """Name of a numeric group, if it has one; remembered."""
        ...

    def close(self) -> None:
        """Give back whatever is still open; a second call does nothing."""
        ...
