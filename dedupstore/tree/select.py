"""Which snapshot is meant: by id, by place in the line, by time, by where it came from.

Works on the list that a repository gives, ``(id, snapshot)`` in order of commits; loads nothing.
The order of commits decides what is *latest*; times decide only what ``at``, ``before`` and
``after`` mean, since a host's clock may be wrong. Pure functions, safe from any thread.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from dedupstore.errors import NotFoundError, UsageError
from dedupstore.findings import printable
from dedupstore.ids import SnapshotId, short
from dedupstore.model import Snapshot
from dedupstore.tree.walk import components
from dedupstore.tree.when import parse_time

__all__ = [
    "Entry",
    "Filter",
    "covers",
    "matching",
    "parse_time",
    "select",
    "select_each",
    "source_key",
    "touches",
]

Entry: TypeAlias = tuple[SnapshotId, Snapshot]

_LATEST = re.compile(r"latest(?:~(\d{1,9}))?")
_PREFIX = re.compile(r"[0-9a-f]{1,64}")
_CANDIDATES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listing shows; every field narrows, an empty one does not."""

    host: str | None = None
    tags: frozenset[str] = frozenset()
    """All of them must be on the snapshot."""
    paths: tuple[bytes, ...] = ()
    """Each must lie wholly inside one of the snapshot's source paths."""
    before: datetime | None = None
    """Aware; snapshots taken at this instant are kept."""
    after: datetime | None = None
    """Aware; snapshots taken at this instant are kept."""
    latest: int | None = None
    """Only the last so many of each source, after everything else."""


def matching(snapshots: Iterable[Entry], wanted: Filter) -> list[Entry]:
    """Return the snapshots that a filter lets through, in the order given."""
    found = [entry for entry in snapshots if _passes(entry[1], wanted)]
    if wanted.latest is None:
        return found
    if wanted.latest < 1:
        raise UsageError(f"latest {wanted.latest} would show nothing: ask for 1 or more")
    left: dict[object, int] = {}
    kept = []
    for entry in reversed(found):
        key = source_key(entry[1])
        left[key] = left.get(key, wanted.latest) - 1
        if left[key] >= 0:
            kept.append(entry)
    return kept[::-1]


def source_key(snapshot: Snapshot) -> tuple[object, ...]:
    """Return what snapshots of the same source have in common: host, name, kind and paths."""
    return (snapshot.host, snapshot.name, snapshot.source.kind, tuple(sorted(snapshot.source.paths)))


def covers(snapshot: Snapshot, path: bytes) -> bool:
    """Tell whether a path lies wholly inside one of the snapshot's source paths."""
    parts = components(path)
    return any(parts[: len(top)] == top for top in map(components, snapshot.source.paths))


def touches(snapshot: Snapshot, path: bytes) -> bool:
    """Tell whether a path is in the tree at all, if only as a folder on the way to a source path."""
    parts = components(path)
    return covers(snapshot, path) or any(
        top[: len(parts)] == parts for top in map(components, snapshot.source.paths)
    )


def select(
    snapshots: Sequence[Entry],
    text: str = "latest",
    *,
    at: datetime | None = None,
    host: str | None = None,
    paths: Sequence[bytes] = (),
    tags: Iterable[str] = (),
) -> Entry:
    """Return the one snapshot that is meant.

    ``text`` is ``latest``, ``latest~N`` (the Nth before it) or the beginning of an id. The others
    narrow the choice first; ``at`` keeps what was taken at that instant or before and puts the
    newest by time last. Of ``paths`` each must be in the snapshot's tree; a snapshot whose source
    contains them wholly goes before one that only passes through them on the way down.

    Raises `NotFoundError` if none is left (with ``at`` before the first: naming the first), `UsageError`
    if the text is malformed, several ids begin with it, or an id and ``at`` are both given. An id is
    taken as it is: host, paths and tags do not narrow it.
    """
    match = _LATEST.fullmatch(text)
    if match is None:
        if at is not None:
            raise UsageError(f"{text} already says which snapshot: give it or a time, not both", text=text)
        return _by_prefix(snapshots, text.lower())
    left = _narrow(snapshots, host, paths, frozenset(tags))
    if not left:
        raise NotFoundError(
            f"no snapshot {_described(host, paths, tags)}: `dstore snapshots` lists what there is"
        )
    if at is not None:
        left = _until(left, at)
    back = int(match[1] or 0)
    if back >= len(left):
        raise NotFoundError(
            f"there is no {text}: only {len(left)} snapshots fit; `dstore snapshots` lists them", text=text
        )
    return left[-1 - back]


