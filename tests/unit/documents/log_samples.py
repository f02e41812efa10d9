"""Small logs and their slices in a repository."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dedupstore.documents.cutting import Cut, SliceSource
from dedupstore.documents.slices import heads, slices_in
from dedupstore.ids import ChunkId, SnapshotId, TreeId
from dedupstore.model import Snapshot, SourceSpec
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.position import Position, Ts, header_of
from dedupstore.sources.oplog.span import Span
from tests.support.repos import OPTIONS, blank_snapshot, run

SERVER = {"uri": "mongodb://one,two/?replicaSet=rs", "set": "rs"}


def entry(ts: Ts, *, term: int = 1, wall: int | None = None, text: str = "") -> bytes:
    """A no-op of the log."""
    return raw.document(
        [
            (b"op", raw.STRING, raw.string("n")),
            (b"ns", raw.STRING, raw.string("")),
            (b"o", raw.OBJECT, raw.document([(b"msg", raw.STRING, raw.string(text))])),
            (b"ts", raw.TIMESTAMP, ts.raw()),
            (b"t", raw.INT64, raw.int64(term)),
            (b"v", raw.INT64, raw.int64(2)),
            (b"wall", raw.DATE, raw.int64(ts.seconds * 1000 + ts.increment if wall is None else wall)),
        ]
    )


def at(number: int, term: int = 1) -> Position:
    """Place of the entry that `log` gives for a number: ten a second."""
    return Position(Ts(1000 + number // 10, number % 10 + 1), term)


def log(first: int, last: int, term: int = 1) -> list[bytes]:
    """Entries ``first`` to ``last``, the last one included."""
    return [entry(at(n).ts, term=term, text=f"{term}/{n}") for n in range(first, last + 1)]


def cut(
    entries: Iterable[bytes], after: Position | None, *, since: Position | None = None, note: str = ""
) -> Cut:
    made = Cut(after, since=since, note=note)
    for one in entries:
        made.add(one)
    return made


def store(repo: Repository, made: Cut, *, above: Sequence[tuple[SnapshotId, Snapshot]] | None = None) -> None:
    """Commit a slice on top of all the earlier ones (or of those ``above`` which it is said to stand)."""
    earlier = repo.snapshots() if above is None else above
    known = [one.node for one in slices_in(repo, earlier)]
    adopts = [snapshot.root for _, snapshot in heads(earlier)]
    source = SliceSource(made, known, adopts, options=SERVER)
    assert not run(repo, source, OPTIONS).findings


def base(repo: Repository, number: int, start: Position, end: Position) -> tuple[SnapshotId, Snapshot]:
    """A snapshot that says where the log stood; there is nothing in it."""
    snapshot = replace(
        blank_snapshot(TreeId(ChunkId(bytes(32))), sequence=number),
        source=SourceSpec("mongo", (b"/",), SERVER),
        position=Span(start, end).pack(),
    )
    return SnapshotId(number.to_bytes(32, "big")), snapshot


def positions(entries: Iterable[bytes]) -> list[Position]:
    return [header_of(one)[0] for one in entries]
