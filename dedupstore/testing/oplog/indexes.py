"""Indexes, as a primary logs them: made at once or built in two phases, changed, dropped."""

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.model import Meta
from dedupstore.testing.oplog.primary import Operation, Primary, defined

_FIELDS = ["a", "b", "name", "address.city", "tags", "total", "x"]


def id_index(collation: Value | None, clustered: Value | None = None) -> bytes:
    """Return the specification of the index on ``_id``: of a ``clustered`` collection its very order."""
    if clustered is not None:
        return bson.build([*bson.elements(clustered.raw), Element(b"clustered", *bson.boolean(True))])
    fields: dict[str, Value | None] = {
        "v": bson.int32(2),
        "key": bson.embedded({"_id": bson.int32(1)}),
        "name": bson.string("_id_"),
        "collation": collation,
    }
    return bson.document(fields)


def index_name(spec: bytes) -> str:
    """Return the name of an index."""
    return bson.text(bson.find(spec, b"name"))


def without(fields: bytes, name: bytes) -> list[Element]:
    """Return the fields of a document but for one."""
    return [element for element in bson.elements(fields) if element.name != name]


class IndexDefinitions:
    """Makes what concerns indexes for a `Primary`. One thread."""

    def __init__(self, primary: Primary) -> None:
        """Make it for ``primary``."""
        self._primary = primary
        self._chance = primary.chance

    def _spec(self, meta: Meta) -> bytes | None:
        chance = self._chance
        keys: dict[str, Value | None] = {}
        for field in chance.shuffled(_FIELDS)[: chance.pick([1, 1, 2, 3])]:
            kinds = [bson.int32(1), bson.int32(-1), bson.double(1.0), bson.string("2dsphere")]
            keys[field] = chance.pick(kinds)
        if chance.flip(0.1):
            keys = {"$**": bson.int32(1)}
        name = "_".join(f"{field}_{value.raw[0]}" for field, value in keys.items() if value)
        extras: dict[str, Value | None] = {"v": bson.int32(2), "key": bson.embedded(keys)}
        extras["name"] = bson.string(name)
        if len(keys) == 1 and chance.flip(0.3):
            extras["expireAfterSeconds"] = chance.pick([bson.int32(3600), bson.double(7.5), bson.int64(1)])
        if chance.flip(0.2):
            extras["unique"] = bson.boolean(True)
        if chance.flip(0.1):
            extras["sparse"] = bson.boolean(True)
        if chance.flip(0.1):
            rule = bson.embedded({"total": bson.embedded({"$gt": bson.double(0.5)})})
            extras["partialFilterExpression"] = rule
        names = {index_name(spec) for spec in meta.indexes}
        for build in self._primary.building(meta.uuid):
            names |= {index_name(spec) for spec in self._primary.builds[build][1]}
        return None if name in names else bson.document(extras)

    def some(self, *, capped: bool | None = None, whole: bool = True) -> Meta | None:
        """Return a collection that DDL may touch; with ``whole`` one without index builds."""
        raise NotImplementedError

    def _now(self, uuid: bytes) -> Meta:
        return self._primary.state.metas[uuid]

    def creation_of(self, meta: Meta, spec: bytes) -> Operation:
        """Make the creation of an index at once."""
        parts = [Element(b"createIndexes", *bson.string(meta.name)), *bson.elements(spec)]
        after = meta._replace(indexes=(*meta.indexes, spec))
        return Operation("c", f"{meta.db}.$cmd", meta.uuid, bson.build(parts), None, defined(after))

    def fresh_index(self, meta: Meta) -> Operation | None:
        """Make the creation of an index of chance, to be logged with other operations."""
        spec = self._spec(meta)
        return None if spec is None else self.creation_of(meta, spec)

    def create_this(self, meta: Meta, spec: bytes) -> Meta:
        """Create this index at once, if there is none of its name."""
        if index_name(spec) not in {index_name(old) for old in meta.indexes}:
            self._primary.log(self.creation_of(meta, spec))
        return self._now(meta.uuid)

    def create_index(self) -> None:
        """Create an index at once."""
        meta = self.some(whole=False)
        spec = None if meta is None else self._spec(meta)
        if meta is not None and spec is not None:
            if self._chance.flip(0.3):
                message = bson.string(f"Creating indexes. Coll: {meta.db}.{meta.name}")
                self._primary.noop(bson.document({"msg": message}))
            self.create_this(meta, spec)

    def start_build(self) -> None:
        """Begin to build one or two indexes; writes go on meanwhile."""
        meta = self.some()
        specs = [] if meta is None else [self._spec(meta), self._spec(meta)]
        chosen = tuple(spec for spec in specs if spec is not None)
        if meta is None or not chosen:
            return
        if len(chosen) == 2 and (index_name(chosen[0]) == index_name(chosen[1]) or self._chance.flip(0.6)):
            chosen = chosen[:1]
        build = self._primary.new_uuid()
        self._primary.builds[build] = meta.uuid, chosen
        self._log_build("startIndexBuild", build, meta)

    def _log_build(self, command: str, build: bytes, after: Meta, cause: Value | None = None) -> None:
        specs = [Value(bson.DOCUMENT, spec) for spec in self._primary.builds[build][1]]
        fields: dict[str, Value | None] = {
            command: bson.string(after.name),
            "indexBuildUUID": bson.uuid(build),
            "indexes": bson.array(specs),
            "cause": cause,
        }
        changed = after != self._now(after.uuid)
        changes = defined(after) if changed else ()
        self._primary.command(after.db, bson.document(fields), after.uuid, changes)

    def finish_build(self) -> None:
        """Commit or abort a build under way."""
        ready = [b for b, (uuid, _) in self._primary.builds.items() if self._primary.idle(uuid)]
        if not ready:
            return
        build = self._chance.pick(ready)
        if self._chance.flip(0.25):
            self.abort_build(build)
            return
        uuid, specs = self._primary.builds[build]
        meta = self._now(uuid)
        fresh = tuple(spec for spec in specs if index_name(spec) not in {index_name(i) for i in meta.indexes})
        self._log_build("commitIndexBuild", build, meta._replace(indexes=meta.indexes + fresh))
        del self._primary.builds[build]

    def abort_build(self, build: bytes) -> None:
        """Abort this build."""
        cause = bson.embedded(
            {
                "ok": bson.boolean(False),
                "code": bson.int32(276),
                "codeName": bson.string("IndexBuildAborted"),
                "errmsg": bson.string("collection dropped"),
            }
        )
        self._log_build("abortIndexBuild", build, self._now(self._primary.builds[build][0]), cause)
        del self._primary.builds[build]

    def _own(self, meta: Meta) -> list[bytes]:
        return [spec for spec in meta.indexes if index_name(spec) != "_id_"]

    def drop_indexes(self) -> None:
        """Drop an index, or all: one entry each."""
        meta = self.some()
        if meta is None or not self._own(meta):
            return
        specs = self._own(meta)
        if self._chance.flip(0.8):
            specs = [self._chance.pick(specs)]
        for spec in specs:
            meta = self._now(meta.uuid)
            fields = {"dropIndexes": bson.string(meta.name), "index": bson.string(index_name(spec))}
            after = meta._replace(indexes=tuple(index for index in meta.indexes if index != spec))
            self._primary.command(
                meta.db, bson.document(fields), meta.uuid, defined(after), bson.build(without(spec, b"v"))
            )

    def modify_index(self) -> None:
        """Change when documents of an index expire, hide it or show it, or make it unique."""
        meta = self.some()
        if meta is None or not self._own(meta):
            return
        spec = self._chance.pick(self._own(meta))
        ttl = bson.find(spec, b"expireAfterSeconds")
        if ttl is not None:
            name, value = "expireAfterSeconds", bson.int64(self._chance.below(9000))
        else:
            name = self._chance.pick(["hidden", "hidden", "unique", "prepareUnique"])
            value = bson.boolean(name == "unique" or self._chance.flip(0.6))
        change: dict[str, Value | None] = {"name": bson.string(index_name(spec)), name: value}
        fields = {"collMod": bson.string(meta.name), "index": bson.embedded(change)}
        parts = without(spec, name.encode())
        if name == "unique":
            parts = without(bson.build(parts), b"prepareUnique")
        if value != bson.boolean(False):
            parts.append(Element(name.encode(), *value))
        after = meta._replace(
            indexes=tuple(bson.build(parts) if index == spec else index for index in meta.indexes)
        )
        old = {"uuid": bson.uuid(meta.uuid)}
        o2 = bson.document(
            {"collectionOptions_old": bson.embedded(old), "indexOptions_old": bson.embedded({name: ttl})}
        )
        self._primary.command(meta.db, bson.document(fields), meta.uuid, defined(after), o2)
