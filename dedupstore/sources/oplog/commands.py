"""Commands of the log, applied to a catalog: create, drop, rename, collMod, indexes.

Applying the same commands again to a catalog that has seen them changes nothing at the end: that is what a
base needs that was read while the log went on. A command that is not known, or whose effect on documents
is not (``importCollection``), is refused by name. Those that only keep the books of a server are listed and
have no effect.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import COLLECTION, TIMESERIES, CollectionInfo
from dedupstore.sources.oplog.catalog import Catalog, Key
from dedupstore.sources.oplog.definitions import (
    created,
    documents_in,
    field_of,
    modified,
    name_of,
    text_field,
    truth,
    with_indexes,
    with_option,
    without,
    without_indexes,
)
from dedupstore.sources.oplog.entry import Entry, command_of, located, refused
from dedupstore.sources.oplog.namespaces import BUCKETS, VIEWS, followed, split
from dedupstore.sources.oplog.timeseries import shown_index, shown_options

_UUID_AT: Final = 5
"""Bytes of a binary before its data."""


def apply_command(catalog: Catalog, entry: Entry, *, strict: bool) -> list[Key]:
    """Bring a command about; return the keys of collections whose documents are all gone.

    ``strict``: the catalog is not newer than the entry, so it must have what the command changes. Raises
    `SourceError` with timestamp and namespace for what can not be done. Transactions are not seen here.
    """
    name = command_of(entry)
    handler = _HANDLERS.get(name)
    if handler is None:
        known = name in _REFUSED
        raise refused(
            entry, f"is the command {name!r}, which {'no log tells enough of' if known else 'is not known'}"
        )
    try:
        return handler(catalog, entry, strict)
    except SourceError as error:
        raise located(entry, error) from error


def _target(entry: Entry) -> tuple[str, str]:
    """Return database and name that a command is for, as the log says it."""
    for _, kind, start, end in raw.elements(entry.o):
        if kind == raw.STRING:
            return entry.db, raw.text_of(entry.o[start:end]).decode("utf-8", "surrogateescape")
        break
    raise refused(entry, "is a command that names no collection")


def _existing(catalog: Catalog, entry: Entry, strict: bool) -> Key | None:
    """Return the key of the collection that a command changes; None if it is not one that counts."""
    db, name = _target(entry)
    if not followed(db, name) or name == VIEWS:
        return None
    key = catalog.known(entry.ui, db, name)
    if key is None:
        if strict and catalog.covers(db, name):
            raise refused(
                entry, f"changes the collection {db}.{name}, which is not there", "take a new snapshot"
            )
        key = catalog.add_unknown(entry.ui, db, name)
    return key


def _info(catalog: Catalog, key: Key) -> CollectionInfo:
    info = catalog.info(key)
    assert info is not None
    return info


def _create(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del strict
    db, name = _target(entry)
    if not followed(db, name) or name == VIEWS:
        return []
    options, indexes = created(entry.o)
    if field_of(options, b"viewOn") is not None:
        catalog.set_view(db, name, options)
        return []
    kind = COLLECTION
    if field_of(options, b"timeseries") is not None:
        kind = TIMESERIES
        name, options, indexes = name.removeprefix(BUCKETS), shown_options(options), ()
    key = catalog.known(entry.ui, db, name)
    info = CollectionInfo(db, name, kind, entry.ui, options, indexes)
    if key is None:
        catalog.add(info)
    else:
        catalog.change(key, info)
    return []


def _drop(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del strict
    db, name = _target(entry)
    if name == VIEWS:
        catalog.remove_view(db)
        return []
    key = catalog.known(entry.ui, db, name)
    if key is not None:
        catalog.remove(key)
        return [key]
    if not entry.ui or catalog.find(db, name) is None:
        catalog.remove_view(db, name)
    return []


def _drop_database(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del strict
    keys = catalog.keys_in(entry.db)
    for key in keys:
        catalog.remove(key)
    catalog.remove_view(entry.db)
    return keys


def _rename(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    old, new = text_field(entry.o, b"renameCollection"), text_field(entry.o, b"to")
    if old is None or new is None:
        raise refused(entry, "renames without saying what to what")
    (db, name), (new_db, new_name) = split(old), split(new)
    gone = _drop_target(catalog, entry, new_db, new_name)
    key = catalog.known(entry.ui, db, name) if followed(db, name) else None
    if key is None:
        if not followed(db, name) and not followed(new_db, new_name):
            return gone
        if strict and catalog.covers(new_db, new_name):
            raise refused(entry, f"renames {old}, which is not there, to {new}", "take a new snapshot")
        key = catalog.add_unknown(entry.ui, db, name)
    if not followed(new_db, new_name):
        catalog.remove(key)
        return [*gone, key]
    if catalog.is_foreign(key) and catalog.covers(new_db, new_name):
        raise refused(entry, f"renames {old} to {new}, but the base does not hold it", "take a new snapshot")
    info = _info(catalog, key)
    options = info.options if truth(field_of(entry.o, b"stayTemp")) else without(info.options, {b"temp"})
    if info.kind == TIMESERIES:
        new_name = new_name.removeprefix(BUCKETS)
    catalog.change(key, replace(info, db=new_db, name=new_name, options=options))
    return gone


def _drop_target(catalog: Catalog, entry: Entry, db: str, name: str) -> list[Key]:
    """Drop what a rename puts itself in the place of; return its key."""
    target = field_of(entry.o, b"dropTarget")
    key: Key | None = None
    if target is not None and target[0] == raw.BINARY:
        uuid = target[1][_UUID_AT:]
        key = catalog.known(uuid, db, name) if uuid != entry.ui else None
    elif truth(target):
        key = catalog.find(db, name)
    if key is None or key == catalog.known(entry.ui, *split(text_field(entry.o, b"renameCollection") or "")):
        return []
    catalog.remove(key)
    return [key]


def _collection_modified(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    db, name = _target(entry)
    view = None if entry.ui else catalog.view(db, name)
    if view is not None:
        catalog.set_view(db, name, modified(entry.o, view.options, ())[0])
        return []
    key = _existing(catalog, entry, strict)
    if key is not None:
        info = _info(catalog, key)
        options, indexes = modified(entry.o, info.options, info.indexes)
        catalog.change(key, replace(info, options=options, indexes=indexes))
    return []


def _specs(entry: Entry) -> list[bytes]:
    """Return the indexes that a command lists, or the one that it is."""
    listed = field_of(entry.o, b"indexes")
    if listed is not None and listed[0] == raw.ARRAY:
        return documents_in(listed[1])
    return [without(entry.o, {b"createIndexes"})]


def _indexes_built(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del strict  # some servers make the collection of its first index
    key = _existing(catalog, entry, strict=False)
    if key is not None:
        info = _info(catalog, key)
        specs = _specs(entry)
        if info.kind == TIMESERIES:
            shown = [shown_index(spec, info.options) for spec in specs]
            specs = [spec for spec in shown if spec is not None]
        catalog.change(key, replace(info, indexes=with_indexes(info.indexes, specs)))
    return []


def _build_begun(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del catalog, strict  # an index is there when it is built to the end; the entry that says so has all of it
    for spec in _specs(entry):
        name_of(spec)
    return []


def _build_ended(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    key = _existing(catalog, entry, strict)
    if key is not None:
        info = _info(catalog, key)
        names = {name_of(spec) for spec in _specs(entry)}
        kept = tuple(spec for spec in info.indexes if name_of(spec) not in names)
        catalog.change(key, replace(info, indexes=kept))
    return []


def _indexes_dropped(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    which = field_of(entry.o, b"index")
    if which is None:
        raise refused(entry, "drops indexes without saying which")
    key = _existing(catalog, entry, strict)
    if key is not None:
        info = _info(catalog, key)
        catalog.change(key, replace(info, indexes=without_indexes(info.indexes, which)))
    return []


def _made_capped(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    key = _existing(catalog, entry, strict)
    if key is not None:
        info = _info(catalog, key)
        options = with_option(info.options, b"capped", (raw.BOOL, b"\1"))
        size = field_of(entry.o, b"size")
        if size is not None:
            options = with_option(options, b"size", size)
        indexes = without_indexes(info.indexes, (raw.STRING, raw.string("*")))
        catalog.change(key, replace(info, options=options, indexes=indexes))
    return []


def _emptied(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    key = _existing(catalog, entry, strict)
    return [] if key is None else [key]


def _nothing(catalog: Catalog, entry: Entry, strict: bool) -> list[Key]:
    del catalog, entry, strict
    return []


_HANDLERS: dict[str, Callable[[Catalog, Entry, bool], list[Key]]] = {
    "create": _create,
    "drop": _drop,
    "dropDatabase": _drop_database,
    "renameCollection": _rename,
    "collMod": _collection_modified,
    "createIndexes": _indexes_built,
    "startIndexBuild": _build_begun,
    "commitIndexBuild": _indexes_built,
    "abortIndexBuild": _build_ended,
    "dropIndexes": _indexes_dropped,
    "deleteIndexes": _indexes_dropped,
    "convertToCapped": _made_capped,
    "emptycapped": _emptied,
    "dbCheck": _nothing,
    "modifyCollectionShardingIndexCatalog": _nothing,
    "createDatabaseMetadata": _nothing,
    "dropDatabaseMetadata": _nothing,
    "setMultikeyMetadata": _nothing,
    "dropIdent": _nothing,
}
_REFUSED = frozenset(("importCollection", "upgradeDowngradeViewlessTimeseries"))
"""Commands that are known, and bring in or move documents that the log does not have."""
