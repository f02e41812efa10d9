"""A page store in a dict: what tests of trees, and of anything that reads them, build upon.

Counts what was asked, so that a test can say how much a walk may load, and loses pages when told.
Not for more than one thread.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TypeAlias, Union
from zlib import crc32

from dedupstore.errors import ObjectNotFound
from dedupstore.format.chunklist import ListPage, decode_list_page
from dedupstore.format.tree import Page, PageSplitter, decode_page
from dedupstore.ids import ChunkId, TreeId, short
from dedupstore.model import Node, NodeKind
from dedupstore.tree.build import FolderBuilder

Folder: TypeAlias = Mapping[bytes, Union[Node, "Folder"]]
"""A tree as nested mappings: name → entry, or name → folder."""

SPLITTER = PageSplitter(bytes(range(32)))


class SmallSplitter(PageSplitter):
    """Ends pages after two to six entries, so that small folders have many levels."""

    def cut_after(self, name: bytes, entries_in_page: int, size: int = 0) -> bool:
        """Tell whether the page ends after ``name``; ``size`` does not matter here."""
        del size
        return entries_in_page >= 6 or (entries_in_page >= 2 and crc32(name) % 3 == 0)


class PageStore:
    """Pages by the BLAKE2b hash of their bytes."""

    def __init__(self, splitter: PageSplitter = SPLITTER) -> None:
        self.splitter = splitter
        self.pages: dict[TreeId, bytes] = {}
        self.loads: list[TreeId] = []
        """Every id that was asked for since `loads` was last cleared."""

    def save(self, page: bytes) -> TreeId:
        """Keep a page; return its id."""
        identifier = TreeId(ChunkId(blake2b(page, digest_size=32).digest()))
        self.pages[identifier] = page
        return identifier

    def load(self, identifier: TreeId) -> Page:
        """Return a decoded page; raises `ObjectNotFound` for one that is lost."""
        return decode_page(self._bytes(identifier))

    def load_list(self, identifier: TreeId) -> ListPage:
        """Return a decoded chunk list page."""
        return decode_list_page(self._bytes(identifier))

    def lose(self, identifier: TreeId) -> None:
        """Forget a page that others still name."""
        del self.pages[identifier]

    def folder(self, nodes: Iterable[Node]) -> TreeId:
        """Save one folder; return its top page."""
        builder = FolderBuilder(self.save, self.splitter)
        builder.add_all(sorted(nodes, key=lambda node: node.name))
        return builder.finish()[0]

    def tree(self, folder: Folder) -> TreeId:
        """Save a tree given as nested mappings; return its root."""
        return TreeId(ChunkId(self._node(b"", folder).subtree or b""))

    def _node(self, name: bytes, folder: Folder) -> Node:
        builder = FolderBuilder(self.save, SPLITTER)
        for key in sorted(folder):
            entry = folder[key]
            builder.add(entry if isinstance(entry, Node) else self._node(key, entry))
        top, summary = builder.finish()
        return Node(name, NodeKind.DIR, mode=0o755, subtree=top, summary=summary)

    def _bytes(self, identifier: TreeId) -> bytes:
        self.loads.append(identifier)
        try:
            return self.pages[identifier]
        except KeyError:
            raise ObjectNotFound(f"page {short(identifier)} is lost: put it back", id=identifier) from None
