"""Slices of the log inside snapshots: what each covers, and the entries in it.

A slice is a stream of raw log entries as they came, named after the first and the last of them. Its first
entry is the last of the slice before it; whether that was seen to be so is kept with it, since it
is what proves that nothing is missing in between.

A snapshot of slices holds all of them, so the newest alone tells everything; `slices_in` asks others only
if they are not its ancestors (two tails ran side by side).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from dedupstore.documents.reading import documents_in, in_order
from dedupstore.errors import FormatError, ObjectDamaged
from dedupstore.findings import printable
from dedupstore.format.chunklist import decode_list_page
from dedupstore.ids import SnapshotId
from dedupstore.model import Node, Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.span import Span
from dedupstore.tree.walk import SURVIVABLE, entries_of, find_in, nodes_of

KIND = "oplog"
"""`SourceSpec.kind` of a snapshot of slices."""
LOG_NAME = b"oplog.bson"
"""In the root of a dump: the log of the time in which it was taken."""
_EXTRA = "oplog"
_VERSION = 1


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    version: int
    start: bytes
    end: bytes
    entries: int
    proven: bool
    why: str
    wall: int
    since: bytes = b""


_DECODER = msgspec.msgpack.Decoder(_Stored)
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """What is known of a slice without reading it."""

    start: Position
    """Its first entry."""
    end: Position
    """Its last entry."""
    entries: int
    proven: bool
    """Whether its first entry was seen to be the last of an earlier slice."""
    why: str
    """Where it was not: what was found. Where it was: what else there is to say (a rollback)."""
    wall: int
    """The latest time of day in it, milliseconds since 1970; 0 if no entry has one."""
    since: Position | None = None
    """Before its first entry: from where on nothing is missing, though there is no entry of that place."""
    until: Position | None = None
    """Behind its last entry: up to where nothing is missing, likewise. Known of a snapshot's own log only."""

    @property
    def begins(self) -> Position:
        """From where on nothing is missing."""
        return self.since or self.start

    @property
    def ends(self) -> Position:
        """Up to where nothing is missing."""
        return self.until or self.end


@dataclass(frozen=True, slots=True)
class Slice:
    """A stored slice."""

    facts: SliceFacts
    node: Node


def slice_name(start: Ts, end: Ts) -> bytes:
    """Return the name of a slice; names sort by what they cover."""
    return b"%010d-%010d_%010d-%010d.bson" % (start.seconds, start.increment, end.seconds, end.increment)


def slice_extra(facts: SliceFacts) -> dict[str, bytes]:
    """Return what a slice's node carries as ``extra``."""
    since = b"" if facts.since is None else facts.since.pack()
    stored = _Stored(
        _VERSION,
        facts.start.pack(),
        facts.end.pack(),
        facts.entries,
        facts.proven,
        facts.why,
        facts.wall,
        since,
    )
    return {_EXTRA: _ENCODER.encode(stored)}


def slice_facts(node: Node) -> SliceFacts | None:
    """Return what a node says of its slice; ``None`` if it is none.

    Raises `FormatError` for a later version, `ObjectDamaged` for what is garbled.
    """
    packed = (node.extra or {}).get(_EXTRA)
    if packed is None:
        return None
    try:
        stored = _DECODER.decode(packed)
        facts = SliceFacts(
            Position.unpack(stored.start),
            Position.unpack(stored.end),
            stored.entries,
            stored.proven,
            stored.why,
            stored.wall,
            Position.unpack(stored.since) if stored.since else None,
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise ObjectDamaged(
            f"the slice {printable(node.name)} does not say what it covers: run `dstore verify`",
            name=node.name,
        ) from error
    if stored.version != _VERSION:
        raise FormatError(
            f"the slice {printable(node.name)} has version {stored.version}: a newer dstore is needed"
        )
    return facts


def slices_in(repo: Repository, snapshots: Iterable[tuple[SnapshotId, Snapshot]]) -> list[Slice]:
    """Return the slices of these snapshots by what they cover, each once; of two of one name the newer.

    Snapshots of other kinds are passed over; those in order of commits. Costs the tree pages of the newest.
    """
    found: dict[bytes, Slice] = {}
    for _, snapshot in heads(snapshots):
        for node in nodes_of(repo.load_page, snapshot.root):
            facts = slice_facts(node)
            if facts is not None:
                found[node.name] = Slice(facts, node)
    return [found[name] for name in sorted(found)]


def heads(snapshots: Iterable[tuple[SnapshotId, Snapshot]]) -> list[tuple[SnapshotId, Snapshot]]:
    """Return the snapshots of slices whose slices are not all in a later one, in the order given."""
    ours = [(identifier, snapshot) for identifier, snapshot in snapshots if snapshot.source.kind == KIND]
    # Two tails side by side may each name the other's snapshot as parent without having its slice: only one
    # that has grown has its parent's.
    largest: dict[SnapshotId | None, int] = {}
    for _, snapshot in ours:
        largest[snapshot.parent] = max(snapshot.statistics.files, largest.get(snapshot.parent, 0))
    return [
        (identifier, snapshot)
        for identifier, snapshot in ours
        if largest.get(identifier, 0) <= snapshot.statistics.files
    ]


def own_log(repo: Repository, snapshot: Snapshot, span: Span) -> Slice | None:
    """Return the log that was kept while a server was read, if it lies beside the collections."""
    if snapshot.source.paths != (b"/",):
        return None
    try:
        node = find_in(repo.load_page, snapshot.root, LOG_NAME)
    except SURVIVABLE:  # whoever reads that snapshot will hear of it; others need not
        return None
    if node is None or not node.size:
        return None
    facts = slice_facts(node) or SliceFacts(span.first, span.end, 0, proven=False, why="", wall=0)
    since = span.first if span.first.ts < facts.start.ts else None
    until = span.end if facts.end.ts < span.end.ts else None
    return Slice(replace(facts, since=since, until=until), node)


def entries_in(repo: Repository, node: Node) -> Iterator[bytes]:
    """Yield the raw entries of a slice in order; raises what reading raises, `SourceError` for no BSON."""
    content = entries_of(lambda page: decode_list_page(repo.load_tree(page)), node)
    return documents_in(in_order(repo, content), f"the slice {printable(node.name)}")
