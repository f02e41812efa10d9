"""The pages that a long labelled list of chunks consists of, without reading them.

For who patches a file: what lies in a page that nothing changes need not be looked at. Threads: an iterator
belongs to one. Memory: one page a level above the lowest.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

from dedupstore.errors import ObjectDamaged
from dedupstore.format.chunklist import ListPage, iter_entries, iter_refs
from dedupstore.ids import ChunkId, TreeId, short
from dedupstore.model import Node
from dedupstore.tree.walk import LoadList


class PageOfList(NamedTuple):
    """A page of level 0."""

    id: TreeId
    size: int
    """Bytes of content under it."""
    label: bytes
    """Of its first chunk."""


def list_pages_of(load: LoadList, node: Node) -> Iterator[PageOfList]:
    """Yield the level 0 pages of a file's list in order.

    Loads the pages above them, when they are reached. Nothing is yielded for a list that has no labels or
    lies in the node or in one page. Raises `ObjectDamaged` as `dedupstore.tree.walk.entries_of` does.
    """
    if node.depth < 2:
        return
    top = PageOfList(TreeId(ChunkId(node.content)), node.size, b"")
    stack: list[tuple[int, Iterator[PageOfList]]] = [(node.depth - 1, iter((top,)))]
    while stack:
        level, refs = stack[-1]
        ref = next(refs, None)
        if ref is None:
            stack.pop()
        elif level:
            page = load(ref.id)
            if page.level != level or (ref is not top and page.labels[:1] != (ref.label,)):
                raise _misplaced(ref.id)
            if not page.labels:
                return
            below = zip(iter_refs(page.entries), page.labels, strict=True)
            stack.append((level - 1, (PageOfList(*one, label) for one, label in below)))
        else:
            yield ref


def entries_in_page(load: LoadList, wanted: PageOfList) -> list[tuple[ChunkId, int, bytes]]:
    """Read one of these pages: chunks, their bytes and labels. Raises as `list_pages_of` does."""
    page: ListPage = load(wanted.id)
    if page.level or page.labels[:1] != (wanted.label,):
        raise _misplaced(wanted.id)
    rows = zip(iter_entries(page.entries), page.labels or repeat(b""), strict=False)
    return [(chunk, size, label) for (chunk, size), label in rows]


def _misplaced(page: TreeId) -> ObjectDamaged:
    return ObjectDamaged(
        f"chunk list page {short(page)} is sound but stands in the wrong place: the list was built wrongly; "
        "run verify to see what it hurts",
        chunk=page,
    )
