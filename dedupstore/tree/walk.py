"""Reading trees: the entries of a folder, one path, a whole snapshot, the chunks of a file.

Everything here asks ``load`` for pages and nothing else; ``load`` has checked a page's id and
decoded it. What a page alone can not show is checked on the way down: that a page stands one
level below its reference and begins with the name the reference gives. So a walk always ends, and a
page put in another's place is damage, not a wrong answer.

Threads: every iterator belongs to one thread. Memory: one page for each level of each folder on the
way down, so depth times about 64 KiB. Errors of ``load`` pass through everywhere but in `walk`,
which turns a lost page into a `Lost` and goes on. List pages are another kind of page, so reading a
file's chunks takes another loader.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from operator import attrgetter
from typing import TypeAlias

from dedupstore.errors import (
    DedupstoreError,
    FormatError,
    IntegrityError,
    NotFoundError,
    ObjectDamaged,
)
from dedupstore.findings import printable
from dedupstore.format.chunklist import ListPage, iter_entries, iter_refs
from dedupstore.format.tree import Page, PageRef
from dedupstore.ids import ChunkId, TreeId, short
from dedupstore.model import Node, NodeKind

LoadPage: TypeAlias = Callable[[TreeId], Page]
"""Returns the checked page of an id; raises `ChunkDamaged`, `ObjectDamaged`, `ObjectNotFound`, …"""
LoadList: TypeAlias = Callable[[TreeId], ListPage]
"""The same for a page of a long chunk list."""

_Ref: TypeAlias = tuple[tuple[TreeId, int], tuple[bytes, ...] | None]
"""A list page's id and the bytes under it; what its labels must begin with (``None``: not known)."""

_DIR = int(NodeKind.DIR)
_FIRST: Callable[[PageRef], bytes] = attrgetter("first")
_NAME: Callable[[Node], bytes] = attrgetter("name")
SURVIVABLE = (IntegrityError, NotFoundError, FormatError)
"""What can be wrong with one page while the next one may be well; anything else ends a walk."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries that a walk could not see: those under one page that did not load."""

    page: TreeId
    after: bytes
    """The lost names are not before this one (empty: from the folder's first)."""
    error: DedupstoreError


def leaves_of(load: LoadPage, folder: TreeId) -> Iterator[tuple[Node, ...]]:
    """Yield the leaf pages of a folder in name order, each as its entries; lazily."""
    for leaf in _leaves(load, folder):
        if isinstance(leaf, Lost):
            raise leaf.error
        yield leaf


def nodes_of(load: LoadPage, folder: TreeId) -> Iterator[Node]:
    """Yield the entries of a folder in name order, loading a page when it is reached."""
    for leaf in leaves_of(load, folder):
        yield from leaf


def find_in(load: LoadPage, folder: TreeId, name: bytes) -> Node | None:
    """Return the entry of that name in a folder, or None; loads one page a level."""
    page = load(folder)
    while page.level:
        place = ref_at(page, name)
        if place is None:
            return None
        page = load_child(load, page, place)
    return node_at(page, name)


def ref_at(page: Page, name: bytes) -> int | None:
    """Return the place of the reference under which a name must stand; None before the first."""
    place = bisect_right(page.refs, name, key=_FIRST) - 1
    return place if place >= 0 else None


def node_at(page: Page, name: bytes) -> Node | None:
    """Return a leaf page's entry of that name, or None."""
    place = bisect_right(page.nodes, name, key=_NAME) - 1
    if place >= 0 and page.nodes[place].name == name:
        return page.nodes[place]
    return None


def load_child(load: LoadPage, page: Page, place: int) -> Page:
    """Load the page under the reference at ``place``; raises `ObjectDamaged` if it does not fit."""
    ref = page.refs[place]
    child = load(ref.id)
    if child.level != page.level - 1 or first_name(child) != ref.first:
        raise ObjectDamaged(
            f"tree page {short(ref.id)} is sound but stands in the wrong place: the tree was built wrongly; "
            "run verify to see what it hurts",
            id=ref.id,
        )
    return child


def first_name(page: Page) -> bytes:
    """Return the first name under a page; empty for the page of an empty folder."""
    if page.level:
        return page.refs[0].first if page.refs else b""
    return page.nodes[0].name if page.nodes else b""


def components(path: bytes) -> tuple[bytes, ...]:
    """Split a path inside a snapshot; slashes at the ends and doubled ones mean nothing."""
    return tuple(part for part in path.split(b"/") if part)


