"""Who is hurt: the snapshots and paths that need something damaged.

Runs only once damage is known. Each distinct tree page is looked at once; memory is that of
a search, and the damages' own bounded lists.
"""

from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

from dedupstore.errors import ChunkDamaged
from dedupstore.findings import printable
from dedupstore.format.chunklist import ListPage, decode_list_page
from dedupstore.format.tree import Page
from dedupstore.ids import HOLE, ChunkId, SnapshotId, TreeId, short
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.ops.verify.register import Damage, Register
from dedupstore.repository.repository import Repository
from dedupstore.tree.search import Memory, Step, search
from dedupstore.tree.walk import SURVIVABLE, Lost, entries_of, subtree_of

HITS_MAX = 1_000_000
"""Hurt places looked at before the rest is only called more."""

Mark: TypeAlias = tuple[Damage, ...]
_DIR = int(NodeKind.DIR)
_START = 1


def blame(view: Repository, snapshots: Sequence[tuple[SnapshotId, Snapshot]], register: Register) -> bool:
    """Tell every damage what it hurts, newest snapshots first; False if there was too much to tell."""
    rule = _Hurt(view, register)
    memory: Memory[Mark] = Memory()
    hits = 0
    for identifier, snapshot in reversed(snapshots):
        for path, _, found in islice(search(rule.load, memory, rule, snapshot.root), HITS_MAX + 1 - hits):
            hits += 1
            if hits > HITS_MAX:
                return False
            place = f"snapshot {short(identifier)} {printable(path)}"
            if isinstance(found, Lost):
                damage = register.pages.get(found.page)
                if damage is not None:
                    damage.hurt(f"{place} and what is below")
            else:
                for damage in found:
                    damage.hurt(place)
    return True


class _Hurt:
    """The rule of a search: entries that need something damaged."""

    def __init__(self, view: Repository, register: Register) -> None:
        self.start = _START
        self._view = view
        self._register = register

    def load(self, page: TreeId) -> Page:
        """Load a page that is not known to be damaged; a known one is not asked for again."""
        self._refuse(page)
        return self._view.load_page(page)

    def steps(self, page: Page, state: int) -> list[Step[Mark]]:
        """Return folders, and files with something damaged in them."""
        steps: list[Step[Mark]] = []
        for node in page.nodes:
            if node.kind == _DIR:
                steps.append(Step(node, None, (subtree_of(node), state)))
            elif node.content:
                mark = self._mark(node)
                if mark:
                    steps.append(Step(node, mark, None))
        return steps

    def _mark(self, node: Node) -> Mark:
        found: dict[Damage, None] = {}
        lost: list[TreeId] = []

        def load_list(page: TreeId) -> ListPage:
            lost[:] = [page]
            self._refuse(page)
            return decode_list_page(self._view.load_tree(page))

        entries = entries_of(load_list, node)
        try:
            while ids := [chunk for chunk, _ in islice(entries, 4096) if chunk != HOLE]:
                found.update(dict.fromkeys(self._blame(ids)))
        except SURVIVABLE:
            damage = self._register.pages.get(lost[0]) if lost else None
            if damage is not None:
                found[damage] = None
        return tuple(found)

    def _blame(self, ids: list[ChunkId]) -> list[Damage]:
        rows = self._view.index.rows(ids)
        damages = list(self._register.blame(ids, rows))
        bases = [ChunkId(row[8]) for row in rows if row is not None and row[8] is not None]
        if bases:
            damages += self._register.blame(bases, self._view.index.rows(bases))
        return damages

    def _refuse(self, page: TreeId) -> None:
        if page in self._register.pages:
            raise ChunkDamaged(f"tree page {short(page)} is known to be damaged", chunk=page)
