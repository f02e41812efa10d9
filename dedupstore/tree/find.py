"""Search many snapshots for a pattern. Each distinct page is looked at once: see ``tree/search.py``.

Memory: that of a search. Lazy; belongs to one thread.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dedupstore.findings import Finding, printable
from dedupstore.format.tree import Page
from dedupstore.ids import SnapshotId, short
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.tree.glob import Glob
from dedupstore.tree.search import ROOM, Memory, Step, search
from dedupstore.tree.walk import LoadPage, subtree_of

_DIR = int(NodeKind.DIR)


@dataclass(frozen=True, slots=True)
class Match:
    """An entry that fits, in one snapshot."""

    id: SnapshotId
    snapshot: Snapshot
    path: bytes
    """Absolute, as at the source."""
    node: Node


def find(
    load: LoadPage,
    snapshots: Iterable[tuple[SnapshotId, Snapshot]],
    pattern: Glob,
    *,
    remember: int = ROOM,
) -> Iterator[Match | Finding]:
    """Yield every entry that fits, the last committed snapshot first, in path order within each.

    ``snapshots`` come in order of commits; ``remember`` bounds the pages and matches kept in memory.
    A page that does not load gives one `Finding` in each snapshot that has it, and the search goes
    on behind it; an error of the store itself is raised.
    """
    memory: Memory[bool] = Memory(remember)
    rule = _Fits(pattern)
    for identifier, snapshot in reversed(list(snapshots)):
        for path, node, found in search(load, memory, rule, snapshot.root):
            if node is not None:
                yield Match(identifier, snapshot, path, node)
            elif not isinstance(found, bool):
                yield Finding(f"snapshot {short(identifier)}: {printable(path)}", found.error)


class _Fits:
    """The rule of a glob: the state is where in the pattern a folder stands."""

    def __init__(self, pattern: Glob) -> None:
        self._pattern = pattern
        self.start = pattern.start

    def steps(self, page: Page, state: int) -> list[Step[bool]]:
        pattern = self._pattern
        steps: list[Step[bool]] = []
        for node in page.nodes:
            after = pattern.step(state, node.name)
            if not after:
                continue
            inner = pattern.inner(after)
            fits = pattern.fits(after) or None
            if node.kind == _DIR and inner:
                steps.append(Step(node, fits, (subtree_of(node), inner)))
            elif fits:
                steps.append(Step(node, fits, None))
        return steps
