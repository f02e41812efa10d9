"""Every version of one document: what each operation of the log made of it, and what snapshots had of it.

A collection goes by its name, as whoever asks knows it: one that is renamed to it brings its documents
along, one that is renamed away or dropped takes them out. Where the log has a hole, the next snapshot behind
it shows what became of the document meanwhile, not how.

One thread. Memory: the document as it is in each collection that had one of that ``_id``. Cost: the log is
searched for the ``_id``, entries without it are not looked into; one leaf for each collection concerned.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dedupstore.documents.moments import time_of
from dedupstore.documents.replay import covered_by, narrowed
from dedupstore.documents.runs import Run
from dedupstore.documents.stored import StoredCollection, StoredDump
from dedupstore.documents.timeline import Base, Timeline, serves
from dedupstore.ids import SnapshotId
from dedupstore.model import Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import DEFINITIONS, Catalog, Key
from dedupstore.sources.oplog.commands import apply_command
from dedupstore.sources.oplog.diff import apply_update, is_document
from dedupstore.sources.oplog.entry import COMMAND, DELETE, INSERT, Entry, command_of, parse_entry
from dedupstore.sources.oplog.position import Ts
from dedupstore.sources.oplog.transactions import Assembler

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = {"i": "insert", "u": "update", "d": "delete"}


@dataclass(frozen=True, slots=True)
class Version:
    """What a document was from one moment on."""

    time: datetime
    """To the millisecond where the log says so."""
    ts: Ts | None
    """The operation; of a snapshot the last one that is in it, ``None`` if it does not say."""
    op: str
    """``insert``, ``update``, ``delete``; the name of a command that took it out or brought it in (``drop``,
    ``renameCollection``, ...); ``snapshot``: what was found, the log before it is not there."""
    before: bytes | None
    """Raw document, ``None``: there was none (or before the first version: nobody knows)."""
    after: bytes | None
    transaction: bool = False
    """Whether the operation was one of several that took effect together."""
    snapshot: SnapshotId | None = None
    """The snapshot in which it was found."""


def versions(
    repo: Repository,
    timeline: Timeline,
    db: str,
    name: str,
    identity: bytes,
    *,
    others: Sequence[tuple[SnapshotId, Snapshot]] = (),
) -> Iterator[Version]:
    """Yield the versions of a document in order of time; see the module.

    ``others`` are snapshots that do not say where the log stood (dumps, archives); each counts as of its
    time. Raises `SourceError` where base and log do not belong together, and what reading raises.
    """
    known: bytes | None = None
    for anchor in _anchors(timeline, others):
        if isinstance(anchor, _Stretch):
            found = _Follower(repo, anchor, db, name, identity).versions(timeline, known)
        else:
            found = _found_in(repo, anchor, db, name, identity, known)
        for version in found:
            known = version.after
            yield version


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A run of the log with the first snapshot that it can be replayed onto."""

    run: Run
    base: Base


_Anchor = Base | _Stretch | tuple[SnapshotId, Snapshot]


def _anchors(timeline: Timeline, others: Sequence[tuple[SnapshotId, Snapshot]]) -> list[_Anchor]:
    """Return stretches of the log, and the snapshots that lie in none, in order of time."""
    found: list[tuple[datetime, int, _Anchor]] = []
    covered: set[SnapshotId] = set()
    for run in timeline.runs:
        bases = [base for base in timeline.bases if serves(base, run) and base.id not in covered]
        if bases:
            covered |= {base.id for base in bases}
            found.append((time_of(bases[0].end), len(found), _Stretch(run, bases[0])))
    alone = [base for base in timeline.bases if base.id not in covered]
    found += [(time_of(base.end), len(found) + n, base) for n, base in enumerate(alone)]
    found += [(entry[1].time, len(found) + n, entry) for n, entry in enumerate(others)]
    return [anchor for _, _, anchor in sorted(found, key=lambda one: one[:2])]