def lookup(load: LoadPage, root: TreeId, path: bytes) -> Node:
    """Return the entry at an absolute path; ``/`` gives a folder entry without a name.

    Costs one page a level of each folder on the way. Raises `NotFoundError` naming the first
    component that is missing, or that is no folder although the path goes on.
    """
    node = Node(b"", _DIR, mode=0o755, subtree=root, summary=load(root).summary)
    so_far = b""
    for name in components(path):
        if node.kind != _DIR:
            raise NotFoundError(
                f"{printable(so_far)} is not a folder in this snapshot, so {printable(path)} does not "
                "exist: list its parent",
                path=path,
            )
        found = find_in(load, subtree_of(node), name)
        so_far += b"/" + name
        if found is None:
            raise NotFoundError(
                f"{printable(so_far)} does not exist in this snapshot: list its parent, or see its history",
                path=path,
            )
        node = found
    return node


def subtree_of(node: Node) -> TreeId:
    """Return the top page of a folder entry; raises `ObjectDamaged` if the entry names none."""
    if node.subtree is None:
        raise ObjectDamaged(
            f"the folder {printable(node.name)} has no tree page: run verify to see what is lost",
            name=node.name,
        )
    return TreeId(ChunkId(node.subtree))


def walk(
    load: LoadPage,
    root: TreeId,
    *,
    base: bytes = b"",
    descend: Callable[[bytes, Node], bool] | None = None,
) -> Iterator[tuple[bytes, Node | Lost]]:
    """Yield every entry below ``root`` with its path: depth first, names bytewise, parents first.

    ``base`` is put before each path (empty: paths begin with a slash). ``descend`` is asked once a
    folder, after the folder itself was yielded; False skips what is below, unloaded.

    A page that is damaged, missing or of an unknown format does not end the walk: in its place comes
    ``(path of the folder, Lost)``, and the walk goes on behind it. An error of the store itself
    (unreachable, refused) is raised, because every later page would meet it too.
    """
    stack = [_Frame(base, _leaves(load, root))]
    while stack:
        frame = stack[-1]
        path = frame.path
        for node in frame.entries:
            where = path + b"/" + node.name
            yield where, node
            if node.kind != _DIR or (descend is not None and not descend(where, node)):
                continue
            stack.append(_Frame(where, _leaves(load, subtree_of(node))))
            break
        else:
            leaf = next(frame.leaves, None)
            if leaf is None:
                stack.pop()
            elif isinstance(leaf, Lost):
                yield path or b"/", leaf
            else:
                frame.entries = iter(leaf)


class _Frame:
    """A folder that a walk is inside of."""

    __slots__ = ("entries", "leaves", "path")

    def __init__(self, path: bytes, leaves: Iterator[tuple[Node, ...] | Lost]) -> None:
        self.path = path
        self.leaves = leaves
        self.entries: Iterator[Node] = iter(())


def _leaves(load: LoadPage, folder: TreeId) -> Iterator[tuple[Node, ...] | Lost]:
    """Yield the leaf pages of a folder, or a `Lost` for each page that can not be had."""
    try:
        page = load(folder)
    except SURVIVABLE as error:
        yield Lost(folder, b"", error)
        return
    if not page.level:
        yield page.nodes
        return
    stack: list[tuple[Page, int]] = [(page, 0)]
    while stack:
        page, place = stack.pop()
        if place == len(page.refs):
            continue
        stack.append((page, place + 1))
        try:
            child = load_child(load, page, place)
        except SURVIVABLE as error:
            ref = page.refs[place]
            yield Lost(ref.id, ref.first, error)
            continue
        if child.level:
            stack.append((child, 0))
        else:
            yield child.nodes


def entries_of(load: LoadList, node: Node) -> Iterator[tuple[ChunkId, int]]:
    """Yield what a file is made of, in order: chunk id and bytes; `ids.HOLE` for zeros never written.

    Loads list pages when they are reached. Raises `ObjectDamaged` if a list page does not fit.
    """
    if not node.depth:
        yield from iter_entries(node.content)
        return
    for _, entries in _lists(load, node, 0, node.size):
        yield from iter_entries(entries)


def entries_at(load: LoadList, node: Node, offset: int, size: int) -> Iterator[tuple[int, ChunkId, int]]:
    """Yield the chunks that hold the bytes ``offset`` to ``offset + size`` of a file, in order.

    Each with the offset in the file at which it begins (the first may begin before ``offset``), its
    id and its length. Nothing is yielded beyond the end. Loads one list page a level to reach ``offset``.
    """
    end = offset + size
    lists: Iterable[tuple[int, bytes]] = (
        _lists(load, node, offset, end) if node.depth else [(0, node.content)]
    )
    for start, entries in lists:
        for chunk, length in iter_entries(entries):
            if start >= end:
                return
            if start + length > offset:
                yield start, chunk, length
            start += length


