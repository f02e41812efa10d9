"""From what a command line says to collections as they were: those of a snapshot, or with the log replayed.

A server's snapshots and slices of its log belong together by its replica set's name (or its address). An
instant is had by replaying wherever slices of the log are stored; where there are none it means the newest
snapshot by then, as it does for files.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.moments import Moment, time_of
from dedupstore.documents.replay import covered_by, replay_choice, view_of
from dedupstore.documents.slices import KIND as LOG_KIND
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Choice, Timeline, lineage, span
from dedupstore.documents.view import CollectionView, View
from dedupstore.errors import NotFoundError, UsageError
from dedupstore.ids import SnapshotId, short
from dedupstore.model import Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import VIEW
from dedupstore.sources.oplog.definitions import text_field
from dedupstore.sources.oplog.position import Ts
from dedupstore.sources.oplog.span import Span
from dedupstore.tree.select import Entry, Filter, matching, select

from .context import Front, Wanted, read_time, read_until
from .localzone import LOCAL_ZONE
from .render import counted, instant, instant_shown
from .serverlist import Server, server_named, servers_in, shown_servers

KINDS = ("mongo", "bson", "archive")
"""Kinds of snapshots that hold collections: of a server, of a dump folder, of an archive."""
_SHOWN = 8
_CLOCK = re.compile(r"\d{1,2}:\d{2}")

Namespace: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """Which collections, and of when."""

    wanted: Wanted
    before_op: bool = False
    """Everything before the operation that ``wanted.at`` names, itself not."""
    server: str | None = None
    """The beginning of a replica set's or a host's name."""
    namespace: Namespace | None = None
    """A collection that must be there, where only one is of interest."""
    only: bytes | None = None
    """Identity of the document that is of interest, where only one is."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, and what to say of it."""

    view: View
    id: SnapshotId
    snapshot: Snapshot
    """What it comes from."""
    at: Ts | None = None
    """The last operation that is in it; ``None``: no log was replayed."""
    replayed: int = 0
    """Log entries that were read for it."""
    torn: Span | None = None
    """Between which operations it was read, where it is of no single moment."""

    @property
    def sentence(self) -> str:
        """Say what was taken, for people."""
        taken = f"snapshot {short(self.id)} of {instant_shown(self.snapshot.time)}"
        if self.torn is not None:
            stretch = f"operation {self.torn.start.ts} to {self.torn.end.ts}"
            return f"{taken}, which is of no single moment but was read from {stretch}"
        if self.at is None:
            return f"{taken} from {self.snapshot.host}"
        entries = counted(self.replayed, "entry of the log", "entries of the log")
        return f"state after operation {self.at} ({instant_shown(time_of(self.at))}): {taken} and {entries}"

    @property
    def fields(self) -> dict[str, object]:
        """Say what was taken, for JSON."""
        when = self.snapshot.time if self.at is None else time_of(self.at)
        operation = None if self.at is None else str(self.at)
        return {
            "snapshot": self.id.hex(),
            "at": instant(when),
            "operation": operation,
            "entries_replayed": self.replayed,
            "consistent": self.torn is None,
        }


def parse_namespace(text: str) -> Namespace:
    """Read ``db.collection``; the collection may have dots. Raises `UsageError`."""
    db, _, name = text.partition(".")
    if not db or not name:
        raise UsageError(f"{text!r} names no collection: write database.collection, as in shop.orders")
    return db, name


@contextmanager
def open_view(front: Front, repository: Repository, asked: Asked) -> Iterator[Seen]:
    """Find what was asked for and close it afterwards.

    Raises `UsageError` for words that contradict each other, a server that is not named where there are
    several, and a moment that can not be read; `NotFoundError` where there is nothing of the kind, naming
    both ends of a hole in the log.
    """
    check_words(asked)
    entries = front.snapshots(repository)
    seen = look(repository, entries, asked)
    try:
        yield seen
    finally:
        seen.view.close()


def check_words(asked: Asked) -> None:
    """Raise `UsageError` for words that contradict each other."""
    wanted = asked.wanted
    if wanted.text is not None and wanted.at is not None:
        raise UsageError(f"--at takes the place of a snapshot: leave {wanted.text!r} or --at out")
    if asked.before_op and (wanted.at is None or read_moment(wanted.at).ts is None):
        raise UsageError("--before-op is of one operation: name it by --at seconds:increment")


def look(repository: Repository, entries: Sequence[Entry], asked: Asked) -> Seen:
    """As `open_view`, of a list of snapshots; the view is the caller's to close."""
    wanted = asked.wanted
    if wanted.at is not None:
        return _at(repository, entries, asked, wanted.at)
    text = wanted.text or "latest"
    entry = _newest(entries, asked, text) if text.startswith("latest") else _by_id(entries, text)
    return stored(repository, entries, entry, asked.only)


def stored(repository: Repository, entries: Sequence[Entry], entry: Entry, only: bytes | None = None) -> Seen:
    """Return the collections of a snapshot as of its own moment.

    One that was read while the server went on is made exact by the log in it, or by slices among ``entries``.
    """
    identifier, snapshot = entry
    ends = span(snapshot)
    if ends is None:
        view = view_of(repository, snapshot)
        return Seen(view, identifier, snapshot)
    if ends.exact:
        return Seen(StoredDump(repository, snapshot, at=ends.end.ts), identifier, snapshot)
    for line in ([entry], of_lineage(entries, lineage(snapshot.source))):
        try:
            choice = Timeline(repository, line).choose(
                Moment.upto(ends.end.ts), covers=lambda other: other is snapshot
            )
        except NotFoundError:
            continue
        return _replayed(repository, choice, only)
    return Seen(StoredDump(repository, snapshot, at=ends.end.ts), identifier, snapshot, torn=ends)