def _found_in(
    repo: Repository,
    anchor: Base | tuple[SnapshotId, Snapshot],
    db: str,
    name: str,
    identity: bytes,
    known: bytes | None,
) -> Iterator[Version]:
    """Yield what a snapshot alone says, if it is something new."""
    if isinstance(anchor, Base):
        number, snapshot, ts, when = anchor.id, anchor.snapshot, anchor.end, time_of(anchor.end)
    else:
        (number, snapshot), ts = anchor, None
        when = snapshot.time
    covers = covered_by(snapshot)
    if covers is not None and not covers(db, name):
        return
    collection = StoredDump(repo, snapshot).find(db, name)
    document = None if collection is None else collection.get(identity)
    if document != known:
        yield Version(when, ts, "snapshot", known, document, snapshot=number)


class _Follower:
    """One document through one stretch of the log."""

    def __init__(self, repo: Repository, stretch: _Stretch, db: str, name: str, identity: bytes) -> None:
        self._stretch = stretch
        self._name = db, name
        self._identity = identity
        self._sort_key = sort_key(identity)
        base = stretch.base
        stored = StoredDump(repo, base.snapshot).collections()
        self._catalog = Catalog([one.info for one in stored], covers=covered_by(base.snapshot))
        self._stored: dict[Key, StoredCollection] = {}
        for one in stored:
            key = None if one.info.kind == VIEW else self._catalog.key_of(one.info)
            if key is not None:
                self._stored[key] = one
        self._documents: dict[Key, bytes | None] = {}

    def versions(self, timeline: Timeline, known: bytes | None) -> Iterator[Version]:
        """Yield what the stretch tells. ``known`` is the document before it."""
        base, run = self._stretch.base, self._stretch.run
        after, end = base.span.start.ts, base.end
        entries = timeline.entries_in(run, base.span.first.ts, run.end.ts)
        begun = False
        with closing(Assembler()) as assembler:
            for entry in narrowed(entries, self._identity):
                parsed = parse_entry(entry)
                if not begun and parsed.ts > end:
                    begun = True
                    yield from self._at_base(known)
                for operation in assembler.feed(parsed, effective=parsed.ts > after):
                    version = self._apply(operation, strict=parsed.ts > end, outer=parsed)
                    if begun and version is not None:
                        yield version
        if not begun:
            yield from self._at_base(known)

    def _at_base(self, known: bytes | None) -> Iterator[Version]:
        base, document = self._stretch.base, self._shown()
        if document != known:
            yield Version(time_of(base.end), base.end, "snapshot", known, document, snapshot=base.id)

    def _shown(self) -> bytes | None:
        """Return the document of the collection that has the name now."""
        key = self._catalog.find(*self._name)
        return None if key is None else self._document(key)

    def _document(self, key: Key) -> bytes | None:
        if key not in self._documents:
            stored = self._stored.get(key)
            self._documents[key] = None if stored is None else stored.get(self._identity)
        return self._documents[key]

    def _apply(self, entry: Entry, *, strict: bool, outer: Entry) -> Version | None:
        if entry.op == COMMAND:
            before = self._shown()
            # Not strict: what brought a collection into being may have been left out with its documents.
            for key in apply_command(self._catalog, entry, strict=False):
                self._documents[key] = None
            after = self._shown()
            return None if before == after else _version(entry, command_of(entry), before, after, outer)
        key = self._catalog.route(entry)
        if key == DEFINITIONS:
            self._catalog.define(entry, strict=strict)
            return None
        named = entry.o if entry.op in {INSERT, DELETE} or not entry.o2 else entry.o2
        if not key or sort_key(raw.id_of(named)) != self._sort_key:
            return None
        before = self._document(key)
        after = self._changed(entry, before, strict=strict)
        self._documents[key] = after
        if key != self._catalog.find(*self._name) or before is after is None:
            return None
        return _version(entry, _WORDS[entry.op], before, after, outer)

    def _changed(self, entry: Entry, before: bytes | None, *, strict: bool) -> bytes | None:
        if entry.op == DELETE:
            return None
        if entry.op == INSERT or is_document(entry.o):
            return entry.o
        if before is None and not strict:
            return None  # a base that is newer than the entry: its deletion follows
        return apply_update(before, entry.o)


def _version(entry: Entry, op: str, before: bytes | None, after: bytes | None, outer: Entry) -> Version:
    when = _EPOCH + timedelta(milliseconds=entry.wall) if entry.wall else time_of(entry.ts)
    return Version(when, entry.ts, op, before, after, transaction=outer is not entry and outer.op == COMMAND)
