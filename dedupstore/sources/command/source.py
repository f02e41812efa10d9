"""One stream as a source: a folder ``/`` with a single node, which holds what was read.

The stream can be read once, so a `StreamSource` can be walked once. A failed command, or a descriptor
that can not be read, must leave no snapshot behind: `all_or_nothing` is set.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import SourceError, UsageError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.base import Item, Listing
from dedupstore.sources.command.output import ByteFeed, CommandFeed, DescriptorFeed
from dedupstore.sources.made import MadeFolder
from dedupstore.sources.owners import OwnedSource
from dedupstore.sources.segments import RECORD, pack_segment

_MODE = 0o600
_NAME_MAX = 255


class StreamSource(OwnedSource):
    """A source of one stream named ``name``; ``start`` is called when the stream is opened.

    Raises `UsageError` if ``name`` can not be a file's name.
    """

    all_or_nothing = True

    def __init__(
        self,
        kind: str,
        name: bytes,
        start: Callable[[], ByteFeed],
        *,
        options: dict[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        if name in {b"", b".", b".."} or b"/" in name or b"\0" in name or len(name) > _NAME_MAX:
            raise UsageError(f"{printable(name)!r} can not be a file's name: give one without slashes")
        self.spec = SourceSpec(kind, (b"/" + name,), options or {})
        self._name = name
        self._start = start
        self._clock = clock
        self._folder: StreamFolder | None = None
        words = repr((kind, name, sorted(self.spec.options.items())))
        self.key = hashlib.blake2b(words.encode(), digest_size=16).digest()

    @property
    def absent(self) -> Sequence[tuple[bytes, SourceError]]:
        """Never anything."""
        return ()

    def top(self) -> "StreamFolder":
        """Return the folder with the one stream."""
        self._folder = StreamFolder(self._name, self._start, self._clock)
        return self._folder

    def close(self) -> None:
        """Stop the stream if it was left open."""
        if self._folder is not None:
            self._folder.close()


class StreamFolder(MadeFolder):
    """``/`` with one stream in it; see `dedupstore.sources.base.Folder`. One thread."""

    def __init__(self, name: bytes, start: Callable[[], ByteFeed], clock: Clock) -> None:
        super().__init__(b"/")
        self._start = start
        self._stream: ByteStream | None = None
        now = clock.now()
        seconds = int(now.timestamp())
        # A random inode: no listing ever equals an earlier one, so the stream is always read.
        inode = int.from_bytes(clock.random(8), "little")
        times = (now.microsecond * 1000, now.microsecond * 1000, inode, -1, seconds, seconds)
        record = RECORD.pack(stat.S_IFREG | _MODE, 1, os.getuid(), os.getgid(), *times, 0, 0)
        self._listing = (pack_segment([(name, record)]),)

    def listing(self) -> Listing:
        """Return the one entry; its size is -1, not known."""
        return self._listing

    def node(self, item: Item) -> Node:
        """Return the stream's node as far as it is known before reading."""
        return _node(item, 0)

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Say that it does not fit: a stream can not be read twice, so it is always opened."""
        del into
        return _node(item, 0), -1

    def open(self, item: Item) -> "ByteStream":
        """Start the command, or begin to read."""
        if self._stream is not None:
            raise SourceError(f"{printable(item.name)} can be read only once: run the backup again")
        self._stream = ByteStream(item, self._start())
        return self._stream

    def folder(self, item: Item) -> "StreamFolder":
        """Raise: there are no folders here."""
        raise SourceError(f"{printable(item.name)} is no folder: a stream has none; report this")

    def close(self) -> None:
        """Stop the stream if it is still open."""
        if self._stream is not None:
            self._stream.close()


class ByteStream:
    """A feed as a `dedupstore.sources.base.Stream`; it never changes under the reader."""

    changed = False
    cutter = None

    def __init__(self, item: Item, feed: ByteFeed) -> None:
        self._item = item
        self._feed = feed
        self._size = 0
        self._ended = False

    def read_next(self, view: memoryview) -> int:
        """Read on; raises `SourceError` at the end if the command failed."""
        if self._ended:
            return 0
        size = self._feed.fill(view)
        self._ended = size < len(view)
        self._size += size
        return size

    def finish(self) -> Node:
        """Return the node with the size as read. Raises `SourceError` if the end was not reached."""
        if not self._ended:
            raise SourceError(f"{printable(self._item.name)} was not read to its end: run the backup again")
        return _node(self._item, self._size)

    def close(self) -> None:
        """Stop; a second call does nothing."""
        self._feed.close()


def command_source(name: bytes, argv: Sequence[bytes], *, clock: Clock = SYSTEM_CLOCK) -> StreamSource:
    """Return the output of ``argv`` as a source of kind ``command``; it runs when it is read.

    Raises `UsageError` for an empty command or an impossible name.
    """
    if not argv:
        raise UsageError("no command was given: write it after --")
    words = tuple(argv)
    options = {"command": printable(b" ".join(words))}
    return StreamSource("command", name, lambda: CommandFeed(words), options=options, clock=clock)


def stdin_source(name: bytes, fd: int = 0, *, clock: Clock = SYSTEM_CLOCK) -> StreamSource:
    """Return what comes in on a descriptor (standard input) as a source of kind ``stdin``."""
    return StreamSource("stdin", name, lambda: DescriptorFeed(fd, "standard input"), clock=clock)


def _node(item: Item, size: int) -> Node:
    return Node(
        item.name, int(NodeKind.STREAM), item.mode & 0o7777, item.uid, item.gid, item.mtime, size
    )  # fmt: skip
