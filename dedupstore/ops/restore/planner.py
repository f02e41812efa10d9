"""From wanted files to work by pack, a window of files at a time.

Files come in path order, packs were filled in the order of some backup. So files are gathered into
windows of bounded size, and within a window the plan is turned inside out::

    window:  file, its chunks …        (path order)
    work:    pack → record → (start, size, chunk, file, offset) …

and each record is opened once for all the files of the window that it feeds. A file too long for a window
goes on in the next. Memory: some 600 bytes a file and 300 a chunk of the window; nothing of it
depends on the size of the snapshot. One thread plans; what it hands over belongs to the receiver.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from dedupstore.errors import ChunkDamaged, DedupstoreError, NotFoundError, ObjectDamaged, ObjectNotFound
from dedupstore.findings import printable
from dedupstore.format.constants import LIST_ENTRY, LIST_ENTRY_SIZE
from dedupstore.ids import HOLE, ChunkId, PackId, short
from dedupstore.model import Node, Record
from dedupstore.ops.restore.linking import Leader
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.index import Place as Location
from dedupstore.sources.files.beneath import Place
from dedupstore.sources.files.write import Draft
from dedupstore.tree.walk import SURVIVABLE, LoadList, entries_of

WINDOW_FILES = 8192
WINDOW_CHUNKS = 16384
WINDOW_BYTES = 256 * 1024 * 1024
WORK_BYTES = 8 * 1024 * 1024
"""Sealed bytes of one pack that one thread takes at a time."""
WHOLE = -1
"""In place of an offset: the chunk is all of its file."""


class Slot:
    """One regular file on its way back."""

    __slots__ = ("draft", "error", "name", "node", "path", "place", "total", "written")

    def __init__(self, place: Place, name: bytes, node: Node, path: bytes) -> None:
        self.place = place
        self.name = name
        """What it will be called, which may not be the node's name."""
        self.node = node
        self.path = path
        """In the snapshot."""
        self.draft: Draft | None = None
        """If it has more than one piece."""
        self.total = -1
        """Pieces; -1 until the last one is planned."""
        self.written = 0
        self.error: DedupstoreError | None = None
        """Why it can not be restored."""


Piece: TypeAlias = tuple[int, int, ChunkId, Slot, int]
"""Start in the record, size, chunk, file, offset in the file or `WHOLE`."""


@dataclass(frozen=True, slots=True)
class PackWork:
    """Some records of one pack and what they feed."""

    pack: PackId
    records: list[Record]
    pieces: dict[int, list[Piece]]
    """By the record's number."""


@dataclass(frozen=True, slots=True)
class Made:
    """A folder whose attributes are still to be set."""

    place: Place
    node: Node
    path: bytes
    fresh: bool


@dataclass(frozen=True, slots=True)
class Linked:
    """A file that is to become another name of the leader's file."""

    slot: Slot
    leader: Leader


@dataclass(slots=True)
class Window:
    """A stretch of the snapshot in path order."""

    wanted: list[tuple[ChunkId, int, Slot, int]] = field(default_factory=list)
    """Chunk, length, file, offset or `WHOLE`."""
    slots: list[Slot] = field(default_factory=list)
    """Files that end in this window."""
    empties: list[Slot] = field(default_factory=list)
    planned: list[tuple[Slot, int]] = field(default_factory=list)
    """Files of several pieces whose last piece is in this window, and how many pieces they have."""
    links: list[Linked] = field(default_factory=list)
    folders: list[Made] = field(default_factory=list)
    """Folders left in this window, deeper ones first."""
    restored_modes: list[tuple[Place, int]] = field(default_factory=list)
    bytes: int = 0

    def is_full(self) -> bool:
        """Whether the next entry should go into another window."""
        return (
            len(self.wanted) >= WINDOW_CHUNKS
            or self.bytes >= WINDOW_BYTES
            or len(self.slots) + len(self.links) + len(self.folders) >= WINDOW_FILES
        )


