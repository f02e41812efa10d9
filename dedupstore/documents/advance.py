"""The next snapshot of a server without asking it: the last one, moved forward by the log.

Collections that the log does not touch are taken over unread, whatever they are called now. Of those that it
does touch only the leaves are read into which changes fall, and of the list of leaves the pages near those.
What comes out is, leaf for leaf, the snapshot that reading the whole server at that operation would have
given.

Used once, by one thread. Memory: that of the view, and of one `LeafPatch`.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.documents.given import Below, Entry, GivenFolder, Kept, Opened, Written, folder_node
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.moments import time_of
from dedupstore.documents.parts import CollectionPatch, NoLongerCut, Origin, leaf_patch, with_facts
from dedupstore.documents.replayed import ReplayedCollection, ReplayedView
from dedupstore.documents.slices import LOG_NAME
from dedupstore.documents.timeline import span
from dedupstore.errors import SourceError, UsageError
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Patch, Stream
from dedupstore.sources.bson.attempt import Attempt, Leaves
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    VIEW,
    CollectionFacts,
    file_name,
    metadata_json,
)
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.oplog.position import Position
from dedupstore.sources.oplog.span import Span
from dedupstore.sources.owners import OwnedSource
from dedupstore.tree.walk import nodes_of

_MODE = 0o600


class AdvancedSource(OwnedSource):
    """A replayed view as a source; see `dedupstore.sources.base.Source`.

    The view stays the caller's, who closes it after the snapshot.
    """

    all_or_nothing = True
    absent: Sequence[tuple[bytes, SourceError]] = ()

    def __init__(self, view: ReplayedView, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """``view`` is that of the whole log since its base, without ``keep``.

        Raises `UsageError` if its base does not say where the log stood, or is somebody's dump folder.
        """
        super().__init__()
        base = view.base.snapshot
        ends = span(base)
        if ends is None or base.source.paths != (b"/",):
            raise UsageError(
                "only a snapshot of a server can be moved forward by its log: take one with "
                "`dstore snapshot --mongo URI`"
            )
        self.spec = base.source
        words = repr(("advanced", base.source.kind, sorted(base.source.options.items())))
        self.key = hashlib.blake2b(words.encode(), digest_size=16).digest()
        self.adopts: Sequence[TreeId] = (base.root,)
        self._view = view
        self._end = view.collapsed.position or ends.end
        self._base_end = ends.end
        self._leaves = leaves_of(view.base.repo, view.base)
        self._clock = clock
        self._owner = os.getuid(), os.getgid()
        self._mtime = self._end.ts.seconds * 1_000_000_000

    @property
    def news(self) -> bool:
        """Whether the log says anything at all since the base."""
        return self._end != self._base_end

    def top(self) -> GivenFolder:
        """Return the root of the dump."""
        base = self._view.base
        databases: dict[str, list[Entry]] = {}
        for one in self._view.collections():
            databases.setdefault(one.info.db, []).extend(self._files(one))
        entries: list[Entry] = []
        folders: dict[bytes, Node] = {}
        for node in nodes_of(base.repo.load_page, base.snapshot.root):
            if node.kind == NodeKind.DIR:
                folders[node.name] = node
            elif node.name != LOG_NAME:  # it belongs to the base's own reading
                entries.append(Kept(node))
        for db, files in databases.items():
            name = db.encode("utf-8", "surrogateescape")
            node = folders.get(name) or folder_node(name, self._mtime, *self._owner)
            entries.append(Below(msgspec.structs.replace(node, subtree=None, summary=None), files))
        return GivenFolder(b"/", entries, self._clock)

    def position(self) -> bytes:
        """Return where the log stood, and the beginning of what was not finished there."""
        begun = self._view.collapsed.open_since
        return Span(self._end, self._end, None if begun is None else Position(begun)).pack()

    def instant(self) -> datetime:
        """Return the second of the last operation."""
        return time_of(self._end.ts)

    def close(self) -> None:
        """The view is the caller's."""

    def _files(self, one: ReplayedCollection) -> list[Entry]:
        files = [self._metadata(one)]
        if one.info.kind != VIEW:
            files.append(self._documents(one))
        return files

    def _node(self, name: bytes) -> Node:
        return Node(name, int(NodeKind.STREAM), _MODE, *self._owner, self._mtime)

    def _metadata(self, one: ReplayedCollection) -> Entry:
        stored = self._view.base.find(one.info.db, one.info.name) if one.key is None else one.base
        if stored is not None and stored.files.metadata is not None and stored.info == one.info:
            return Kept(stored.files.metadata)
        node = self._node(file_name(one.info.name) + METADATA_SUFFIX)
        return Written(node, metadata_json(one.info))

    def _documents(self, one: ReplayedCollection) -> Entry:
        node = self._node(file_name(one.info.name) + DATA_SUFFIX)
        base = one.base
        if base is None or base.files.data is None or base.facts is None or one.discarded:
            return Opened(node, self._opener(one, node).open)
        info, facts = one.info, base.facts
        if not one.touched:
            if (facts.db, facts.name, facts.uuid) == (info.db, info.name, info.uuid):
                return Kept(base.files.data)
            fresh = replace(facts, db=info.db, name=info.name, uuid=info.uuid)
            known = msgspec.structs.replace(base.files.data, name=node.name, mtime=node.mtime)
            return Kept(with_facts(known, fresh, known.size))
        if one.natural or base.natural or self._leaves.k_of(info) is None:
            return Opened(node, self._opener(one, node).open)
        return Opened(node, self._opener(one, node, patched=facts).open)

    def _opener(
        self, one: ReplayedCollection, node: Node, *, patched: CollectionFacts | None = None
    ) -> "_Changed":
        return _Changed(one, node, self._leaves, patched)


class _Changed:
    """A collection that is not taken over as it was, to be opened."""

    def __init__(
        self, one: ReplayedCollection, node: Node, leaves: Leaves, patched: CollectionFacts | None
    ) -> None:
        """``patched``: the facts of the old leaves, if they are to be patched; ``None``: all is cut anew."""
        self._one = one
        self._node = node
        self._leaves = leaves
        self._patched = patched
        self._attempt = Attempt(one.info.namespace, one.info, leaves)

    def open(self) -> Stream | Patch:
        """Begin; once more, if it turned out that it must be stored in another way."""
        one, facts = self._one, self._patched
        if facts is None:
            origin = Origin(self._node, one.documents())
            return DocumentStream(origin, self._attempt, packed=False, name=self._node.name, folder=None)

        def facts_after(added: int) -> CollectionFacts:
            info = one.info
            return CollectionFacts(facts.k, True, facts.documents + added, info.db, info.name, info.uuid)

        patch = leaf_patch(
            one, self._leaves, facts.k, paged=True, cutter=lambda cutter: NoLongerCut(cutter, self._give_up)
        )
        return CollectionPatch(self._node, patch, facts_after)

    def _give_up(self) -> None:
        self._patched = None
