"""Data definition, as a primary logs it: collections and views that come, go and change."""

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.identity import id_of, identity
from dedupstore.testing.oplog.indexes import IndexDefinitions, id_index
from dedupstore.testing.oplog.model import VIEWS, Defined, Meta, Written
from dedupstore.testing.oplog.primary import Operation, Primary, Traits, defined, written
from dedupstore.testing.oplog.updates import difference, difference_entry

NAMES = ["orders", "users", "Logs", "ev.ents", "a b", "größe", "x", "system.js", "tmp$1", "c" * 90]
OPTION_ORDER = (
    *(b"capped size max temp changeStreamPreAndPostImages storageEngine validator".split()),
    *(b"validationLevel validationAction collation viewOn pipeline clusteredIndex".split()),
    *(b"expireAfterSeconds timeseries".split()),
)
"""The order in which a server tells the options of a collection."""
_COLLATION = bson.embedded(
    {
        "locale": bson.string("de"),
        "caseLevel": bson.boolean(False),
        "caseFirst": bson.string("off"),
        "strength": bson.int32(3),
        "numericOrdering": bson.boolean(False),
        "alternate": bson.string("non-ignorable"),
        "maxVariable": bson.string("punct"),
        "normalization": bson.boolean(False),
        "backwards": bson.boolean(False),
        "version": bson.string("57.1"),
    }
)
_STYLES = [("objectid", 30), ("number", 20), ("string", 12), ("uuid", 13), ("mixed", 25)]


def with_options(options: bytes, added: dict[bytes, Value | None]) -> bytes:
    """Return options with these set, or with ``None`` taken out, in the order of a server."""
    fields = {element.name: element for element in bson.elements(options)}
    for name, value in added.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = Element(name, *value)
    names = sorted(fields, key=OPTION_ORDER.index)
    return bson.build(fields[name] for name in names)


