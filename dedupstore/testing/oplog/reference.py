"""The reference applier: one oplog entry after the other, as a server that catches up would do it.

Slow, obvious, and independent of `dedupstore.sources.oplog`: histories and the real thing are checked
against it. What it does not know it refuses.
"""

from collections.abc import Callable
from typing import NamedTuple

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.ddl import OPTION_ORDER, with_options
from dedupstore.testing.oplog.identity import id_of, identity
from dedupstore.testing.oplog.indexes import id_index, index_name, without
from dedupstore.testing.oplog.model import Meta, State
from dedupstore.testing.oplog.patch import patched
from dedupstore.testing.oplog.primary import NO_OPTIME

_OFF = (bson.embedded({"enabled": bson.boolean(False)}), Value(bson.DOCUMENT, bson.EMPTY))
_IGNORED = ("n", "ci", "cu", "cd", "km")
"""Kinds that change no document that users see."""
_BOOKS = (
    *(["dbCheck", "setMultikeyMetadata", "dropIdent", "createDatabaseMetadata", "dropDatabaseMetadata"]),
    "modifyCollectionShardingIndexCatalog",
)
"""Commands of which the same is true."""
_HIDING = {b"hidden", b"unique", b"prepareUnique"}
"""Index options that are left out where they are false."""


class Command(NamedTuple):
    """A command of the oplog."""

    db: str
    o: bytes
    uuid: bytes
    """Of the collection it is about; none for a database's."""


