"""Folders under construction: what the walk knows of each, and how it becomes tree pages.

The walk runs ahead of the workers, so what it sees goes into one queue in path order (`Assembly.push_*`)
and is built into pages from the queue's head as soon as the chunk ids are there. A folder is in one of
two states: *same* as in the last snapshot by its listing, so that only folders below it can have changed, or
*open*, listed entry by entry.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from dedupstore.format.tree import Page, PageSplitter
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, Summary
from dedupstore.ops.backup.parts import Parts, append_all, is_done, only_piece
from dedupstore.sources.base import Folder, Item, Listing
from dedupstore.tree.build import ContentBuilder, FolderBuilder
from dedupstore.tree.walk import nodes_of

Remember: TypeAlias = "Callable[[Frame, TreeId, Summary], None]"


@dataclass(slots=True)
class Frame:
    """One folder between entering and leaving it."""

    folder: Folder
    node: Node
    """The folder's own entry in its parent, subtree still missing."""
    parent: "Frame | None"
    listing: Listing
    known: tuple[TreeId, Summary] | None
    """What the last snapshot had here, if that is still to be relied on."""
    same: bool
    names: list[bytes] = field(default_factory=list)
    """Folders descended into, in order."""
    unstable: set[bytes] = field(default_factory=set)
    """Entries that may look unchanged next time although they changed."""
    trusted: bool = False
    """*Open* only: what is remembered of it may be used entry by entry."""
    unlisted: bool = False
    """It could not be listed; it is stored empty and not remembered."""
    builder: FolderBuilder | None = None
    changed: dict[bytes, tuple[TreeId, Summary]] = field(default_factory=dict)
    """*Same* only: folders below that are not as they were."""
    read: dict[bytes, tuple[Node, Parts] | None] = field(default_factory=dict)
    """*Open* only: small files that are read already, by name; ``None``: to be read by themselves."""
    later: "list[tuple[Item, Node | None, Place]]" = field(default_factory=list)
    """*Open* only: files to be read last, with what they were before and where they belong."""


class Place:
    """The place of an entry in the queue while it is not read yet."""

    __slots__ = ("filled", "node", "parts")

    def __init__(self) -> None:
        self.filled = False
        self.node: Node | None = None
        self.parts: Parts = []

    def fill(self, node: Node | None, parts: Parts) -> None:
        """Put the entry there; None: there is none."""
        self.filled, self.node, self.parts = True, node, parts


def with_subtree(node: Node, top: TreeId, summary: Summary) -> Node:
    """Return a folder's entry with what lies below it."""
    return msgspec.structs.replace(node, subtree=top, summary=summary)


class Assembly:
    """The queue between the walk and the tree. One thread.

    Memory: what is queued; the owner drains it when `waiting` grows, which does not help behind an entry
    that is yet to be read (300 bytes an entry). One open page a level and folder.
    """

    def __init__(
        self,
        load: Callable[[TreeId], Page],
        save: Callable[[bytes], TreeId],
        splitter: PageSplitter,
        remember: Remember,
        reuse: Callable[[TreeId], None],
    ) -> None:
        self._load = load
        self._save = save
        self._splitter = splitter
        self._remember = remember
        self._reuse = reuse
        self._queue: deque[tuple[Frame, Node | Place | None, Parts]] = deque()
        self.root: tuple[TreeId, Summary] | None = None
        """The top folder's result, once it was left and built."""

    @property
    def waiting(self) -> int:
        """How many entries wait for chunk ids, or behind one that does."""
        return len(self._queue)

    @property
    def head(self) -> Parts:
        """What the first waiting entry waits for."""
        if not self._queue:
            return []
        _, node, parts = self._queue[0]
        return node.parts if isinstance(node, Place) else parts

    @property
    def held(self) -> bool:
        """Whether the first waiting entry is one that is yet to be read, so that waiting is for nothing."""
        node = self._queue[0][1] if self._queue else None
        return isinstance(node, Place) and not node.filled

    def push_node(self, frame: Frame, node: Node, parts: Parts) -> None:
        """Queue an entry of an open folder; its content follows from ``parts``."""
        self._queue.append((frame, node, parts))

    def push_place(self, frame: Frame) -> Place:
        """Queue an entry of an open folder that will be read later."""
        place = Place()
        self._queue.append((frame, place, []))
        return place

    def push_leave(self, frame: Frame) -> None:
        """Queue the end of a folder."""
        self._queue.append((frame, None, []))

    def empty_folder(self) -> tuple[TreeId, Summary]:
        """Return the tree of a folder with nothing in it."""
        return FolderBuilder(self._save, self._splitter).finish()

    def content(self) -> ContentBuilder:
        """Return an empty content list."""
        return ContentBuilder(self._save)

    def drain(self) -> None:
        """Build what can be built."""
        queue = self._queue
        while queue:
            frame, node, parts = queue[0]
            if isinstance(node, Place):
                if not node.filled or not is_done(node.parts):
                    return
                queue.popleft()
                if node.node is not None:
                    self._builder(frame).add(self._with_content(node.node, node.parts))
                continue
            if parts and not is_done(parts):
                return
            queue.popleft()
            if node is None:
                self._leave(frame)
            else:
                self._builder(frame).add(self._with_content(node, parts) if parts else node)

    def _builder(self, frame: Frame) -> FolderBuilder:
        if frame.builder is None:
            frame.builder = FolderBuilder(self._save, self._splitter)
        return frame.builder

    def _with_content(self, node: Node, parts: Parts) -> Node:
        if not parts:
            return node
        only = only_piece(parts)
        if only is not None:
            return msgspec.structs.replace(node, content=only)
        content = parts[0] if isinstance(parts[0], ContentBuilder) else ContentBuilder(self._save)
        append_all(content, parts)
        packed, depth = content.finish()
        return msgspec.structs.replace(node, size=content.size, content=packed, depth=depth)

    def _leave(self, frame: Frame) -> None:
        if frame.same and not frame.changed and frame.known is not None:
            top, summary = frame.known
            if frame.parent is None or not frame.parent.same:
                self._reuse(top)
        else:
            if frame.same and frame.known is not None:
                self._patch(frame, frame.known[0])
            top, summary = self._builder(frame).finish()
            frame.builder = None
            self._remember(frame, top, summary)
        parent = frame.parent
        if parent is None:
            self.root = top, summary
        elif not parent.same:
            self._builder(parent).add(with_subtree(frame.node, top, summary))
        elif frame.known is None or frame.known[0] != top:
            parent.changed[frame.node.name] = top, summary

    def _patch(self, frame: Frame, old: TreeId) -> None:
        """Build the folder anew from its old pages, with the changed folders in place."""
        self._reuse(old)
        builder = self._builder(frame)
        for node in nodes_of(self._load, old):
            fresh = frame.changed.get(node.name) if node.kind == NodeKind.DIR else None
            if fresh is None:
                builder.add(node)
            else:
                builder.add(with_subtree(node, *fresh))