class Definitions(IndexDefinitions):
    """Makes the data definition of a `Primary`. One thread."""

    def __init__(self, primary: Primary, databases: tuple[str, ...], capped: float) -> None:
        """Make it for ``primary``, within these databases; this share of the collections is ``capped``."""
        super().__init__(primary)
        self._databases = databases
        self._capped = capped

    def _free_name(self) -> tuple[str, str] | None:
        for _ in range(6):
            db, name = self._chance.pick(self._databases), self._chance.pick(NAMES)
            if not self._taken(db, name):
                return db, name
        return None

    def _taken(self, db: str, name: str) -> bool:
        state = self._primary.state
        views = state.find(db, VIEWS)
        named = identity(bson.string(f"{db}.{name}"))
        return state.find(db, name) is not None or (
            views is not None and named in state.documents[views.uuid]
        )

    def _options(self) -> tuple[bytes, Traits]:
        chance = self._chance
        traits = Traits(chance.weighted(_STYLES))
        options: dict[bytes, Value | None] = {}
        if chance.flip(self._capped):
            traits.limit = chance.between(3, 40)
            options = {b"capped": bson.boolean(True), b"size": bson.int64(1 << 24)}
            options[b"max"] = bson.int64(traits.limit)
            traits.style = chance.pick(["objectid", "few"])
        elif chance.flip(0.15):
            traits.shard_key = b"region"
        elif chance.flip(0.06) and self._primary.version >= (5, 3):
            key = bson.embedded({"_id": bson.int32(1)})
            clustered = {"v": bson.int32(2), "key": key, "name": bson.string("_id_")}
            options[b"clusteredIndex"] = bson.embedded(clustered | {"unique": bson.boolean(True)})
        if chance.flip(0.15):
            options |= self._validation()
        if chance.flip(0.08):
            options[b"collation"] = _COLLATION
        return with_options(bson.EMPTY, options), traits

    def _validation(self) -> dict[bytes, Value | None]:
        chance = self._chance
        rule = bson.embedded({"n": bson.embedded({"$gte": bson.int32(-chance.below(99))})})
        found: dict[bytes, Value | None] = {b"validator": bson.embedded({"$nor": bson.array([rule])})}
        if chance.flip(0.5):
            found[b"validationLevel"] = bson.string(chance.pick(["off", "strict", "moderate"]))
        if chance.flip(0.5):
            found[b"validationAction"] = bson.string(chance.pick(["error", "warn"]))
        return found

    def creation(self, place: tuple[str, str], options: bytes, traits: Traits) -> tuple[Operation, Meta]:
        """Make the creation of a collection, and what it creates."""
        db, name = place
        uuid = self._primary.new_uuid()
        self._primary.traits[uuid] = traits
        clustered = bson.find(options, b"clusteredIndex")
        id_spec = id_index(bson.find(options, b"collation"), clustered)
        parts = [Element(b"create", *bson.string(name)), *bson.elements(options)]
        if clustered is None:
            parts.append(Element(b"idIndex", bson.DOCUMENT, id_spec))
        meta = Meta(db, name, uuid, options, (id_spec,))
        return Operation("c", f"{db}.$cmd", uuid, bson.build(parts), None, defined(meta)), meta

    def fresh_creation(self) -> tuple[Operation, Meta] | None:
        """Make the creation of an ordinary collection, to be logged with other operations."""
        place = self._free_name()
        if place is None:
            return None
        return self.creation(place, bson.EMPTY, Traits(self._chance.weighted(_STYLES)))

    def create(self) -> Meta | None:
        """Create a collection with options of chance."""
        place = self._free_name()
        if place is None:
            return None
        operation, meta = self.creation(place, *self._options())
        self._primary.log(operation)
        return meta

    def some(self, *, capped: bool | None = None, whole: bool = True) -> Meta | None:
        """Return a collection that DDL may touch; with ``whole`` one without index builds."""
        primary = self._primary
        found = [
            meta
            for meta in primary.ordinary(capped=capped)
            if primary.idle(meta.uuid) and not (whole and primary.building(meta.uuid))
        ]
        return self._chance.pick(found) if found else None

    def drop(self) -> None:
        """Drop a collection; builds on it end first."""
        meta = self.some(whole=False)
        if meta is not None:
            self.drop_this(meta)

    def drop_this(self, meta: Meta) -> None:
        """Drop this collection."""
        for build in self._primary.building(meta.uuid):
            self.abort_build(build)
        self._primary.command(
            meta.db,
            bson.document({"drop": bson.string(meta.name)}),
            meta.uuid,
            (Defined(meta.uuid, None),),
            self._records(meta),
        )

    def _records(self, meta: Meta) -> bytes:
        count = len(self._primary.state.documents[meta.uuid])
        return bson.document({"numRecords": bson.int64(count)})

    def drop_database(self) -> None:
        """Drop all collections of a database, one by one, then the database."""
        db = self._chance.pick(self._databases)
        metas = [meta for meta in self._primary.state.metas.values() if meta.db == db]
        if metas and all(self._primary.idle(meta.uuid) for meta in metas):
            for meta in self._chance.shuffled(metas):
                self.drop_this(meta)
            self._primary.command(db, bson.document({"dropDatabase": bson.int32(1)}), None)

    def rename(self) -> None:
        """Rename a collection within its database, perhaps over another one."""
        meta, place = self.some(), self._free_name()
        if meta is None or place is None:
            return
        target = self._primary.state.find(meta.db, place[1])
        over = self.some(whole=False) if self._chance.flip(0.35) else None
        if over is not None and over.db == meta.db and over.uuid != meta.uuid:
            target, name = over, over.name
        elif target is None and not self._taken(meta.db, place[1]):
            name = place[1]
        else:
            return
        self.rename_this(meta, meta.db, name, target)

    def rename_this(self, meta: Meta, db: str, name: str, target: Meta | None) -> None:
        """Rename this collection, over ``target`` if there is one."""
        for build in () if target is None else self._primary.building(target.uuid):
            self.abort_build(build)
        fields: dict[str, Value | None] = {
            "renameCollection": bson.string(f"{meta.db}.{meta.name}"),
            "to": bson.string(f"{db}.{name}"),
            "stayTemp": bson.boolean(False),
            "dropTarget": None if target is None else bson.uuid(target.uuid),
        }
        options = with_options(meta.options, {b"temp": None})
        changes = [Defined(meta.uuid, meta._replace(db=db, name=name, options=options))]
        o2 = None
        if target is not None:
            changes.insert(0, Defined(target.uuid, None))
            o2 = self._records(target)
        self._primary.command(meta.db, bson.document(fields), meta.uuid, changes, o2)

    def _copy(self, meta: Meta, db: str, purpose: str, options: bytes, *, indexes: bool) -> Meta:
        """Copy a collection into a temporary one, as servers do for what they can not do in place."""
        primary = self._primary
        traits = primary.traits[meta.uuid]
        place = db, f"tmp{self._chance.bytes(3).hex()[:5]}.{purpose}"
        temporary = with_options(options, {b"temp": bson.boolean(True)})
        operation, made = self.creation(
            place, temporary, Traits(traits.style, traits.shard_key, traits.limit)
        )
        primary.log(operation)
        if indexes:
            for spec in meta.indexes:
                made = self.create_this(made, spec)
        for key, document in list(primary.state.documents[meta.uuid].items()):
            o2 = None
            if primary.version >= (5, 0):
                o2 = bson.document({"_id": id_of(document)})
            ns = f"{made.db}.{made.name}"
            primary.log(Operation("i", ns, made.uuid, document, o2, written(made.uuid, key, document)))
        return made

    def _small(self) -> Meta | None:
        meta = self.some()
        if meta is None or len(self._primary.state.documents[meta.uuid]) > 60:
            return None
        return meta

    def rename_across(self) -> None:
        """Rename a collection into another database: a copy, a rename, a drop."""
        meta, place = self._small(), self._free_name()
        if meta is None or place is None or place[0] == meta.db:
            return
        made = self._copy(meta, place[0], "renameCollection", meta.options, indexes=True)
        self.rename_this(made, *place, None)
        self.drop_this(meta)

    def convert_to_capped(self) -> None:
        """Make a collection capped: a copy without its indexes takes its place."""
        meta = self._small()
        if (
            meta is None
            or self._primary.traits[meta.uuid].limit
            or bson.find(meta.options, b"clusteredIndex")
        ):
            return
        capped = {b"capped": bson.boolean(True), b"size": bson.int64(1 << 24)}
        made = self._copy(
            meta, meta.db, "convertToCapped", with_options(meta.options, {**capped}), indexes=False
        )
        self._primary.traits[made.uuid].limit = 100
        self.rename_this(made, meta.db, meta.name, meta)

    def empty_capped(self) -> None:
        """Throw away what is in a capped collection."""
        meta = self.some(capped=True)
        if meta is not None:
            gone = [Written(meta.uuid, key, None) for key in self._primary.state.documents[meta.uuid]]
            o = bson.document({"emptycapped": bson.string(meta.name)})
            self._primary.command(meta.db, o, meta.uuid, gone)

    def modify(self) -> None:
        """Change the options of a collection with collMod."""
        meta = self.some()
        if meta is None:
            return
        added = self._validation()
        way = self._chance.below(4)
        if way == 0:
            added = {b"validator": Value(bson.DOCUMENT, bson.EMPTY)}
        elif way == 1 and self._primary.version >= (6, 0):
            enabled = bson.embedded({"enabled": bson.boolean(self._chance.flip(0.7))})
            added = {b"changeStreamPreAndPostImages": enabled}
        parts = [Element(name, *value) for name, value in added.items() if value is not None]
        o = bson.build([Element(b"collMod", *bson.string(meta.name)), *parts])
        kept = {
            name: None if value is None or self._tells_nothing(value) else value
            for name, value in added.items()
        }
        after = meta._replace(options=with_options(meta.options, kept))
        old = Value(bson.DOCUMENT, _with_uuid(meta))
        o2 = bson.document({"collectionOptions_old": old})
        self._primary.command(meta.db, o, meta.uuid, defined(after), o2)

    def _tells_nothing(self, value: Value) -> bool:
        off = bson.embedded({"enabled": bson.boolean(False)})
        return value in (off, Value(bson.DOCUMENT, bson.EMPTY))

    def create_view(self) -> None:
        """Create a view: a document of the database's collection of views."""
        place = self._free_name()
        if place is None:
            return
        primary, (db, name) = self._primary, place
        views = primary.state.find(db, VIEWS)
        if views is None:
            operation, views = self.creation((db, VIEWS), bson.EMPTY, Traits("string"))
            primary.log(operation)
        if not primary.idle(views.uuid):
            return
        document = bson.document(
            {
                "_id": bson.string(f"{db}.{name}"),
                "viewOn": bson.string(self._chance.pick(NAMES)),
                "pipeline": self._pipeline(),
                "collation": _COLLATION if self._chance.flip(0.2) else None,
            }
        )
        key = identity(id_of(document))
        o2 = bson.document({"_id": id_of(document)}) if primary.version >= (5, 0) else None
        primary.log(
            Operation("i", f"{db}.{VIEWS}", views.uuid, document, o2, written(views.uuid, key, document))
        )

    def _pipeline(self) -> Value:
        stage = bson.embedded({"$match": bson.embedded({"n": bson.int32(self._chance.below(100))})})
        return bson.array([stage] * self._chance.below(3))

    def change_view(self) -> None:
        """Change or drop a view."""
        primary = self._primary
        homes = [
            m for m in primary.state.metas.values() if m.name == VIEWS and primary.state.documents[m.uuid]
        ]
        if not homes:
            return
        views = self._chance.pick(homes)
        key, before = self._chance.pick(list(primary.state.documents[views.uuid].items()))
        ns, o2 = f"{views.db}.{VIEWS}", bson.document({"_id": id_of(before)})
        if self._chance.flip(0.4):
            primary.log(Operation("d", ns, views.uuid, o2, None, written(views.uuid, key, None)))
            return
        parts = [
            e if e.name != b"pipeline" else Element(e.name, *self._pipeline()) for e in bson.elements(before)
        ]
        after = bson.build(parts)
        diff = difference(before, after) if primary.version >= (5, 0) else None
        o = after if diff is None else difference_entry(diff)
        primary.log(Operation("u", ns, views.uuid, o, o2, written(views.uuid, key, after)))


def _with_uuid(meta: Meta) -> bytes:
    return bson.build([Element(b"uuid", *bson.uuid(meta.uuid)), *bson.elements(meta.options)])
