"""The vocabulary: frozen values that every layer speaks in. No I/O, no behaviour worth a test.

Names inside a snapshot are ``bytes`` exactly as the source gave them. Sizes and offsets are bytes,
times are nanoseconds since 1970 (files) or aware UTC datetimes (snapshots).

`Node` and `Summary` are msgspec structs rather than dataclasses: they exist in millions, and decode
straight from a stored page without a second object each.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Self, TypeAlias, cast, overload

import msgspec

from dedupstore.ids import ChunkId, PackId, SnapshotId, TreeId

Data: TypeAlias = bytes | bytearray | memoryview

_MEMBER = struct.Struct("<32sI")


class ChunkKind(IntEnum):
    """What a chunk holds; also the kind of pack it lies in, and part of every id's key."""

    DATA = 1
    TREE = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk's plaintext side."""

    id: ChunkId
    kind: ChunkKind
    data: Data


@dataclass(frozen=True, slots=True)
class Record:
    """One sealed record inside a pack: it holds one chunk, or a group of small ones."""

    pack: PackId
    number: int
    """Position in the pack, from 0; also the nonce."""
    offset: int
    """Bytes from the start of the pack object."""
    length: int
    """Sealed length, bytes."""
    codec: int
    plain_length: int
    """Bytes after opening and expanding."""
    base: ChunkId | None = None
    """The chunk whose plaintext is the dictionary for this record, if it is a delta."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where one chunk lies: a slice of an expanded record."""

    record: Record
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Member:
    """One chunk as a pack's directory lists it."""

    id: ChunkId
    size: int


@dataclass(frozen=True, slots=True)
class Members(Sequence[Member]):
    """The chunks of one record in order of position inside it.

    They stay in the one string in which they are listed and stored: an object for each would cost as much as
    the chunk's hash.
    """

    packed: bytes
    """36 bytes each: id, u32 size."""

    @classmethod
    def of(cls, *members: Member) -> Self:
        """Return these."""
        return cls(b"".join([_MEMBER.pack(member.id, member.size) for member in members]))

    @property
    def ids(self) -> list[ChunkId]:
        """The ids alone."""
        # The struct gives exactly this; the cast spares a call for each.
        return cast("list[ChunkId]", [chunk for chunk, _ in _MEMBER.iter_unpack(self.packed)])

    @property
    def sizes(self) -> list[int]:
        """The sizes alone."""
        return [size for _, size in _MEMBER.iter_unpack(self.packed)]

    def __len__(self) -> int:
        return len(self.packed) // _MEMBER.size

    def __iter__(self) -> Iterator[Member]:
        for chunk, size in _MEMBER.iter_unpack(self.packed):
            yield Member(chunk, size)

    @overload
    def __getitem__(self, position: int) -> Member: ...
    @overload
    def __getitem__(self, position: slice) -> list[Member]: ...
    def __getitem__(self, position: int | slice) -> Member | list[Member]:
        return list(self)[position]


@dataclass(frozen=True, slots=True)
class PackContents:
    """A pack as its directory tells it; what an index segment keeps of it."""

    id: PackId
    kind: ChunkKind
    epoch: int
    size: int
    """Bytes of the whole object."""
    salt: bytes
    records: tuple[tuple[Record, Members], ...]


class NodeKind(IntEnum):
    """What an entry of a folder is."""

    FILE = 1
    DIR = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHAR_DEVICE = 6
    BLOCK_DEVICE = 7
    STREAM = 8
    """Bytes with no file behind them: a command's output, a dump, a slice of a log."""


class Summary(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What lies under a page: entries that are not folders, their bytes, the newest mtime (ns)."""

    files: int = 0
    bytes: int = 0
    newest: int = 0


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a folder. Field order is the stored order (see ``FORMAT.md``)."""

    name: bytes
    kind: int
    mode: int = 0
    """Permission bits with set-id and sticky (12 bits)."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since 1970; may be negative."""
    size: int = 0
    """Bytes of a file or stream; 0 for everything else."""
    content: bytes = b""
    """Concatenated content entries (chunk id, u32 length), or one list page id if ``depth``."""
    depth: int = 0
    """0: ``content`` is the list itself; n: levels of list pages above it."""
    subtree: bytes | None = None
    """DIR: id of the folder's top page."""
    summary: Summary | None = None
    """DIR: what lies under it."""
    target: bytes = b""
    """SYMLINK: where it points."""
    rdev: int = 0
    """Devices: device number as the kernel gives it."""
    link: bytes = b""
    """Hard-link group: equal in all entries of a snapshot that are one file; empty for single links."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Extended attributes sorted by name, POSIX ACLs among them."""
    extra: dict[str, bytes] | None = None
    """For later versions; kept and not understood."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What was backed up, in words that a later run can compare."""

    kind: str
    """``files``, ``command``, ``stdin``, or a plug-in's name."""
    paths: tuple[bytes, ...]
    """Absolute, as at the source."""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a snapshot's run saw and stored; sizes in bytes."""

    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    files_failed: int = 0
    files: int = 0
    bytes: int = 0
    bytes_new: int = 0
    """Plaintext of chunks that the repository did not have."""
    stored_bytes: int = 0
    """What the run added to the store."""
    chunks_new: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point in time. Small; everything else hangs under ``root``."""

    root: TreeId
    time: datetime
    host: str
    user: str
    source: SourceSpec
    parent: SnapshotId | None
    tags: frozenset[str]
    sequence: int
    """One more than any snapshot the writer knew; order of commits, not of clocks."""
    statistics: Statistics
    users: Mapping[int, bytes] = field(default_factory=dict)
    """Names of the numeric owners in this tree."""
    groups: Mapping[int, bytes] = field(default_factory=dict)
    name: str = ""
    position: bytes | None = None
    """Where a source with a log stood (an oplog timestamp, say)."""
    hold: str | None = None
    """Why this snapshot must not be forgotten; ``None``: it may."""
    expiry: datetime | None = None
    program: str = ""
