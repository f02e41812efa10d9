"""Trees bottom up: the entries of a folder become pages, the chunks of a file a content list.

Owns the two builders and nothing else: what a page looks like and where it ends is the business of
``format``, where a page goes is the business of the ``save`` that the caller passes.

Both are functions of their input alone. Equal entries give equal pages and so equal ids, whatever
was backed up before; a page's end depends on the names (or chunk ids) near it, so one changed entry
changes one page of each level, now and then its neighbour too.

A builder keeps at most one open page a level: about 64 KiB each (never above ``PAGE_MAX_BYTES`` and
one entry), and a folder of a billion entries has four levels. A builder belongs to one thread; it
promises nothing about durability, that is for ``save``.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, repeat
from operator import le

from dedupstore.errors import UsageError
from dedupstore.findings import printable
from dedupstore.format.chunklist import (
    ListPage,
    content_size,
    cut_list_after,
    encode_list_page,
    find_list_cut,
    iter_entries,
)
from dedupstore.format.constants import (
    HOLE_MAX,
    LIST_DEPTH_MAX,
    LIST_ENTRY,
    LIST_ENTRY_SIZE,
    LIST_INLINE_MAX,
    LIST_REF,
    PAGE_LEVEL_MAX,
)
from dedupstore.format.tree import Page, PageRef, PageSplitter, encode_page
from dedupstore.ids import HOLE, ID_SIZE, ChunkId, TreeId
from dedupstore.model import Node, NodeKind, Summary

_DIR = int(NodeKind.DIR)
_NODE_OVERHEAD = 64
"""Encoded bytes of a node's numbers, about; only used to keep pages under ``PAGE_MAX_BYTES``."""


class _OpenPage:
    """The page of one level that still grows, and what lies under it so far."""

    __slots__ = ("entries", "files", "first", "newest", "nodes", "refs", "size", "weight")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.nodes: list[Node] = []
        self.refs: list[PageRef] = []
        self.first = b""
        self.entries = 0
        self.files = 0
        self.size = 0
        self.newest = 0
        self.weight = 0


class FolderBuilder:
    """Turns the entries of one folder, in name order, into saved pages.

    ``save`` gets the encoded bytes of each page once it is full, lower levels first, and returns its
    id. ``splitter`` decides where pages end; it must be the repository's, or equal folders get unequal ids.
    """

    def __init__(self, save: Callable[[bytes], TreeId], splitter: PageSplitter) -> None:
        self._save = save
        self._splitter = splitter
        self._levels = [_OpenPage()]
        self._last = b""

    def add(self, node: Node) -> None:
        """Add the next entry. Raises `UsageError` if its name does not sort after the one before."""
        name = node.name
        if name <= self._last:
            raise UsageError(
                f"folder entries must come in name order: {printable(name)!r} came after "
                f"{printable(self._last)!r}; sort the listing by its bytes",
                name=name,
            )
        self._last = name
        page = self._levels[0]
        nodes = page.nodes
        if not nodes:
            page.first = name
        nodes.append(node)
        if node.kind == _DIR:
            under = node.summary
            if under is not None:
                page.files += under.files
                page.size += under.bytes
                page.newest = max(page.newest, under.newest)
        else:
            page.files += 1
            page.size += node.size
        page.newest = max(page.newest, node.mtime)
        page.weight += _weight(node)
        if self._splitter.cut_after(name, len(nodes), page.weight):
            self._close(0)

    def add_all(self, nodes: Iterable[Node]) -> None:
        """Add entries one after the other, as `add` does."""
        for node in nodes:
            self.add(node)

    def finish(self) -> tuple[TreeId, Summary]:
        """Save what is still open; return the top page's id and what lies under the folder.

        A folder without entries is one empty leaf page. The builder is spent afterwards.
        """
        level = 0
        while True:
            page = self._levels[level]
            highest = level + 1 == len(self._levels)
            if highest and level and len(page.refs) == 1:
                # A page with one reference would only be a longer way to the page below.
                only = page.refs[0]
                return only.id, only.summary
            if highest and not level and not page.nodes:
                summary = Summary()
                return self._save(encode_page(Page(0, summary))), summary
            if page.nodes or page.refs:
                self._close(level)
            level += 1

    def _close(self, level: int) -> None:
        """Save the open page of a level and hand its reference to the level above."""
        page = self._levels[level]
        summary = Summary(page.files, page.size, page.newest)
        encoded = encode_page(Page(level, summary, tuple(page.nodes), tuple(page.refs)))
        entries = page.entries if level else len(page.nodes)
        ref = PageRef(page.first, self._save(encoded), summary, entries)
        page.clear()
        if level + 1 == len(self._levels):
            if level == PAGE_LEVEL_MAX:
                raise UsageError("a folder has too many entries for this format: split it in two")
            self._levels.append(_OpenPage())
        self._add_ref(level + 1, ref)

    def _add_ref(self, level: int, ref: PageRef) -> None:
        page = self._levels[level]
        if not page.refs:
            page.first = ref.first
        page.refs.append(ref)
        page.entries += ref.entries
        page.files += ref.summary.files
        page.size += ref.summary.bytes
        page.newest = max(page.newest, ref.summary.newest)
        if self._splitter.cut_after(ref.first, len(page.refs)):
            self._close(level)


