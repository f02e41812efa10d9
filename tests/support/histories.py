"""Histories against the real thing: a base and the oplog replayed, beside what the server held."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dedupstore.sources.bson.collection import COLLECTION, VIEW, CollectionInfo
from dedupstore.sources.oplog.catalog import Catalog, Covers
from dedupstore.sources.oplog.collapse import MEMORY, collapse
from dedupstore.sources.oplog.collapsed import Collapsed
from dedupstore.sources.oplog.position import Ts
from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.fuzzy import Base
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.identity import id_of, identity
from dedupstore.testing.oplog.indexes import index_name
from dedupstore.testing.oplog.model import VIEWS, Collection, Described, Moment, State, raw_id
from tests.support.oplogcases import Case

NESTED = (bson.DOCUMENT, bson.ARRAY)


def catalog_of(base: Base, covers: Covers | None = None) -> Catalog:
    """What a reader knows of collections at the end of its scan."""
    infos = [CollectionInfo(db, name, VIEW, options=options) for (db, name), options in base.views.items()]
    for meta, _ in base.collections:
        infos.append(CollectionInfo(meta.db, meta.name, COLLECTION, meta.uuid, meta.options, meta.indexes))
    return Catalog(infos, covers=covers)


def collapsed(
    history: History,
    base: Base,
    until: Moment,
    spill: Path,
    *,
    memory: int = MEMORY,
    catalog: Catalog | None = None,
) -> Collapsed:
    """The oplog from a base to a timestamp."""
    return collapse(
        iter(history.entries[base.replay :]),
        catalog or catalog_of(base),
        spill=spill,
        until=Ts(*until),
        after=Ts(*history.moments[base.start]),
        fuzzy_until=Ts(*history.moments[base.end]) if base.end > base.start else None,
        memory=memory,
    )


def restored(
    history: History,
    base: Base,
    until: Moment,
    spill: Path,
    *,
    memory: int = MEMORY,
    catalog: Catalog | None = None,
) -> Described:
    """The state at a timestamp as the base and the oplog give it."""
    with collapsed(history, base, until, spill, memory=memory, catalog=catalog) as outcome:
        return described(outcome, base)


def restored_case(case: Case, spill: Path) -> Described:
    """What the entries of a case make of what was before."""
    last = bson.find(case.entries[-1], b"ts")
    assert last is not None
    until = Ts.of(last.raw)
    with collapse(
        case.entries, catalog_of(case.base), spill=spill, fuzzy_until=until if case.fuzzy else None
    ) as outcome:
        return described(outcome, case.base)


def described(outcome: Collapsed, base: Base) -> Described:
    """A base and what became of it, as a server with all of it would be described."""
    held = {meta.uuid: documents for meta, documents in base.collections}
    found: Described = {}
    for info in outcome.catalog.collections():
        documents: dict[bytes, bytes] = {}
        if info.kind != VIEW:
            key = outcome.catalog.find(info.db, info.name)
            assert key is not None
            before = held.get(info.uuid, [])
            documents = by_id(outcome.documents(key, partial(iter, before)), info)
        found[info.db, info.name] = Collection(info.kind, info.uuid, info.options, info.indexes, documents)
    return found


def by_id(documents: Iterator[bytes], info: CollectionInfo) -> dict[bytes, bytes]:
    """Documents by their raw ``_id``; they must come in order."""
    found = {}
    last = None
    for document in documents:
        key = identity(id_of(document))
        if bson.find(info.options, b"capped") is None:
            assert last is None or last < key, f"{info.namespace} is not in order of _id"
        last = key
        assert raw_id(document) not in found, f"{info.namespace} has a document twice"
        found[raw_id(document)] = document
    return found


def expected(state: State) -> Described:
    """What the server held; collections of views show as the views."""
    return {place: found for place, found in state.described().items() if place[1] != VIEWS}


def normal(document: bytes, kind: int = bson.DOCUMENT) -> object:
    """A document without the order of its fields."""
    fields = [
        (field.name, field.type, normal(field.raw, field.type) if field.type in NESTED else field.raw)
        for field in bson.elements(document)
    ]
    return fields if kind == bson.ARRAY else sorted(fields, key=repr)


def difference(found: Described, wanted: Described, *, field_order: bool = True) -> str:
    """The first thing in which two servers differ, in words; ``""``: none."""
    if found.keys() != wanted.keys():
        extra, lost = found.keys() - wanted.keys(), wanted.keys() - found.keys()
        return f"has the collections {sorted(extra)} too many, {sorted(lost)} are missing"
    for place, right in wanted.items():
        left = found[place]
        if (left.kind, left.uuid) != (right.kind, right.uuid):
            return f"{place} is {left.kind} {left.uuid.hex()}, not {right.kind} {right.uuid.hex()}"
        if sorted(bson.elements(left.options)) != sorted(bson.elements(right.options)):
            return (
                f"{place} has the options {bson.elements(left.options)}, not {bson.elements(right.options)}"
            )
        if _indexes(left) != _indexes(right):
            return f"{place} has the indexes {_indexes(left)}, not {_indexes(right)}"
        words = _documents(left, right, field_order)
        if words:
            return f"{place} {words}"
    return ""


def _indexes(collection: Collection) -> list[tuple[str, list[bson.Element]]]:
    return sorted((index_name(spec), sorted(bson.elements(spec))) for spec in collection.indexes)


def _documents(left: Collection, right: Collection, field_order: bool) -> str:
    if left.documents.keys() != right.documents.keys():
        extra, lost = (
            left.documents.keys() - right.documents.keys(),
            right.documents.keys() - left.documents.keys(),
        )
        return f"has {sorted(extra)[:3]} too many, {sorted(lost)[:3]} missing"
    for key, document in right.documents.items():
        same = left.documents[key] == document
        if not same and not field_order:
            same = normal(left.documents[key]) == normal(document)
        if not same:
            return f"document {key!r} is {left.documents[key][:2000]!r}, not {document[:2000]!r}"
    if bson.find(right.options, b"capped") is not None and list(left.documents) != list(right.documents):
        return f"has its documents in the order {list(left.documents)}, not {list(right.documents)}"
    return ""
