"""A folder of a dump: the files source's own, in which collections are read as such and gzip is undone.

Owner, mode, times and everything else of a file stay as they are found; so does what makes a file look
unchanged. Packed files appear under their unpacked names from the listing on.
See `dedupstore.sources.base.Folder`.
"""

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.model import Node
from dedupstore.sources.base import SEGMENT_ENTRIES, Item, Listing, Stream
from dedupstore.sources.bson.attempt import Attempt, Leaves, Way, begin
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.detect import OPLOG
from dedupstore.sources.bson.dump import METADATA_MAX, DumpFile, dump_files, info_of, is_packed
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.files.folder import FileFolder
from dedupstore.sources.segments import pack_segment, unpack_record, unpack_segment

HEAD = 5
"""Bytes from the start of a file that tell whether it is packed."""
_NOTHING = Node(name=b"", kind=0)


@dataclass(frozen=True, slots=True)
class DumpRules:
    """What all folders of one dump source share."""

    paths: frozenset[bytes]
    """Where the dumps lie, absolute."""
    leaves: Leaves
    temporary: Path | None
    """Folder for temporary files; ``None``: where the system has them."""


class DumpFolder:
    """``inner``, with a dump's files read as what they are; ``inside``: it lies in a dump, or is one."""

    def __init__(self, inner: FileFolder, rules: DumpRules, *, inside: bool) -> None:
        self._inner = inner
        self._rules = rules
        self._inside = inside
        self._files: dict[bytes, DumpFile] = {}
        self._shown: dict[bytes, bytes] = {}
        """Unpacked name of each packed file, by the name that it has."""
        self._records: dict[bytes, bytes] = {}
        """Stat records of metadata, by the name that it has."""
        self._names: list[bytes] = []
        self._attempts: dict[bytes, Attempt] = {}

    @property
    def path(self) -> bytes:
        """Absolute path; built on every call."""
        return self._inner.path

    @property
    def key(self) -> bytes:
        """BLAKE2b-128 of the path."""
        return self._inner.key

    @property
    def unstable(self) -> set[bytes]:
        """Names of files that changed while they were read."""
        found = self._inner.unstable
        return {self._shown.get(name, name) for name in found} if self._shown else found

    def listing(self) -> Listing:
        """Look at the folder now. Raises `SourceError`."""
        listing = self._inner.listing()
        if not self._inside:
            return listing
        items = [item for segment in listing for item in unpack_segment(segment, 0)]
        files = {item.name for item in items if stat.S_ISREG(item.mode)}
        self._files = dump_files(files, {item.name for item in items})
        self._shown = {file.found: name for name, file in self._files.items() if file.packed}
        entries = sorted((self._shown.get(item.name, item.name), item.record) for item in items)
        self._names = [name for name, _ in entries]
        wanted = {file.metadata for file in self._files.values()} - {b""}
        self._records = {self._found(name): record for name, record in entries if name in wanted}
        if not self._shown:
            return listing
        starts = range(0, len(entries), SEGMENT_ENTRIES)
        return tuple(pack_segment(entries[start : start + SEGMENT_ENTRIES]) for start in starts)

    def items(self, segment: bytes) -> list[Item]:
        """Take one segment apart and leave out what is excluded, by the names that files have."""
        if not self._shown:
            return self._inner.items(segment)
        entries = sorted((self._found(item.name), item.record) for item in unpack_segment(segment, 0))
        items = self._inner.items(pack_segment(entries))
        return sorted(item._replace(name=self._shown.get(item.name, item.name)) for item in items)

    def folders(self, segment: bytes) -> list[Item]:
        """Return only the folders among `items`; they have the names that they have."""
        return self._inner.folders(segment)

    def node(self, item: Item) -> Node:
        """Return the node of an entry that is not a regular file."""
        return self._inner.node(item)

    def read(self, item: Item, into: memoryview) -> tuple[Node, int]:
        """Read a whole regular file; the dump's own say that they do not fit."""
        if item.name in self._files or self._is_oplog(item):
            return _NOTHING, -1
        return self._inner.read(item, into)

    def expect(self, items: Sequence[Item]) -> None:
        """Have the kernel start reading them."""
        self._inner.expect([item._replace(name=self._found(item.name)) for item in items])

    def open(self, item: Item) -> Stream:
        """Open a regular file of any size: documents, something packed, or any other."""
        file = self._files.get(item.name)
        if file is None and self._is_oplog(item) and self._begins_packed(item):
            file = DumpFile(item.name, packed=True)
        if file is None:
            return self._inner.open(item)
        attempt = self._attempts.get(item.name)
        if attempt is None:
            attempt = self._attempts[item.name] = self._attempt(item.name, file)
        return DocumentStream(
            self._inner.open(item._replace(name=file.found)),
            attempt,
            packed=file.packed,
            name=self._stored_name(item.name, file, attempt),
            folder=self._rules.temporary,
        )

    def folder(self, item: Item) -> "DumpFolder":
        """Return the folder behind an item."""
        inner = self._inner.folder(item)
        inside = self._inside or inner.path in self._rules.paths
        return DumpFolder(inner, self._rules, inside=inside)

    def descends(self, item: Item) -> bool:
        """Whether to go into this folder."""
        return self._inner.descends(item)

    def close(self) -> None:
        """Give the folder back."""
        self._inner.close()

    def _found(self, name: bytes) -> bytes:
        """Return the name that a file has."""
        file = self._files.get(name)
        return name if file is None else file.found

    def _is_oplog(self, item: Item) -> bool:
        return self._inside and item.name == OPLOG

    def _begins_packed(self, item: Item) -> bool:
        head = memoryview(bytearray(HEAD))
        stream = self._inner.open(item)
        try:
            return is_packed(bytes(head[: max(stream.read_next(head), 0)]))
        finally:
            stream.close()

    def _attempt(self, name: bytes, file: DumpFile) -> Attempt:
        where = printable(os.path.join(self.path, file.found))
        read_info = (lambda: self._info(name, file.metadata)) if file.metadata else None
        return begin(where, read_info, self._rules.leaves)

    def _info(self, name: bytes, metadata: bytes) -> CollectionInfo:
        """Read the metadata beside a file of documents."""
        found = self._found(metadata)
        item = unpack_record(found, self._records[found], 0)
        if not 0 <= item.size <= METADATA_MAX:
            raise SourceError(f"{printable(found)} is too long for metadata: take the dump again")
        buffer = memoryview(bytearray(item.size + 1))
        _, size = self._inner.read(item, buffer)
        if size < 0:
            raise SourceError(f"{printable(found)} grew while it was read: back it up again at rest")
        return info_of(bytes(buffer[:size]), name, os.path.basename(self.path), packed=found != metadata)

    def _stored_name(self, name: bytes, file: DumpFile, attempt: Attempt) -> bytes:
        """Return what the node is called: what stays packed keeps its name if the order of names allows."""
        place = bisect_right(self._names, name)
        following = self._names[place : place + 1]
        if attempt.way == Way.PACKED and (not following or following[0] > file.found):
            return file.found
        return name