def _weight(node: Node) -> int:
    """Return about how many encoded bytes an entry takes; a function of the entry alone."""
    weight = _NODE_OVERHEAD + len(node.name) + len(node.content) + len(node.target)
    if node.xattrs:
        weight += sum(len(key) + len(value) + 8 for key, value in node.xattrs)
    if node.extra:
        weight += sum(len(key) + len(value) + 8 for key, value in node.extra.items())
    return weight


class _OpenList:
    """The list page of one level that still grows: encoded entries, and bytes of content under it."""

    __slots__ = ("count", "entries", "labels", "last", "size")

    def __init__(self) -> None:
        self.entries = bytearray()
        self.labels: list[bytes] = []
        """One an entry, or none at all."""
        self.count = 0
        self.last = HOLE
        """The id in the last entry."""
        self.size = 0


def _are_labels(labels: Sequence[bytes], count: int) -> bool:
    """Tell whether these label so many chunks that follow each other."""
    return len(labels) == count and labels[0] != b"" and all(map(le, labels, islice(labels, 1, None)))


class ContentBuilder:
    """Turns a file's chunks, in order, into what its node carries as ``content`` and ``depth``.

    Up to ``LIST_INLINE_MAX`` entries stay in the node; more go to list pages that ``save`` stores. A list
    whose first chunk has a label is labelled: it stays in the node only if it has but one entry.
    """

    def __init__(self, save: Callable[[bytes], TreeId]) -> None:
        self._save = save
        self._levels = [_OpenList()]
        self._inline = True
        self._inline_max = LIST_INLINE_MAX
        self._label = b""
        """The last one; empty: the list is not labelled."""
        self.size = 0
        """Bytes of content so far, holes included."""

    def append(self, chunk: ChunkId, length: int, label: bytes = b"") -> None:
        """Add the next ``length`` bytes; `ids.HOLE` of any length stands for zeros never written.

        Raises `UsageError` if only some chunks have a label, or one has a lesser label than the one before.
        """
        if label != self._label:
            self._relabel(label)
        self.size += length
        if chunk == HOLE:
            while length > HOLE_MAX:
                self._append(chunk, HOLE_MAX)
                length -= HOLE_MAX
        if length:
            self._append(chunk, length)

    def append_page(
        self, page: TreeId, size: int, label: bytes, rows: Callable[[], Iterable[tuple[ChunkId, int, bytes]]]
    ) -> None:
        """Add all that a saved level 0 page holds: ``size`` bytes, its first chunk called ``label``.

        What comes out is what appending its ``rows`` gives. Where a page begins here it is that one again,
        and they are not asked for. It must have ended before more of the same list came, unless nothing is
        appended behind it. Raises as `append` and ``rows`` do.
        """
        if self._levels[0].count:
            for row in rows():
                self.append(*row)
            return
        if label != self._label:
            self._relabel(label)
        if self._inline:
            self._inline = False
            self._levels = [_OpenList()]
        if len(self._levels) == 1:
            self._levels.append(_OpenList())
        self.size += size
        self._add(1, LIST_REF, ChunkId(page), size, label)

    def extend(self, entries: bytes, labels: Sequence[bytes] = ()) -> None:
        """Add the next chunks, no holes, as content entries: `append` for each, in a third of the time."""
        count = len(entries) // LIST_ENTRY_SIZE
        if not count or (labels and not _are_labels(labels, count)):
            self._append_each(entries, labels)
            return
        if self._label != (first := labels[0] if labels else b""):
            self._relabel(first)
        if labels:
            self._label = labels[-1]
        if self._inline and self._levels[0].count + count > self._inline_max:
            self._leave_node()
        at = 0
        while at < count:
            page = self._levels[0]
            cut = None if self._inline else find_list_cut(entries, at, page.count)
            end = count if cut is None else cut
            part = entries[at * LIST_ENTRY_SIZE : end * LIST_ENTRY_SIZE]
            size = content_size(part)
            page.entries += part
            page.labels += labels[at:end]
            page.count += end - at
            page.last = ChunkId(part[-LIST_ENTRY_SIZE:][:ID_SIZE])
            page.size += size
            self.size += size
            if cut is not None:
                self._close(0)
            at = end

    def _append_each(self, entries: bytes, labels: Sequence[bytes]) -> None:
        """Add chunks one by one; for labels that one by one are found wrong."""
        for (chunk, size), label in zip(iter_entries(entries), chain(labels, repeat(b"")), strict=False):
            self.append(chunk, size, label)

    def finish(self) -> tuple[bytes, int]:
        """Save what is still open; return the node's ``content`` and ``depth``. Spent afterwards."""
        if self._inline:
            return bytes(self._levels[0].entries), 0
        level = 0
        while True:
            page = self._levels[level]
            if level + 1 == len(self._levels) and level and page.count == 1:
                return bytes(page.last), level
            if page.count:
                self._close(level)
            level += 1

    def _relabel(self, label: bytes) -> None:
        """Go on to another label."""
        if not self._label and not self.size:
            self._inline_max = 1
        elif not self._label or label < self._label:
            raise UsageError(
                f"the chunk at byte {self.size} of a file has label {label.hex()!r} after "
                f"{self._label.hex()!r}, but labels ascend and no chunk goes without: report this"
            )
        self._label = label

    def _append(self, chunk: ChunkId, length: int) -> None:
        if self._inline and self._levels[0].count == self._inline_max:
            self._leave_node()
        self._add(0, LIST_ENTRY, chunk, length, self._label)

    def _leave_node(self) -> None:
        """Send what can not stay in the node through the pages as if from the start."""
        page = self._levels[0]
        self._inline = False
        self._levels = [_OpenList()]
        labels = page.labels or repeat(b"")
        for entry, label in zip(LIST_ENTRY.iter_unpack(page.entries), labels, strict=False):
            self._add(0, LIST_ENTRY, ChunkId(entry[0]), entry[1], label)

    def _add(self, level: int, layout: struct.Struct, identifier: ChunkId, size: int, label: bytes) -> None:
        page = self._levels[level]
        page.entries += layout.pack(identifier, size)
        if label:
            page.labels.append(label)
        page.count += 1
        page.last = identifier
        page.size += size
        if not self._inline and cut_list_after(identifier, page.count):
            self._close(level)

    def _close(self, level: int) -> None:
        page = self._levels[level]
        if level + 1 == LIST_DEPTH_MAX:
            raise UsageError("a file has too many chunks for this format: use larger chunks")
        labels = tuple(page.labels)
        identifier = self._save(encode_list_page(ListPage(level, bytes(page.entries), labels)))
        self._levels[level] = _OpenList()
        if level + 1 == len(self._levels):
            self._levels.append(_OpenList())
        self._add(level + 1, LIST_REF, identifier, page.size, labels[0] if labels else b"")
