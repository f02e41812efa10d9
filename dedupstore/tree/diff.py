"""What changed between two trees.

Two cursors go through the trees in path order and look only where they differ: a page that both
reach with the same id is skipped whole, at every level of a folder and for whole subtrees. So a
diff loads about two pages for each page that changed, however large the trees are.

Memory: for each folder on the way down two pages a level. Lazy; belongs to one thread.
A page that does not load ends the diff with the error of ``load``: half a diff would be a wrong one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from dedupstore.format.tree import Page, PageRef
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind
from dedupstore.tree.walk import LoadPage, load_child, subtree_of

_DIR = int(NodeKind.DIR)


class ChangeKind(Enum):
    """What happened to an entry; the first that fits, in this order."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"
    """It is another kind of thing now (a file became a folder, …)."""
    CONTENT = "content"
    """Other bytes, another link target, another device number; metadata may differ too."""
    METADATA = "metadata"
    """Same content; mode, owner, mtime, link group or extended attributes differ."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs. ``old`` is None for an added one, ``new`` for a removed one."""

    path: bytes
    kind: ChangeKind
    old: Node | None
    new: Node | None


def diff(load: LoadPage, old: TreeId, new: TreeId, *, base: bytes = b"") -> Iterator[Change]:
    """Yield what changed from the tree ``old`` to the tree ``new``, in path order, parents first.

    Below an added or removed folder every entry is yielded on its own. ``base`` is put before each
    path. A folder is a change only if its own metadata differ, not for what is in it.
    """
    if old == new:
        return
    stack: list[tuple[bytes, Iterator[_Pair]]] = [(base, _pairs(load, old, new))]
    while stack:
        path, pairs = stack[-1]
        pair = next(pairs, None)
        if pair is None:
            stack.pop()
            continue
        before, after = pair
        named = before or after
        if named is None:
            continue
        where = path + b"/" + named.name
        kind = compare(before, after)
        if kind is not None:
            yield Change(where, kind, before, after)
        left, right = _folder(before), _folder(after)
        if left != right:
            stack.append((where, _pairs(load, left, right)))


def compare(old: Node | None, new: Node | None) -> ChangeKind | None:
    """Return how two entries of one name differ, not looking below folders; None if they do not."""
    if new is None:
        return ChangeKind.REMOVED
    if old is None:
        return ChangeKind.ADDED
    if old.kind != new.kind:
        return ChangeKind.TYPE
    if (old.content, old.depth, old.size, old.target, old.rdev) != (
        new.content,
        new.depth,
        new.size,
        new.target,
        new.rdev,
    ):
        return ChangeKind.CONTENT
    if (old.mode, old.uid, old.gid, old.mtime, old.link, old.xattrs, old.extra) != (
        new.mode,
        new.uid,
        new.gid,
        new.mtime,
        new.link,
        new.xattrs,
        new.extra,
    ):
        return ChangeKind.METADATA
    return None


_Pair = tuple[Node | None, Node | None]


def _folder(node: Node | None) -> TreeId | None:
    return subtree_of(node) if node is not None and node.kind == _DIR else None


class _Cursor:
    """A place in one folder's pages: at an entry, at a page not yet loaded, or behind the last."""

    __slots__ = ("_load", "_stack", "first", "node", "rank", "ref")

    def __init__(self, load: LoadPage, folder: TreeId | None) -> None:
        self._load = load
        self._stack: list[tuple[Page, int]] = []
        self.node: Node | None = None
        self.ref: PageRef | None = None
        self.first = b""
        """The name the cursor is at: the entry's, or the first one under the page."""
        self.rank = -1
        """Level of the page that is to be loaded; -1 at an entry."""
        if folder is not None:
            self._stack.append((load(folder), 0))
            self._settle()

    @property
    def ended(self) -> bool:
        return not self._stack

    def skip(self) -> None:
        """Go on behind the entry or page the cursor is at."""
        page, place = self._stack[-1]
        self._stack[-1] = (page, place + 1)
        self._settle()

    def enter(self) -> None:
        """Load the page the cursor is at, and stand at its first thing."""
        page, place = self._stack[-1]
        self._stack[-1] = (page, place + 1)
        self._stack.append((load_child(self._load, page, place), 0))
        self._settle()

    def _settle(self) -> None:
        self.node = self.ref = None
        while self._stack:
            page, place = self._stack[-1]
            if not page.level and place < len(page.nodes):
                self.node = page.nodes[place]
                self.first = self.node.name
                self.rank = -1
                return
            if page.level and place < len(page.refs):
                self.ref = page.refs[place]
                self.first = self.ref.first
                self.rank = page.level - 1
                return
            self._stack.pop()


def _pairs(load: LoadPage, old: TreeId | None, new: TreeId | None) -> Iterator[_Pair]:
    """Yield the entries of two folders side by side, without those under equal pages."""
    left, right = _Cursor(load, old), _Cursor(load, new)
    while not (left.ended and right.ended):
        if left.ended or right.ended:
            alone = right if left.ended else left
            if alone.ref is not None:
                alone.enter()
                continue
            yield (None, alone.node) if alone is right else (alone.node, None)
            alone.skip()
        elif left.ref is not None and right.ref is not None and left.ref.id == right.ref.id:
            left.skip()
            right.skip()
        elif left.first != right.first:
            # Only the one that is behind may move: the other may yet meet its equal.
            behind = left if left.first < right.first else right
            if behind.ref is not None:
                behind.enter()
                continue
            yield (left.node, None) if behind is left else (None, right.node)
            behind.skip()
        elif left.rank != right.rank:
            # Equal names: the higher page comes down to meet the lower.
            (left if left.rank > right.rank else right).enter()
        elif left.rank >= 0:
            left.enter()
            right.enter()
        else:
            yield left.node, right.node
            left.skip()
            right.skip()