def select_each(snapshots: Iterable[Entry], at: datetime) -> list[Entry]:
    """Return the newest snapshot of every source taken at an instant or before, in time order.

    Raises `NotFoundError` naming the first snapshot if there was none yet.
    """
    newest: dict[object, Entry] = {}
    for entry in _until(list(snapshots), at):
        newest[source_key(entry[1])] = entry
    return sorted(newest.values(), key=_by_time)


def _until(snapshots: Sequence[Entry], at: datetime) -> list[Entry]:
    """Return what was taken at an instant or before, in time order."""
    left = sorted((entry for entry in snapshots if entry[1].time <= at), key=_by_time)
    if left:
        return left
    if not snapshots:
        raise NotFoundError("the repository has no snapshots yet: make one with `dstore snapshot PATH`")
    first, snapshot = min(snapshots, key=_by_time)
    raise NotFoundError(
        f"nothing was backed up by {_instant(at)}: the earliest snapshot is {short(first)} of "
        f"{_instant(snapshot.time)}; ask for that instant or a later one",
        at=at,
        earliest=snapshot.time,
        id=first,
    )


def _by_time(entry: Entry) -> tuple[datetime, int]:
    return entry[1].time, entry[1].sequence


def _instant(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _passes(snapshot: Snapshot, wanted: Filter) -> bool:
    return (
        (wanted.host is None or snapshot.host == wanted.host)
        and wanted.tags <= snapshot.tags
        and (wanted.before is None or snapshot.time <= wanted.before)
        and (wanted.after is None or snapshot.time >= wanted.after)
        and all(covers(snapshot, path) for path in wanted.paths)
    )


def _narrow(
    snapshots: Sequence[Entry], host: str | None, paths: Sequence[bytes], tags: frozenset[str]
) -> list[Entry]:
    left = matching(snapshots, Filter(host=host, tags=tags))
    if not paths:
        return left

    def holding(test: Callable[[Snapshot, bytes], bool]) -> list[Entry]:
        return [entry for entry in left if all(test(entry[1], path) for path in paths)]

    return holding(covers) or holding(touches)


def _described(host: str | None, paths: Sequence[bytes], tags: Iterable[str]) -> str:
    parts = []
    if host is not None:
        parts.append(f"of host {host}")
    if paths:
        parts.append("with " + ", ".join(printable(path) for path in paths))
    if chosen := sorted(tags):
        parts.append("tagged " + ", ".join(chosen))
    return " ".join(parts) or "in this repository"


def _by_prefix(snapshots: Sequence[Entry], prefix: str) -> Entry:
    if not _PREFIX.fullmatch(prefix):
        raise UsageError(
            f"{prefix!r} is no snapshot: give `latest`, `latest~N` or the beginning of an id", text=prefix
        )
    found = [entry for entry in snapshots if entry[0].hex().startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFoundError(
            f"no snapshot's id begins with {prefix}: `dstore snapshots` lists them", text=prefix
        )
    shown = ", ".join(
        f"{identifier.hex()[: max(8, len(prefix) + 2)]} ({_instant(snapshot.time)})"
        for identifier, snapshot in found[:_CANDIDATES_SHOWN]
    )
    more = f" and {len(found) - _CANDIDATES_SHOWN} more" if len(found) > _CANDIDATES_SHOWN else ""
    raise UsageError(f"{prefix} is the beginning of {len(found)} snapshots: {shown}{more}; give more digits")