def _lists(load: LoadList, node: Node, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the level 0 pages that touch a range of a file: where each begins, and its entries."""
    stack: list[tuple[int, int, Iterator[tuple[TreeId, int]]]] = [
        (node.depth - 1, 0, iter([(TreeId(ChunkId(node.content)), node.size)]))
    ]
    while stack:
        level, start, refs = stack.pop()
        for identifier, size in refs:
            if start >= end:
                return
            if start + size <= offset:
                start += size
                continue
            page = load(identifier)
            if page.level != level:
                raise _misplaced(identifier)
            if not level:
                yield start, page.entries
                start += size
                continue
            stack.append((level, start + size, refs))
            stack.append((level - 1, start, iter_refs(page.entries)))
            break


def labelled_of(load: LoadList, node: Node) -> Iterator[tuple[ChunkId, int, bytes]]:
    """Yield what a file is made of as `entries_of` does, each chunk with its label.

    Labels are empty where the list has none, or has but one entry.
    """
    for _, page in _pages_from(load, node, lambda _: 0):
        labels = page.labels or repeat(b"")
        for (chunk, size), label in zip(iter_entries(page.entries), labels, strict=False):
            yield chunk, size, label


def labelled_from(load: LoadList, node: Node, label: bytes) -> Iterator[tuple[int, ChunkId, int, bytes]]:
    """Yield the chunks from the last one whose label is not above ``label`` to the end, lazily.

    Each with its offset in the file, id, length and label. Of several with the same label it begins with the
    first, and with the list's first chunk if all labels are above. A list without labels is yielded whole.
    Loads one list page a level to get there; twice that and one if equal labels may reach over a page's end.
    Raises `ObjectDamaged` as `entries_of` does.
    """
    pages = _pages_from(load, node, lambda labels: bisect_right(labels, label) - 1)
    start, page = next(pages, (0, ListPage(0, b"")))
    place = 0
    if page.labels:
        found = page.labels[max(bisect_right(page.labels, label) - 1, 0)]
        place = bisect_left(page.labels, found)
        if start and not place:  # chunks with this label may lie before this page
            pages = _pages_from(load, node, lambda labels: bisect_left(labels, found) - 1)
            start, page = next(pages)
            place = bisect_left(page.labels, found)
    yield from _labelled(start, page, place)
    for start, page in pages:
        yield from _labelled(start, page, 0)


def _labelled(start: int, page: ListPage, place: int) -> Iterator[tuple[int, ChunkId, int, bytes]]:
    """Yield the entries of a level 0 page that begins at byte ``start``, from the one at ``place``."""
    labels = page.labels or repeat(b"")
    for number, ((chunk, size), label) in enumerate(zip(iter_entries(page.entries), labels, strict=False)):
        if number >= place:
            yield start, chunk, size, label
        start += size


def _pages_from(
    load: LoadList, node: Node, seek: Callable[[tuple[bytes, ...]], int]
) -> Iterator[tuple[int, ListPage]]:
    """Yield level 0 pages to the end of the list, each with the offset at which it begins.

    ``seek`` says for the labels of the pages on the way down to the first one which reference to follow;
    below 0 means the first one.
    """
    if not node.depth:
        if node.content:
            yield 0, ListPage(0, node.content)
        return
    top: _Ref = (TreeId(ChunkId(node.content)), node.size), None
    stack = [(node.depth - 1, 0, node.size, iter([top]))]
    sought = False
    while stack:
        level, start, end, refs = stack.pop()
        step = next(refs, None)
        if step is None or start >= end:
            continue
        (identifier, size), labels = step
        stack.append((level, start + size, end, refs))
        end = min(end, start + size)
        page = load(identifier)
        if page.level != level or (labels is not None and page.labels[:1] != labels):
            raise _misplaced(identifier)
        if not level:
            sought = True
            yield start, page
            continue
        below = _refs(page)
        for (_, passed), _ in islice(below, 0 if sought else max(seek(page.labels), 0)):
            start += passed
        if start >= end:
            raise _misplaced(identifier)
        stack.append((level - 1, start, end, below))


def _refs(page: ListPage) -> Iterator[_Ref]:
    for place, ref in enumerate(iter_refs(page.entries)):
        yield ref, page.labels[place : place + 1]


def _misplaced(identifier: TreeId) -> ObjectDamaged:
    return ObjectDamaged(
        f"chunk list page {short(identifier)} is sound but stands in the wrong place: the list "
        "was built wrongly; run verify to see what it hurts",
        id=identifier,
    )
