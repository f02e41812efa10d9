"""Writes to documents: inserts, updates in every form, deletes; alone and many to an entry."""

from collections.abc import Callable

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.edits import edits_of, rewritten
from dedupstore.testing.oplog.identity import Key, id_of, identity
from dedupstore.testing.oplog.model import Meta
from dedupstore.testing.oplog.primary import Operation, Primary, written
from dedupstore.testing.oplog.updates import (
    difference,
    difference_entry,
    has_twins,
    in_server_order,
    modifier_entry,
    modify,
)

Staged = dict[tuple[bytes, Key], bytes | None]
"""What a transaction has written so far and nobody else can see."""


class Writes:
    """Makes operations on documents of a `Primary`. One thread."""

    def __init__(self, primary: Primary, v1_updates: float, documents: int) -> None:
        """Make them for ``primary``; this share of its updates by operators in the form of 4.4.

        A collection of so many ``documents`` grows no more.
        """
        self._primary = primary
        self._chance = primary.chance
        self._v1_updates = v1_updates
        self._documents = documents

    def _current(self, uuid: bytes, key: Key, staged: Staged | None) -> bytes | None:
        if staged is not None and (uuid, key) in staged:
            return staged[uuid, key]
        return self._primary.state.documents.get(uuid, {}).get(key)

    def _existing(self, meta: Meta, staged: Staged | None) -> tuple[Key, bytes] | None:
        """Draw a document that is there and that no other transaction holds."""
        own = [
            (key, document)
            for (uuid, key), document in (staged or {}).items()
            if uuid == meta.uuid and document is not None
        ]
        if own and self._chance.flip(0.5):
            return self._chance.pick(own)
        pool = self._primary.pools[meta.uuid]
        for _ in range(4):
            if not len(pool):
                return None
            key = pool.draw(self._chance)
            document = self._current(meta.uuid, key, staged)
            mine = staged is not None and (meta.uuid, key) in staged
            if document is not None and (mine or (meta.uuid, key) not in self._primary.locks):
                return key, document
        return None

    def _document_key(self, meta: Meta, document: bytes) -> bytes:
        shard_key = self._primary.traits[meta.uuid].shard_key
        names = [b"_id"] if shard_key is None else [shard_key, b"_id"]
        found = {name: bson.find(document, name) for name in names}
        return bson.build((name, *value) for name, value in found.items() if value is not None)

    def _migrated(self, probability: float) -> tuple[tuple[str, Value], ...]:
        return (("fromMigrate", bson.boolean(True)),) if self._chance.flip(probability) else ()

    def insert(self, meta: Meta, staged: Staged | None = None) -> Operation | None:
        """Make an insert of a new document, or of one whose ``_id`` was there before."""
        primary, traits = self._primary, self._primary.traits[meta.uuid]
        fixed = []
        if traits.shard_key is not None:
            fixed = [Element(traits.shard_key, *bson.string(self._chance.pick(["n", "s", "e"])))]
        for _ in range(5):
            chosen = primary.values.identity(traits.style)
            key = identity(chosen)
            mine = staged is not None and (meta.uuid, key) in staged
            free = mine or (meta.uuid, key) not in primary.locks
            if free and self._current(meta.uuid, key, staged) is None:
                break
        else:
            return None
        document = primary.values.document(chosen, fixed)
        o2 = self._document_key(meta, document) if primary.version >= (5, 0) else None
        ns = f"{meta.db}.{meta.name}"
        changes = written(meta.uuid, key, document)
        return Operation("i", ns, meta.uuid, document, o2, changes, self._migrated(0.01))

    def delete(self, meta: Meta, staged: Staged | None = None) -> Operation | None:
        """Make a delete."""
        found = self._existing(meta, staged)
        return None if found is None else self.deletion(meta, *found)

    def deletion(self, meta: Meta, key: Key, document: bytes) -> Operation:
        """Make the delete of this document."""
        o = self._document_key(meta, document)
        changes = written(meta.uuid, key, None)
        return Operation("d", f"{meta.db}.{meta.name}", meta.uuid, o, None, changes, self._migrated(0.02))

    def update(self, meta: Meta, staged: Staged | None = None) -> Operation | None:
        """Make an update by replacement, operators or pipeline."""
        found = self._existing(meta, staged)
        if found is None:
            return None
        key, before = found
        shard_key = self._primary.traits[meta.uuid].shard_key
        fixed = frozenset({b"_id"} if shard_key is None else {b"_id", shard_key})
        way = self._chance.weighted([("operators", 55), ("pipeline", 30), ("replacement", 15)])
        after, o = self.changed(before, fixed, way)
        if after == before:
            return None
        o2 = self._document_key(meta, before)
        extra: tuple[tuple[str, Value], ...] = ()
        if self._chance.flip(0.03):
            extra = (("b", bson.boolean(self._chance.flip(0.5))),)
        ns = f"{meta.db}.{meta.name}"
        return Operation("u", ns, meta.uuid, o, o2, written(meta.uuid, key, after), extra)

    def changed(self, before: bytes, fixed: frozenset[bytes], way: str) -> tuple[bytes, bytes]:
        """Return a document after an update in that ``way``, and the ``o`` of its entry."""
        primary = self._primary
        if way == "operators":
            edits = in_server_order(edits_of(before, fixed, primary.values, self._chance))
            outcome = modify(before, edits)
            if outcome.diff is None:
                return before, b""
            if self._chance.flip(self._v1_updates):
                return outcome.raw, modifier_entry(outcome.modifiers)
            return outcome.raw, difference_entry(outcome.diff)
        if way == "pipeline" and not has_twins(before):
            after = rewritten(before, fixed, primary.values, self._chance)
            modern = primary.version >= (5, 0) and self._chance.flip(0.9)
            diff = difference(before, after) if modern and not has_twins(after) else None
            return after, after if diff is None else difference_entry(diff)
        kept = [
            element for element in bson.elements(before) if element.name in fixed and element.name != b"_id"
        ]
        after = primary.values.document(id_of(before), kept)
        return after, after

    def any_of(self, meta: Meta, staged: Staged | None = None) -> Operation | None:
        """Make a write of any kind to a collection that is not capped."""
        kinds: list[tuple[Callable[[Meta, Staged | None], Operation | None], int]]
        full = len(self._primary.pools[meta.uuid]) >= self._documents
        kinds = [(self.insert, 5 if full else 38), (self.update, 44), (self.delete, 18)]
        return self._chance.weighted(kinds)(meta, staged)