class Planner:
    """Gathers files into windows and hands each over when it is full."""

    def __init__(self, load_list: LoadList, hand_over: Callable[[Window], None]) -> None:
        self.window = Window()
        self._load_list = load_list
        self._hand_over = hand_over

    def add(self, slot: Slot) -> None:
        """Plan a regular file."""
        node = slot.node
        content = node.content
        window = self.window
        if not node.depth and len(content) == LIST_ENTRY_SIZE:
            chunk, length = LIST_ENTRY.unpack(content)
            if length == node.size and chunk != HOLE:
                window.wanted.append((chunk, length, slot, WHOLE))
                window.bytes += length
                window.slots.append(slot)
                return
        if content or node.size:
            self._add_pieces(slot)
        else:
            window.empties.append(slot)
        self.window.slots.append(slot)

    def turn(self) -> None:
        """Begin another window if this one is full."""
        if self.window.is_full():
            self.flush()

    def flush(self) -> None:
        """Hand the present window over and begin another."""
        window, self.window = self.window, Window()
        self._hand_over(window)

    def _add_pieces(self, slot: Slot) -> None:
        size = slot.node.size
        slot.draft = Draft(slot.place, size)
        offset = count = 0
        try:
            for chunk, length in entries_of(self._load_list, slot.node):
                if offset + length > size:
                    offset = -1
                    break
                if chunk != HOLE:
                    if self.window.is_full():
                        self.flush()
                    self.window.wanted.append((chunk, length, slot, offset))
                    self.window.bytes += length
                    count += 1
                offset += length
            if offset != size:
                slot.error = ObjectDamaged(
                    f"the chunks of {printable(slot.path)} do not come to its size of {size} bytes: "
                    "run verify to see what is damaged"
                )
        except SURVIVABLE as error:
            slot.error = error
        self.window.planned.append((slot, count))


def plan(
    window: Window, index: LocalIndex, lose: Callable[[Slot, int, DedupstoreError], None]
) -> Iterator[PackWork]:
    """Yield the work of a window, pack by pack, in the order in which files first need them.

    ``lose`` is told of each piece that has no place: file, offset or `WHOLE`, and why.
    """
    packs: dict[int, dict[int, tuple[Location, list[Piece]]]] = {}
    places = index.rows([want[0] for want in window.wanted])
    for (chunk, length, slot, offset), place in zip(window.wanted, places, strict=True):
        if place is None or place[7] != length:
            lose(slot, offset, _no_place(chunk, place))
            continue
        records = packs.get(place[0])
        if records is None:
            records = packs[place[0]] = {}
        entry = records.get(place[1])
        if entry is None:
            records[place[1]] = (place, [(place[6], length, chunk, slot, offset)])
        else:
            entry[1].append((place[6], length, chunk, slot, offset))
    for number, records in packs.items():
        try:
            pack = index.pack(number).id
        except NotFoundError as error:
            for _, pieces in records.values():
                for piece in pieces:
                    lose(piece[3], piece[4], error)
            continue
        yield from _split(pack, records)


def _split(pack: PackId, records: dict[int, tuple[Location, list[Piece]]]) -> Iterator[PackWork]:
    """Yield the records of a pack in order, in stretches for one thread each."""
    batch: list[Record] = []
    size = 0
    for position in sorted(records):
        _, number, offset, length, codec, plain, _, _, base = records[position][0]
        batch.append(
            Record(pack, number, offset, length, codec, plain, None if base is None else ChunkId(base))
        )
        size += length
        if size >= WORK_BYTES:
            yield PackWork(pack, batch, {record.number: records[record.number][1] for record in batch})
            batch, size = [], 0
    if batch:
        yield PackWork(pack, batch, {record.number: records[record.number][1] for record in batch})


def _no_place(chunk: ChunkId, place: Location | None) -> DedupstoreError:
    if place is None:
        return ObjectNotFound(
            f"no pack holds chunk {short(chunk)}; run `dstore cache rebuild --from-packs`, "
            "then `dstore verify`",
            chunk=chunk,
        )
    return ChunkDamaged(
        f"chunk {short(chunk)} has another length than its file says; run `dstore verify`", chunk=chunk
    )
