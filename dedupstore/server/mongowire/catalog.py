"""Commands about what there is: databases, collections, indexes, sizes."""

from collections.abc import Iterator, Sequence
from typing import Final

from dedupstore.documents.view import CollectionView
from dedupstore.query.failures import Failure, QueryError, bad_value
from dedupstore.query.filters import parse_filter
from dedupstore.query.targets import stored
from dedupstore.query.values import field_of
from dedupstore.server.mongowire.batches import listed
from dedupstore.server.mongowire.replies import Parts, Plain, binary, joined, parts, value
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Session
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import COLLECTION, TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.bson.prelude import BUCKETS

_ID_KEY: Final = raw.document([(b"_id", raw.INT32, raw.int32(1))])
_UUID: Final = 4
"""Subtype of binary data that is a UUID."""


def list_databases(session: Session, request: Request) -> Parts:
    """Answer ``listDatabases``."""
    request.check("filter nameOnly authorizedDatabases")
    if request.db != "admin":
        raise QueryError(Failure.Unauthorized, "listDatabases may only be run against the admin database.")
    wanted = parse_filter(request.document(b"filter")).test
    only_names = request.flag(b"nameOnly")
    sizes: dict[str, int] = {}
    for one in session.service.view.collections():
        sizes[one.info.db] = sizes.get(one.info.db, 0) + (0 if only_names else one.size or 0)
    rows = []
    total = 0
    for name, size in sizes.items():
        fields: dict[str, Plain] = {"name": name}
        if not only_names:
            fields |= {"sizeOnDisk": size, "empty": False}
        row = joined(parts(fields))
        if wanted(row):
            rows.append(row)
            total += size
    more: dict[str, Plain] = {} if only_names else {"totalSize": total, "totalSizeMb": total >> 20}
    return parts({"databases": rows, **more})


def list_collections(session: Session, request: Request) -> Parts:
    """Answer ``listCollections``."""
    request.check("filter nameOnly authorizedCollections cursor")
    wanted = parse_filter(request.document(b"filter")).test
    only_names = request.flag(b"nameOnly")
    described = (
        _described(info, only_names=only_names)
        for one in session.service.view.collections()
        if one.info.db == request.db
        for info in _shown_as(one.info)
    )
    return listed(filter(wanted, described), session, request, "$cmd.listCollections")


def _shown_as(info: CollectionInfo) -> Iterator[CollectionInfo]:
    """Yield what is listed for a collection: a time series, and the collection of its buckets beside it."""
    yield info
    if info.kind == TIMESERIES:
        yield CollectionInfo(info.db, BUCKETS + info.name, COLLECTION, info.uuid, info.options)


def _described(info: CollectionInfo, *, only_names: bool) -> bytes:
    name = field_of(b"name", value(info.name)) + field_of(b"type", value(info.kind))
    if only_names:
        return raw.framed(name)
    is_view = info.kind == VIEW
    facts = field_of(b"readOnly", value(is_view))
    if info.uuid and info.kind == COLLECTION:
        facts += binary("uuid", info.uuid, _UUID)
    whole = name + field_of(b"options", value(info.options)) + field_of(b"info", value(raw.framed(facts)))
    if info.kind == COLLECTION:
        index = next((one for one in info.indexes if _key(one) == _ID_KEY), None)
        if index is not None:
            whole += field_of(b"idIndex", value(index))
    return raw.framed(whole)


def _key(index: bytes) -> bytes:
    found = raw.field(index, b"key")
    return b"" if found is None else index[found.start : found.end]


def list_indexes(session: Session, request: Request) -> Parts:
    """Answer ``listIndexes``."""
    request.check("cursor includeBuildUUIDs includeIndexBuildInfo")
    name = request.collection
    one = _there(session, request, name)
    if one.info.kind == VIEW:
        raise QueryError(
            Failure.CommandNotSupportedOnView, f"Namespace {request.db}.{name} is a view, not a collection"
        )
    indexes = one.info.indexes if one.info.name == name else ()
    return listed(iter(indexes), session, request, name)


def _there(session: Session, request: Request, name: str) -> CollectionView:
    found = stored(session.service.view, request.db, name)
    if found is None:
        raise QueryError(Failure.NamespaceNotFound, f"ns does not exist: {request.db}.{name}")
    return found


def collection_stats(session: Session, request: Request, wanted: Sequence[bytes]) -> bytes:
    """Return what ``$collStats`` says."""
    name = request.collection
    one = _there(session, request, name)
    service = session.service
    fields: dict[str, Plain] = {
        "ns": f"{request.db}.{name}",
        "host": service.host,
        "localTime": service.clock.now(),
    }
    for what in wanted:
        if what == b"count":
            fields["count"] = _counted(one)
        else:
            fields["storageStats"] = _sizes(one)
    return joined(parts(fields))


def _counted(one: CollectionView) -> int:
    return sum(1 for _ in one.documents()) if one.count is None else one.count


def _sizes(one: CollectionView) -> dict[str, Plain]:
    """Return numbers of documents and bytes, where they are known without reading all."""
    count, size = one.count or 0, one.size or 0
    names = [_index_name(index) for index in one.info.indexes]
    return {
        "size": size,
        "count": count,
        **({"avgObjSize": size // count} if count else {}),
        "storageSize": size,
        "capped": one.natural and raw.field(one.info.options, b"capped") is not None,
        "nindexes": len(names),
        "totalIndexSize": 0,
        "totalSize": size,
        "indexSizes": dict.fromkeys(names, 0),
        "scaleFactor": 1,
    }


def _index_name(index: bytes) -> str:
    found = raw.field(index, b"name")
    if found is None or found.type != raw.STRING:
        return ""
    return raw.text_of(index[found.start : found.end]).decode("utf-8", "replace")


def coll_stats(session: Session, request: Request) -> Parts:
    """Answer ``collStats``."""
    request.check("scale")
    if request.number(b"scale", 1) < 1:
        raise bad_value("scale must be at least 1")
    one = stored(session.service.view, request.db, request.collection)
    fields: dict[str, Plain] = {"ns": f"{request.db}.{request.collection}"}
    if one is None:
        return parts({**fields, "size": 0, "count": 0, "storageSize": 0, "nindexes": 0, "totalIndexSize": 0})
    return parts({**fields, **_sizes(one)})


def db_stats(session: Session, request: Request) -> Parts:
    """Answer ``dbStats``."""
    request.check("scale freeStorage")
    inside = [one for one in session.service.view.collections() if one.info.db == request.db]
    data = [one for one in inside if one.info.kind != VIEW]
    count, size = sum(one.count or 0 for one in data), sum(one.size or 0 for one in data)
    return parts(
        {
            "db": request.db,
            "collections": len(data),
            "views": len(inside) - len(data),
            "objects": count,
            "avgObjSize": size / count if count else 0,
            "dataSize": float(size),
            "storageSize": float(size),
            "indexes": sum(len(one.info.indexes) for one in data),
            "indexSize": 0.0,
            "totalSize": float(size),
            "scaleFactor": 1.0,
            "fsUsedSize": 0.0,
            "fsTotalSize": 0.0,
        }
    )