def _replayed(repository: Repository, choice: Choice, only: bytes | None) -> Seen:
    view = replay_choice(repository, choice, only=only)
    base = choice.base
    return Seen(view, base.id, base.snapshot, view.at, view.collapsed.entries)


def collection_in(seen: Seen, namespace: Namespace) -> CollectionView:
    """Return one collection; raises `NotFoundError` saying what there is instead."""
    found = seen.view.find(*namespace)
    if found is None:
        names = [one.info.namespace for one in seen.view.collections()]
        near = [name for name in names if name.startswith(namespace[0] + ".")] or names
        more = f" and {len(near) - _SHOWN} more" if len(near) > _SHOWN else ""
        raise NotFoundError(
            f"there is no {'.'.join(namespace)} in the {seen.sentence}; it has "
            f"{', '.join(near[:_SHOWN])}{more}"
        )
    return found


def documents_of(seen: Seen, namespace: Namespace) -> CollectionView:
    """Return one collection that holds documents; raises as `collection_in`, and so for a view."""
    found = collection_in(seen, namespace)
    if found.info.kind == VIEW:
        on = text_field(found.info.options, b"viewOn")
        raise NotFoundError(
            f"{'.'.join(namespace)} is a view and holds no documents: ask for those of {namespace[0]}.{on}"
        )
    return found


def read_moment(text: str) -> Moment:
    """Read ``seconds:increment`` or a time as the user wrote it. Raises `UsageError`."""
    if _CLOCK.fullmatch(text.strip()):  # of today, and no operation of 1970
        return Moment.at_time(read_time(text))
    return Moment.parse(text, SYSTEM_CLOCK.now(), LOCAL_ZONE)


def holding(asked: Asked) -> Callable[[Snapshot], bool]:
    """Return what says whether a snapshot comes into question for what was asked."""
    narrow = Filter(host=asked.wanted.host, tags=frozenset(asked.wanted.tags))

    def holds(snapshot: Snapshot) -> bool:
        if snapshot.source.kind not in KINDS or not matching([(SnapshotId(b""), snapshot)], narrow):
            return False
        covers = covered_by(snapshot)
        return asked.namespace is None or covers is None or covers(*asked.namespace)

    return holds


def timeline_of(repository: Repository, entries: Sequence[Entry], server: Server) -> Timeline:
    """Return a server's timeline."""
    return Timeline(repository, of_lineage(entries, server.lineage))


def chosen_server(entries: Sequence[Entry], asked: Asked) -> Server | None:
    """Return the server that was meant: the one that was named, or the only one; ``None`` if there is none.

    Raises `UsageError` listing them if it could be several.
    """
    narrow = Filter(host=asked.wanted.host, tags=frozenset(asked.wanted.tags))
    found = servers_in(matching(entries, narrow))
    if asked.server is not None:
        return server_named(found, asked.server)
    if len(found) > 1:
        raise UsageError(
            f"there are {len(found)} servers in this repository: say which one by --server, "
            f"{shown_servers(found)}"
        )
    return found[0] if found else None


def _at(repository: Repository, entries: Sequence[Entry], asked: Asked, text: str) -> Seen:
    moment = read_moment(text)
    if asked.before_op and moment.ts is not None:
        moment = Moment.before(moment.ts)
    server = chosen_server(entries, asked)
    if server is not None:
        timeline = timeline_of(repository, entries, server)
        if timeline.slices or (moment.ts is not None and timeline.bases):
            return _replayed(repository, _choice(timeline, moment, holding(asked)), asked.only)
    if moment.ts is not None:
        raise NotFoundError(
            f"operation {moment} can not be found: no server's log is stored here; store it with "
            "`dstore mongo tail`, or give a time"
        )
    found = select(_fitting(entries, asked, server), at=read_until(text))
    return stored(repository, entries, found, asked.only)


def _choice(timeline: Timeline, moment: Moment, holds: Callable[[Snapshot], bool]) -> Choice:
    """Choose from snapshots of everything, and only if none of them serves from those of a part."""

    def whole(snapshot: Snapshot) -> bool:
        return holds(snapshot) and covered_by(snapshot) is None

    try:
        return timeline.choose(moment, covers=whole)
    except NotFoundError:
        return timeline.choose(moment, covers=holds)


def _newest(entries: Sequence[Entry], asked: Asked, text: str) -> Entry:
    server = chosen_server([entry for entry in entries if entry[1].source.kind in KINDS], asked)
    return select(_fitting(entries, asked, server), text)


def _fitting(entries: Sequence[Entry], asked: Asked, server: Server | None) -> list[Entry]:
    """Return the snapshots that come into question; raises `NotFoundError` if there is none."""
    holds = holding(asked)
    named = None if server is None or asked.server is None else server.lineage
    left = [entry for entry in of_lineage(entries, named) if holds(entry[1])]
    if not left:
        what = "collections" if asked.namespace is None else ".".join(asked.namespace)
        raise NotFoundError(
            f"no snapshot that fits is of {what}: take one with `dstore snapshot --mongo URI`, or of a dump; "
            "`dstore snapshots` lists what there is"
        )
    return left


def of_lineage(entries: Sequence[Entry], name: str | None) -> list[Entry]:
    """Return the snapshots of one server; ``None``: all."""
    return [entry for entry in entries if name is None or lineage(entry[1].source) == name]


def _by_id(entries: Sequence[Entry], text: str) -> Entry:
    found = select(entries, text)
    if found[1].source.kind == LOG_KIND:
        raise UsageError(
            f"snapshot {short(found[0])} holds slices of a log, no collections: give --at TIME to have them "
            "replayed, or a snapshot of the server"
        )
    return found
