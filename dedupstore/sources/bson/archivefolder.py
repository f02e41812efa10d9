"""The folders that an archive stands for: what mongodump would have written without ``--archive``.

See `dedupstore.sources.base.Folder`. The listing comes from the prelude and the archive's own times, so that
an archive as it was is known without reading its documents.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dedupstore.clock import Clock
from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Item, Listing, Stream
from dedupstore.sources.bson.archive import Archive
from dedupstore.sources.bson.attempt import Attempt, Leaves, begin
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    PRELUDE,
    VIEW,
    CollectionInfo,
    file_name,
    parse_metadata,
    prelude_json,
)
from dedupstore.sources.bson.feed import Fill, feed_of
from dedupstore.sources.bson.prelude import Entry, Namespace
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.made import MadeFolder, segments_of
from dedupstore.sources.segments import RECORD

_FILE_MODE, _FOLDER_MODE = stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700
_UNESCAPED = frozenset(f"$admin.system.{what}" for what in ("users", "roles", "version"))
"""What stands for users and roles of one database: the names of these files are not escaped."""
_SECOND = 1_000_000_000
_U64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class _Documents:
    """A file of documents: where they lie, and what is known of their collection."""

    namespace: Namespace
    entry: Entry


_Content: TypeAlias = "bytes | _Documents | dict[bytes, _Content]"
_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all folders of one archive share."""

    archive: Archive
    leaves: Leaves
    temporary: Path | None
    uid: int
    gid: int
    mtime: int
    ctime: int
    """Nanoseconds."""
    inode: int
    size: int

    def record(self, content: _Content) -> bytes:
        """Return the stat record of an entry: that of the archive, with mode and size of its own."""
        mode = _FOLDER_MODE if isinstance(content, dict) else _FILE_MODE
        size = len(content) if isinstance(content, bytes) else -1
        mtime, mtime_ns = divmod(self.mtime, _SECOND)
        ctime, ctime_ns = divmod(self.ctime, _SECOND)
        return RECORD.pack(
            mode, 1, self.uid, self.gid, mtime_ns, ctime_ns, self.inode, size, mtime, ctime, self.size, 0
        )


def archive_folder(
    archive: Archive, status: os.stat_result, leaves: Leaves, temporary: Path | None, clock: Clock
) -> "ArchiveFolder":
    """Return the root of an archive whose file has that status. Raises `SourceError` for impossible names."""
    if stat.S_ISREG(status.st_mode):
        times, inode, size = (status.st_mtime_ns, status.st_ctime_ns), status.st_ino, status.st_size
    else:  # never what it was
        now = int(clock.now().timestamp() * _SECOND)
        times, inode, size = (now, now), int.from_bytes(clock.random(8), "little"), 0
    shared = _Shared(archive, leaves, temporary, status.st_uid, status.st_gid, *times, inode & _U64, size)
    return ArchiveFolder(shared, b"/", _contents(archive))


class ArchiveFolder(MadeFolder):
    """One folder: the root, or that of a database. One thread."""

    def __init__(self, shared: _Shared, path: bytes, contents: Mapping[bytes, _Content]) -> None:
        self._shared = shared
        self._contents = contents
        self._attempts: dict[bytes, Attempt] = {}
        super().__init__(path)

    def listing(self) -> Listing:
        """Return all entries."""
        return segments_of(
            [(name, self._shared.record(content)) for name, content in sorted(self._contents.items())]
        )

    def node(self, item: Item) -> Node:
        """Return the node of a database's folder."""
        return _node(item, NodeKind.DIR, 0)

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Read what the prelude holds; documents do not fit."""
        content = self._contents[item.name]
        if not isinstance(content, bytes) or len(content) > len(into):
            return _node(item, NodeKind.STREAM, 0), -1
        into[: len(content)] = content
        return _node(item, NodeKind.STREAM, len(content)), len(content)

    def open(self, item: Item) -> Stream:
        """Open documents, or metadata that is too long to read in one go."""
        content = self._contents[item.name]
        shared = self._shared
        attempt = self._attempts.get(item.name)
        if attempt is None:
            attempt = self._attempts[item.name] = self._attempt(item.name, content)
        if isinstance(content, _Documents):
            origin = _Origin(item, shared.archive.feed(content.namespace))
        elif isinstance(content, bytes):
            origin = _Origin(item, feed_of(content))
        else:
            raise SourceError(f"{printable(item.name)} is a folder of the archive, not a file; report this")
        return DocumentStream(origin, attempt, packed=False, name=item.name, folder=shared.temporary)

    def folder(self, item: Item) -> "ArchiveFolder":
        """Return the folder of a database."""
        content = self._contents[item.name]
        if not isinstance(content, dict):
            raise SourceError(f"{printable(item.name)} is no folder of the archive; report this")
        return ArchiveFolder(self._shared, os.path.join(self.path, item.name), content)

    def _attempt(self, name: bytes, content: _Content) -> Attempt:
        where = printable(os.path.join(self.path, name))
        entry = content.entry if isinstance(content, _Documents) else None
        if entry is None or not entry.metadata:
            return begin(where, None, self._shared.leaves)
        return begin(where, lambda: _info(entry), self._shared.leaves)


class _Origin:
    """Where the bytes of an entry come from; see `stream.Origin`."""

    changed = False

    def __init__(self, item: Item, fill: Fill) -> None:
        self._item = item
        self.read_next = fill

    def finish(self) -> Node:
        """Return the node; its size is what was read."""
        return _node(self._item, NodeKind.STREAM, 0)

    def close(self) -> None:
        """Nothing is open."""


def _contents(archive: Archive) -> dict[bytes, _Content]:
    """Return what lies in the root, from what the prelude lists."""
    prelude = archive.prelude
    root: dict[bytes, _Content] = {PRELUDE: prelude_json(prelude.server_version, prelude.tool_version)}
    for entry in prelude.entries:
        db, name = entry.namespace
        folder = root
        if db:
            inner = root.setdefault(_folder_name(db), {})
            if not isinstance(inner, dict):
                raise _unusable(db)
            folder = inner
        stem = name.encode() if name in _UNESCAPED else file_name(name)
        if entry.metadata:
            folder[stem + METADATA_SUFFIX] = entry.metadata
        if entry.kind != VIEW:
            folder[stem + DATA_SUFFIX] = _Documents(prelude.data_of(entry), entry)
    return root


def _folder_name(db: str) -> bytes:
    name = db.encode()
    if name in {b".", b"..", PRELUDE} or b"/" in name or b"\0" in name or len(name) > _NAME_MAX:
        raise _unusable(db)
    return name


def _unusable(db: str) -> SourceError:
    return SourceError(
        f"database {printable(db.encode())!r} of the archive can not be a folder: back it up as a file"
    )


def _info(entry: Entry) -> CollectionInfo:
    return parse_metadata(entry.metadata, entry.namespace.db, entry.namespace.collection)


def _node(item: Item, kind: NodeKind, size: int) -> Node:
    return Node(item.name, int(kind), stat.S_IMODE(item.mode), item.uid, item.gid, item.mtime, size)
