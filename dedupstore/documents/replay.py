"""A snapshot with the log replayed onto it: every collection as it was after one operation.

The log is collapsed first, to one change a document; nothing of the snapshot is read for that but names and
options. Memory: that of `collapse`, what is more lies in temporary files.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dedupstore.documents.moments import Moment
from dedupstore.documents.replayed import ReplayedView
from dedupstore.documents.slices import entries_in
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Choice, Timeline, span
from dedupstore.documents.view import View
from dedupstore.errors import NotFoundError
from dedupstore.model import Node, Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import Catalog, Covers
from dedupstore.sources.oplog.collapse import MEMORY, Keep, collapse
from dedupstore.sources.oplog.namespaces import VIEWS
from dedupstore.sources.oplog.position import Ts, header_of

_COMMAND = raw.element(b"op", raw.STRING, raw.string("c"))
_VIEWS = b"." + VIEWS.encode() + b"\0"
_ALIKE = frozenset((raw.OBJECT_ID, raw.STRING, raw.BINARY, raw.DATE, raw.TIMESTAMP))
"""Types of which equal identities have equal bytes (but for the type byte)."""


def replay(
    base: StoredDump,
    entries: Iterable[bytes],
    *,
    until: Ts | None = None,
    after: Ts | None = None,
    fuzzy_until: Ts | None = None,
    covers: Covers | None = None,
    keep: Keep | None = None,
    spill: Path | None = None,
    memory: int = MEMORY,
) -> ReplayedView:
    """Replay raw log entries onto a snapshot's collections.

    ``until``: the last operation that counts. ``after``, ``fuzzy_until``: see `Choice`. ``covers`` says which
    collections the snapshot was meant to hold (``None``: all); what is created elsewhere does not appear.
    ``keep``: see `collapse`; all other documents are then as in the base. ``spill`` is for temporary files,
    beyond ``memory`` bytes. Raises as `collapse` does.
    """
    catalog = Catalog([one.info for one in base.collections()], covers=covers)
    folder = Path(tempfile.gettempdir()) if spill is None else spill
    collapsed = collapse(
        entries,
        catalog,
        spill=folder,
        until=until,
        after=after,
        fuzzy_until=fuzzy_until,
        keep=keep,
        memory=memory,
    )
    try:
        return ReplayedView(base, collapsed, collapsed.last or until)
    except BaseException:
        collapsed.close()
        raise


def replay_choice(
    repo: Repository,
    choice: Choice,
    *,
    keep: Keep | None = None,
    only: bytes | None = None,
    spill: Path | None = None,
) -> ReplayedView:
    """Replay what a timeline chose.

    ``only``: the one document that is of interest, by its identity: most of the log is then not looked into.
    """
    base = choice.base
    dump = StoredDump(repo, base.snapshot, at=base.end)
    entries = choice.entries()
    if only is not None:
        keep, entries = keep or keeps(only), narrowed(entries, only)
    view = replay(
        dump,
        entries,
        until=choice.until,
        after=choice.after,
        fuzzy_until=choice.fuzzy_until,
        covers=covered_by(base.snapshot),
        keep=keep,
        spill=spill,
    )
    # What was asked for need not be an operation; what is named to the user is one that there was.
    view.at = max(view.collapsed.last or base.end, base.end)
    return view


def view_at(
    repo: Repository,
    timeline: Timeline,
    moment: Moment,
    *,
    holds: Callable[[Snapshot], bool] = lambda _: True,
    spill: Path | None = None,
) -> ReplayedView:
    """Return everything as of a moment. ``holds``: see `Timeline.choose`. Raises as that and `replay` do."""
    return replay_choice(repo, timeline.choose(moment, covers=holds), spill=spill)


def view_of(
    repo: Repository, snapshot: Snapshot, timeline: Timeline | None = None, *, spill: Path | None = None
) -> View:
    """Return a snapshot's collections as they were at one moment, with as much of the log as that takes.

    The log may lie in the snapshot itself (of a server, or of mongodump's ``--oplog``) or in ``timeline``.
    One that has no log and says nothing of its moment is taken as it is. Raises `NotFoundError` where the
    snapshot is of no single moment and the log is gone: `StoredDump` gives what was read all the same.
    """
    ends = span(snapshot)
    dump = StoredDump(repo, snapshot, at=None if ends is None else ends.end.ts)
    if ends is not None and ends.exact:
        return dump
    covers = covered_by(snapshot)
    if dump.log is not None and dump.log.size:
        until = _last_in(repo, dump.log) if ends is None else ends.end.ts
        after = None if ends is None else ends.start.ts
        entries = entries_in(repo, dump.log)
        return replay(dump, entries, until=until, after=after, fuzzy_until=until, covers=covers, spill=spill)
    if ends is None:
        return dump
    if timeline is not None:
        choice = timeline.choose(Moment.upto(ends.end.ts), covers=lambda other: other is snapshot)
        return replay_choice(repo, choice, spill=spill)
    raise NotFoundError(
        f"the snapshot was read while the server went on, from {ends.start.ts} to {ends.end.ts}, and the log "
        "between is not stored with it: give a time, so that slices of the log are used"
    )


def covered_by(snapshot: Snapshot) -> Covers | None:
    """Return which collections a snapshot was meant to hold; ``None``: all that there were."""
    only = snapshot.source.options.get("only", "")
    if not only:
        return None
    names = only.split("\0")  # the one character that no name can have
    return lambda db, name: db in names or f"{db}.{name}" in names


def keeps(identity: bytes) -> Keep:
    """Return what keeps the changes of one document, by its identity, in any collection."""
    wanted = sort_key(identity)
    return lambda _, other: other == identity or sort_key(other) == wanted


def narrowed(entries: Iterable[bytes], identity: bytes) -> Iterator[bytes]:
    """Leave out entries that can have nothing to do with a document; the last one always comes.

    Goes by the bytes of the identity; where equal ones may differ in theirs (numbers) nothing is left out.
    """
    if identity[0] not in _ALIKE:
        yield from entries
        return
    needle = identity[1:]
    passed: bytes | None = None
    for entry in entries:
        passed = None if needle in entry or _COMMAND in entry or _VIEWS in entry else entry
        if passed is None:
            yield entry
    if passed is not None:
        yield passed


def _last_in(repo: Repository, log: Node) -> Ts | None:
    last = None
    for entry in entries_in(repo, log):
        last = entry
    return None if last is None else header_of(last)[0].ts
