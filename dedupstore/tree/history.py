"""One path through all snapshots: when it was there, and in which versions.

A path is looked up page by page, and what a page answered is remembered under its id. Snapshots
share all pages that did not change, so each distinct page on the way to the path is looked at once,
however many snapshots hold it.

Memory: one small entry for each distinct page on the way to the path (about 200 bytes), and one
open version a host. Lazy; belongs to one thread.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding, printable
from dedupstore.ids import SnapshotId, TreeId, short
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.tree.select import touches
from dedupstore.tree.walk import SURVIVABLE, LoadPage, components, node_at, ref_at, subtree_of

_DIR = int(NodeKind.DIR)


@dataclass(frozen=True, slots=True)
class Version:
    """A stretch of one host's snapshots in which a path was the same, metadata and all."""

    host: str
    first: SnapshotId
    first_snapshot: Snapshot
    last: SnapshotId
    last_snapshot: Snapshot
    snapshots: int
    """How many snapshots hold this version."""
    node: Node


def history(
    load: LoadPage, snapshots: Iterable[tuple[SnapshotId, Snapshot]], path: bytes
) -> Iterator[Version | Finding]:
    """Yield the distinct versions of a path; of each host in order of commits.

    A version is yielded as soon as it is known to have ended, the last ones at the end. Snapshots
    whose sources have nothing to do with the path are passed over; one that should hold it but does not
    ends a version, so a file that was deleted and put back has two. Where a page on the way does
    not load, a `Finding` names the snapshot, and the versions on both sides of it may be the same.
    The root itself, ``/``, has no versions.
    """
    finder = _Finder(load, components(path))
    running: dict[str, Version] = {}
    for identifier, snapshot in snapshots:
        if not touches(snapshot, path):
            continue
        node = finder.find(snapshot.root)
        if isinstance(node, DedupstoreError):
            yield Finding(f"snapshot {short(identifier)}: {printable(path)}", node)
            node = None
        version = running.get(snapshot.host)
        if version is not None and node == version.node:
            running[snapshot.host] = replace(
                version, last=identifier, last_snapshot=snapshot, snapshots=version.snapshots + 1
            )
            continue
        if version is not None:
            yield running.pop(snapshot.host)
        if node is not None:
            running[snapshot.host] = Version(
                snapshot.host, identifier, snapshot, identifier, snapshot, 1, node
            )
    yield from running.values()


@dataclass(frozen=True, slots=True)
class _Below:
    """The answer lies under this page."""

    page: TreeId


class _Finder:
    """Looks one path up in many trees; asks for each distinct page once."""

    def __init__(self, load: LoadPage, parts: tuple[bytes, ...]) -> None:
        self._load = load
        self._parts = parts
        self._known: dict[tuple[TreeId, int], Node | DedupstoreError | None] = {}
        """What stands at the rest of the path under a page: (page, components used up) → answer."""

    def find(self, root: TreeId) -> Node | DedupstoreError | None:
        """Return the entry at the path, None if there is none, or why nobody can tell."""
        passed: list[tuple[TreeId, int]] = []
        page, used = root, 0
        answer: Node | DedupstoreError | None = None
        while used < len(self._parts):
            key = (page, used)
            if key in self._known:
                answer = self._known[key]
                break
            passed.append(key)
            step = self._step(page, self._parts[used])
            if isinstance(step, _Below):
                page = step.page
                continue
            used += 1
            if not isinstance(step, Node) or used == len(self._parts):
                answer = step
                break
            if step.kind != _DIR:
                break
            page = subtree_of(step)
        for key in passed:
            self._known[key] = answer
        return answer

    def _step(self, folder: TreeId, name: bytes) -> Node | _Below | DedupstoreError | None:
        try:
            page = self._load(folder)
        except SURVIVABLE as error:
            return error
        if not page.level:
            return node_at(page, name)
        place = ref_at(page, name)
        return None if place is None else _Below(page.refs[place].id)