class Reference:
    """Applies entries to a state. One thread."""

    def __init__(self, state: State, *, tolerant: bool = False) -> None:
        """Apply to ``state``, which is changed. ``tolerant``: it may be ahead of the entries."""
        self.state = state
        self.tolerant = tolerant
        self._held: dict[bytes, list[bytes]] = {}
        self._commands: dict[str, Callable[[Command], None]] = {
            "create": self._create,
            "drop": self._drop,
            "dropDatabase": self._drop_database,
            "renameCollection": self._rename,
            "collMod": self._coll_mod,
            "emptycapped": self._empty,
            "createIndexes": self._create_indexes,
            "startIndexBuild": self._nothing,
            "commitIndexBuild": self._commit_build,
            "abortIndexBuild": self._nothing,
            "dropIndexes": self._drop_indexes,
            "convertToCapped": self._convert,
        }

    def apply(self, entry: bytes, *, effective: bool = True) -> None:
        """Apply one entry of the oplog.

        If it is not ``effective`` the state has what it does: it only counts as part of a transaction.
        """
        for operation in self._settled(entry, effective):
            if effective:
                self._one(operation)

    def _settled(self, entry: bytes, effective: bool) -> list[bytes]:
        """Return the operations that take effect with an entry."""
        o = _part(entry, b"o")
        is_command = bson.text(bson.find(entry, b"op")) == "c"
        command = bson.elements(o)[0].name if is_command else b""
        if command not in (b"applyOps", b"commitTransaction", b"abortTransaction"):
            return [entry]
        previous = bson.find(entry, b"prevOpTime")
        held: list[bytes] = []
        if previous is not None and bson.find(entry, b"multiOpType") is None:
            known = previous == NO_OPTIME or previous.raw in self._held
            assert known or not effective, "a transaction whose begin was not seen"
            held = self._held.pop(previous.raw, [])
        if command != b"applyOps":
            return held if command == b"commitTransaction" else []
        held += [element.raw for element in bson.elements(_part(o, b"applyOps"))]
        if bson.find(o, b"partialTxn") or bson.find(o, b"prepare"):
            optime = {"ts": bson.find(entry, b"ts"), "t": bson.find(entry, b"t")}
            self._held[bson.document(optime)] = held
            return []
        return held

    def _one(self, operation: bytes) -> None:
        op, ns = bson.text(bson.find(operation, b"op")), bson.text(bson.find(operation, b"ns"))
        if op in _IGNORED:
            return
        o = _part(operation, b"o")
        ui = bson.find(operation, b"ui")
        db, _, name = ns.partition(".")
        if op == "c":
            name = bson.elements(o)[0].name.decode()
            if name in _BOOKS:
                return
            assert name in self._commands, f"{name} is no command that can be applied"
            self._commands[name](Command(db, o, b"" if ui is None else ui.raw[5:]))
            return
        uuid = self._routed(db, name, ui)
        if uuid not in self.state.metas:
            assert self.tolerant, f"a write to {ns}, which is not there"
        elif op == "u":
            self._update(uuid, o, bson.find(_part(operation, b"o2"), b"_id"))
        else:
            assert op in "id", f"{op} is no operation"
            (self._insert if op == "i" else self._delete)(uuid, o)

    def _routed(self, db: str, name: str, ui: Value | None) -> bytes:
        if ui is not None:
            return ui.raw[5:]
        meta = self.state.find(db, name)
        return b"" if meta is None else meta.uuid

    def _insert(self, uuid: bytes, document: bytes) -> None:
        held, key = self.state.documents[uuid], identity(id_of(document))
        assert self.tolerant or key not in held, "an insert of what is there"
        if self.state.metas[uuid].capped:
            held.pop(key, None)
        held[key] = document

    def _delete(self, uuid: bytes, o: bytes) -> None:
        gone = self.state.documents[uuid].pop(identity(id_of(o)), None)
        assert self.tolerant or gone is not None, "a delete of what is not there"

    def _update(self, uuid: bytes, o: bytes, chosen: Value | None) -> None:
        assert chosen is not None, "an update without _id"
        held, key = self.state.documents[uuid], identity(chosen)
        before = held.get(key)
        assert self.tolerant or before is not None, "an update of what is not there"
        if before is not None:
            held[key] = patched(before, o)
        elif bson.find(o, b"_id") is not None:
            held[key] = o

    def _meta(self, uuid: bytes) -> Meta | None:
        meta = self.state.metas.get(uuid)
        assert self.tolerant or meta is not None, "data definition of what is not there"
        return meta

    def _nothing(self, command: Command) -> None:
        self._meta(command.uuid)

    def _create(self, command: Command) -> None:
        if command.uuid in self.state.metas:
            assert self.tolerant, "a collection is created twice"
            return
        fields = bson.elements(command.o)
        options = bson.build(field for field in fields if field.name in OPTION_ORDER)
        chosen = bson.find(command.o, b"idIndex")
        spec = id_index(None, bson.find(command.o, b"clusteredIndex")) if chosen is None else chosen.raw
        name = bson.text(fields[0].value)
        self.state.metas[command.uuid] = Meta(command.db, name, command.uuid, options, (spec,))
        self.state.documents[command.uuid] = {}

    def _drop(self, command: Command) -> None:
        if self._meta(command.uuid) is not None:
            del self.state.metas[command.uuid]
            del self.state.documents[command.uuid]

    def _drop_database(self, command: Command) -> None:
        for meta in list(self.state.metas.values()):
            if meta.db == command.db and not self.tolerant:
                self._drop(command._replace(uuid=meta.uuid))

    def _rename(self, command: Command) -> None:
        target = bson.find(command.o, b"dropTarget")
        if target is not None and target.type == bson.BINARY:
            self._drop(command._replace(uuid=target.raw[5:]))
        meta = self._meta(command.uuid)
        if meta is not None:
            to_db, _, to_name = bson.text(bson.find(command.o, b"to")).partition(".")
            options = meta.options
            if bson.find(command.o, b"stayTemp") != bson.boolean(True):
                options = with_options(options, {b"temp": None})
            self.state.metas[command.uuid] = meta._replace(db=to_db, name=to_name, options=options)

    def _coll_mod(self, command: Command) -> None:
        meta = self._meta(command.uuid)
        if meta is None:
            return
        for field in bson.elements(command.o)[1:]:
            if field.name == b"index":
                meta = self._index_mod(meta, field.raw)
            else:
                value = None if field.value in _OFF else field.value
                meta = meta._replace(options=with_options(meta.options, {field.name: value}))
        self.state.metas[command.uuid] = meta

    def _index_mod(self, meta: Meta, change: bytes) -> Meta:
        named = index_name(change)
        indexes = []
        for spec in meta.indexes:
            if index_name(spec) == named:
                for field in bson.elements(change)[1:]:
                    parts = without(spec, field.name)
                    if field.name == b"unique":
                        parts = without(bson.build(parts), b"prepareUnique")
                    if field.name not in _HIDING or field.value == bson.boolean(True):
                        parts.append(field)
                    spec = bson.build(parts)
            indexes.append(spec)
        return meta._replace(indexes=tuple(indexes))

    def _add_index(self, uuid: bytes, spec: bytes) -> None:
        meta = self._meta(uuid)
        if meta is None:
            return
        kept = tuple(old for old in meta.indexes if index_name(old) != index_name(spec))
        assert self.tolerant or len(kept) == len(meta.indexes), "an index is created twice"
        self.state.metas[uuid] = meta._replace(indexes=(*kept, spec))

    def _create_indexes(self, command: Command) -> None:
        self._add_index(command.uuid, bson.build(bson.elements(command.o)[1:]))

    def _commit_build(self, command: Command) -> None:
        for element in bson.elements(_part(command.o, b"indexes")):
            self._add_index(command.uuid, element.raw)

    def _drop_indexes(self, command: Command) -> None:
        meta = self._meta(command.uuid)
        if meta is not None:
            named = bson.text(bson.find(command.o, b"index"))
            kept = tuple(spec for spec in meta.indexes if index_name(spec) != named)
            assert self.tolerant or len(kept) < len(meta.indexes), "an index is dropped that is not there"
            self.state.metas[command.uuid] = meta._replace(indexes=kept)

    def _empty(self, command: Command) -> None:
        if self._meta(command.uuid) is not None:
            self.state.documents[command.uuid].clear()

    def _convert(self, command: Command) -> None:
        meta = self._meta(command.uuid)
        if meta is not None:
            capped = {b"capped": bson.boolean(True), b"size": bson.find(command.o, b"size")}
            options = with_options(meta.options, capped)
            self.state.metas[command.uuid] = meta._replace(options=options, indexes=meta.indexes[:1])


def _part(document: bytes, name: bytes) -> bytes:
    found: Element | Value | None = bson.find(document, name)
    assert found is not None, f"an entry without {name.decode()}"
    return found.raw
