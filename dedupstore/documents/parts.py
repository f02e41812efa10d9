"""Collections as they go into a new snapshot: whole ones cut into leaves, changed ones as patches.

Each belongs to one thread. Memory: what `LeafPatch` and the documents' source need; one leaf.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from dedupstore.documents.leafpatch import Fresh, Leaf, LeafPage, LeafPatch
from dedupstore.documents.replayed import ReplayedCollection
from dedupstore.errors import SourceError
from dedupstore.model import Node
from dedupstore.sources.base import Cutter, Known, StartAgain, Stream
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import EXTRA, CollectionFacts
from dedupstore.sources.bson.leaves import LEAF_MAX, LeafCutter
from dedupstore.sources.oplog.change import Change

KNOWN_MAX = 4096
"""Most known leaves handed over at a time."""


class Origin:
    """Documents as the bytes that `dedupstore.sources.bson.stream.DocumentStream` makes a stream of."""

    changed = False

    def __init__(self, node: Node, documents: Iterator[bytes]) -> None:
        self._node = node
        self._documents = documents
        self._rest = memoryview(b"")

    def read_next(self, view: memoryview) -> int:
        """Read on."""
        at = 0
        while at < len(view):
            if not self._rest:
                self._rest = memoryview(next(self._documents, b""))
                if not self._rest:
                    break
            size = min(len(self._rest), len(view) - at)
            view[at : at + size] = self._rest[:size]
            self._rest = self._rest[size:]
            at += size
        return at

    def finish(self) -> Node:
        """Return the node."""
        return self._node

    def close(self) -> None:
        """Stop reading."""
        self._documents = iter(())


class NoLongerCut:
    """A cutter that says so where documents can no longer be cut in order, instead of failing.

    A document longer than a leaf whose ``_id`` is not among its first bytes is one: with it the whole
    collection has to be stored in another way.
    """

    def __init__(self, cutter: Cutter, tell: Callable[[], None]) -> None:
        """``tell`` is called before `StartAgain` is raised."""
        self.max_size = cutter.max_size
        self._cutter = cutter
        self._tell = tell

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        """Return where leaves end; see `Cutter`."""
        try:
            return self._cutter.cuts(data, final=final)
        except SourceError as error:
            self._tell()
            raise StartAgain from error


def leaf_patch(
    one: ReplayedCollection,
    leaves: Leaves,
    k: int,
    *,
    paged: bool = False,
    cutter: Callable[[Cutter], Cutter] = lambda one: one,
) -> LeafPatch[Change]:
    """Return the leaves of a replayed collection that has a base in order of ``_id``.

    With ``paged`` those that no change comes near are given by the page. ``cutter`` may put something around
    what cuts them.
    """
    base = one.base
    assert base is not None
    return LeafPatch(
        base.leaf_pages() if paged else base.leaves(),
        one.changes(),
        fetch=base.fetch,
        apply=one.apply,
        cutter=lambda: cutter(LeafCutter(leaves.key, k=k, max_size=leaves.max_size)),
        leaf_max=min(LEAF_MAX, leaves.max_size),
        where=f"the collection {base.info.namespace}",
    )


class CollectionPatch:
    """A changed collection as a `dedupstore.sources.base.Patch`."""

    def __init__(self, node: Node, patch: LeafPatch[Change], facts: Callable[[int], CollectionFacts]) -> None:
        """``facts`` is asked at the end, for so many more documents than the old collection had."""
        self._node = node
        self._patch = patch
        self._facts = facts

    def parts(self) -> Iterator[Known | Stream]:
        """Yield old leaves, pages of them, and new ones in turn."""
        leaves = self._patch.leaves()
        leaf = next(leaves, None)
        while leaf is not None:
            if isinstance(leaf, Fresh):
                fresh = _FreshLeaves(self._node, leaf, leaves)
                yield fresh
                leaf = fresh.following
                continue
            known = [leaf]
            while (following := next(leaves, None)) is not None:
                if type(following) is not type(leaf) or len(known) == KNOWN_MAX:
                    break
                known.append(following)
            yield _known(known)
            leaf = following

    def finish(self) -> Node:
        """Return the node, with the facts of the collection."""
        return with_facts(self._node, self._facts(self._patch.added), 0)

    def close(self) -> None:
        """Nothing is held."""


def _known(leaves: Sequence[Leaf | LeafPage]) -> Known:
    """Return old leaves, or pages of them, as what is known."""
    pages = {one.page: one for one in leaves if isinstance(one, LeafPage)}
    if not pages:
        return Known([one for one in leaves if not isinstance(one, LeafPage)])
    entries = [(one.page, one.size, one.label) for one in leaves if isinstance(one, LeafPage)]
    return Known(entries, lambda entry: list(pages[entry[0]].leaves()))


class _FreshLeaves:
    """New leaves in a row, as a stream that is cut where they end."""

    changed = False

    def __init__(self, node: Node, first: Fresh, leaves: Iterator[Leaf | LeafPage | Fresh]) -> None:
        self.cutter = _Ends(len(first.data))
        self.following: Leaf | LeafPage | None = None
        """After the end: the old leaf behind them; ``None`` if there is none."""
        self._node = node
        self._leaves = leaves
        self._rest = memoryview(b"")
        self._begin(first)

    def _begin(self, leaf: Fresh) -> None:
        self._rest = memoryview(leaf.data)
        self.cutter.add(len(leaf.data), leaf.label)

    def read_next(self, view: memoryview) -> int:
        """Read on."""
        if not self._rest:
            leaf = next(self._leaves, None)
            if not isinstance(leaf, Fresh):
                self._leaves, self.following = iter(()), self.following or leaf
                return 0
            self._begin(leaf)
        size = min(len(self._rest), len(view))
        view[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def finish(self) -> Node:
        """Return the node; nobody asks."""
        return self._node

    def close(self) -> None:
        """Nothing is held."""


class _Ends:
    """A cutter for what has been cut already."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._coming: deque[tuple[int, bytes]] = deque()

    def add(self, size: int, label: bytes) -> None:
        self._coming.append((size, label))

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        """Return the ends that lie in a window."""
        del final
        found: list[tuple[int, bytes]] = []
        end = 0
        while self._coming and end + self._coming[0][0] <= len(data):
            size, label = self._coming.popleft()
            end += size
            found.append((end, label))
        return found


def with_facts(node: Node, facts: CollectionFacts, size: int) -> Node:
    """Return a node of documents with what it must say of them; ``size`` in bytes."""
    return msgspec.structs.replace(node, size=size, extra={EXTRA: facts.pack()})
