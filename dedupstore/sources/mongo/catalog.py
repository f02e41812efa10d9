"""What collections a server has, with everything about them but their documents.

Options and index specifications are kept as raw BSON, so order and types survive. Users and roles are the
documents of ``admin.system.users`` and ``admin.system.roles``, read like any collection where that is
allowed. What belongs to one server alone is left out (see `dedupstore.sources.oplog.namespaces`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dedupstore.errors import AccessError, DedupstoreError, SourceError, UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import COLLECTION, TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.mongo.client import ROUTER, Deployment, Node
from dedupstore.sources.mongo.cursor import Cursor
from dedupstore.sources.mongo.failures import NAMESPACE_NOT_FOUND, code_of
from dedupstore.sources.oplog.namespaces import BUCKETS, VIEWS, followed, split

ADMIN = "admin"
_VERSION = "system.version"
USERS = ("system.users", "system.roles", "system.version")
"""Collections of `ADMIN` that say who may do what; the last one says how that is written."""
_KEPT_SYSTEM = frozenset(("system.js",))
PLAIN_BUCKETS = (8, 3)
"""From this version on the buckets of a time series have its own name."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which collections are wanted: ``db`` or ``db.collection``; nothing given is everything."""

    names: tuple[str, ...] = ()
    users: bool = True
    """Whether users and roles are wanted; where names are given, only if ``admin`` is among them."""

    def __post_init__(self) -> None:
        for name in self.names:
            db, dot, collection = name.partition(".")
            if not db or (dot and not collection) or set(db) & set(' "$\0/\\'):
                raise UsageError(f"{name!r} names no collection: write DATABASE or DATABASE.COLLECTION")

    @property
    def databases(self) -> tuple[str, ...]:
        """The databases that are named, or none if all are wanted."""
        return tuple(sorted({split(name)[0] for name in self.names}))

    def takes(self, db: str, name: str) -> bool:
        """Whether a collection is wanted."""
        return not self.names or db in self.names or f"{db}.{name}" in self.names


@dataclass(frozen=True, slots=True)
class Listed:
    """One collection of a server."""

    info: CollectionInfo
    data: str
    """The name that its documents are read under; empty for a view."""
    capped: bool = False
    clustered: bool = False
    """Whether it is kept in order of ``_id`` without an index."""
    collation: bool = False
    """Whether it orders text by something else than its bytes, and so ``_id`` too."""
    id_index: bool = True
    """Whether there is an index on ``_id``."""
    raw: bool = False
    """Whether the server must be told that buckets are wanted and not the measurements in them."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was found, in the order of databases and names; and what may not be looked at."""

    collections: tuple[Listed, ...]
    refused: tuple[tuple[str, SourceError], ...] = field(default=())
    """Namespace or database, and why."""


def read_catalog(node: Node, selection: Selection) -> Catalog:
    """List everything that is wanted. One request a database, and one a collection for its indexes.

    Raises `SourceError` and `AccessError` as `Node.command` does, and `SourceError` if a name in the
    selection is nowhere.
    """
    found: list[Listed] = []
    refused: list[tuple[str, SourceError]] = []
    for db in _databases(node, selection):
        try:
            entries = list(_entries(node, db))
        except AccessError as error:
            if db in selection.databases:
                raise
            refused.append((db, SourceError(error.message)))
            continue
        found += [listed for listed in _listed(node, db, entries, selection) if listed is not None]
    if selection.users:
        found, more = _with_users(node, found, selection)
        refused += more
    found.sort(key=lambda listed: (listed.info.db.encode(), listed.info.name.encode()))
    _check_all_there(node, selection, found)
    return Catalog(tuple(found), tuple(refused))


def described(deployment: Deployment) -> dict[str, str]:
    """Return what snapshots of a server and slices of its log say of it: ``uri``, ``set`` and ``id``.

    A set's ``id`` is the UUID of a collection that each makes for itself when it is initiated, since many
    sets have one name. It is left out where there is none or the user may not see it.
    """
    node = deployment.node()
    found = {"uri": deployment.address.shown}
    if not node.facts.set_name:
        return found
    found["set"] = node.facts.set_name
    try:
        uuids = [_uuid(entry) for entry in _entries(node, ADMIN, {"name": _VERSION})]
    except AccessError:
        uuids = []
    if any(uuids):
        found["id"] = uuids[0].hex()
    return found


def name_of(node: Node, db: str, uuid: bytes) -> str | None:
    """Return the name that a collection has now, or None if it is gone."""
    for entry in _entries(node, db):
        if _uuid(entry) == uuid:
            return _text(entry, b"name")
    return None


def is_still(node: Node, db: str, name: str, uuid: bytes) -> bool:
    """Say whether ``name`` is still the collection that it was."""
    return any(_uuid(entry) == uuid for entry in _entries(node, db, {"name": name}))


def _databases(node: Node, selection: Selection) -> list[str]:
    if selection.names:
        return list(selection.databases)
    body = {"listDatabases": 1, "nameOnly": True}
    reply = node.command(ADMIN, body, "listing the databases")
    at = raw.field(reply, b"databases")
    names = set()
    if at is not None:
        for element in raw.elements(reply, at.start):
            names.add(_text(reply[element.start : element.end], b"name"))
    return sorted(db for db in names if (db and followed(db, "any")) or db == "config")


def _entries(node: Node, db: str, only: dict[str, str] | None = None) -> Iterator[bytes]:
    doing = f"listing the collections of {db}"
    body = {"listCollections": 1, "filter": only or {}}
    with node.session() as session, Cursor(node, db, body, doing, session=session) as cursor:
        yield from cursor.documents()


def _listed(node: Node, db: str, entries: Sequence[bytes], selection: Selection) -> Iterator[Listed | None]:
    uuids = {_text(entry, b"name"): _uuid(entry) for entry in entries}
    for entry in entries:
        name = _text(entry, b"name")
        if not _wanted(db, name) or not selection.takes(db, name):
            continue
        yield _one(node, db, entry, uuids)


def _wanted(db: str, name: str) -> bool:
    """Say whether a collection is stored by itself: not as a view's definition, or a time series' buckets."""
    if name.startswith((BUCKETS, VIEWS)) or (db == ADMIN and name in USERS):
        return False
    if db != "config" and name.startswith("system.") and name not in _KEPT_SYSTEM:
        return False
    return followed(db, name)


def _one(node: Node, db: str, entry: bytes, uuids: dict[str, bytes]) -> Listed | None:
    name = _text(entry, b"name")
    kind = _text(entry, b"type") or COLLECTION
    if kind not in {COLLECTION, VIEW, TIMESERIES}:
        raise SourceError(f"{db}.{name} is of the unknown type {kind!r}: a newer dstore is needed")
    found = raw.field(entry, b"options")
    options = raw.EMPTY if found is None else entry[found.start : found.end]
    if kind == VIEW:
        return Listed(CollectionInfo(db, name, VIEW, b"", options), "")
    data, uuid = name, _uuid(entry)
    if kind == TIMESERIES and BUCKETS + name in uuids:
        data = BUCKETS + name
        uuid = uuids[data]
    indexes = _indexes(node, db, name)
    if indexes is None:
        return None
    return Listed(
        CollectionInfo(db, name, kind, uuid, options, indexes),
        data,
        capped=_true(options, b"capped"),
        clustered=raw.field(options, b"clusteredIndex") is not None or kind == TIMESERIES,
        raw=kind == TIMESERIES and data == name and node.facts.mongod and node.facts.numbers >= PLAIN_BUCKETS,
        collation=raw.field(options, b"collation") is not None,
        id_index=kind == TIMESERIES or any(_text(index, b"name") == "_id_" for index in indexes),
    )


def _indexes(node: Node, db: str, name: str) -> tuple[bytes, ...] | None:
    """Return the specifications; None if the collection has just been dropped."""
    doing = f"listing the indexes of {db}.{name}"
    try:
        with (
            node.session() as session,
            Cursor(node, db, {"listIndexes": name}, doing, session=session) as cursor,
        ):
            return tuple(cursor.documents())
    except SourceError as error:
        if code_of(error) == NAMESPACE_NOT_FOUND:
            return None
        raise


def _with_users(
    node: Node, found: list[Listed], selection: Selection
) -> tuple[list[Listed], list[tuple[str, SourceError]]]:
    """Add the collections of users and roles, which a server need not list."""
    refused: list[tuple[str, SourceError]] = []
    if node.facts.kind == ROUTER:
        return found, refused
    uuids: dict[str, bytes] | None = None
    for name in USERS:
        if not selection.takes(ADMIN, name):
            continue
        try:
            if not _has_documents(node, name):
                continue
            if uuids is None:
                uuids = {_text(entry, b"name"): _uuid(entry) for entry in _entries(node, ADMIN)}
        except DedupstoreError as error:
            refused.append((f"{ADMIN}.{name}", SourceError(error.message)))
            continue
        indexes = _indexes(node, ADMIN, name) or ()
        info = CollectionInfo(ADMIN, name, COLLECTION, uuids.get(name, b""), raw.EMPTY, indexes)
        found.append(Listed(info, name, clustered=not indexes))
    return found, refused


def _has_documents(node: Node, name: str) -> bool:
    body = {"find": name, "limit": 1, "projection": {"_id": 1}}
    with Cursor(node, ADMIN, body, f"reading {ADMIN}.{name}") as cursor:
        return cursor.batch().number > 0


def _check_all_there(node: Node, selection: Selection, found: Sequence[Listed]) -> None:
    there = {listed.info.db for listed in found} | {listed.info.namespace for listed in found}
    for name in selection.names:
        if name not in there:
            raise SourceError(
                f"{node.facts.host} has no {name}, or the user may not see it: check the name", name=name
            )


def _text(entry: bytes, name: bytes) -> str:
    found = raw.field(entry, name)
    if found is None or found.type != raw.STRING:
        return ""
    return raw.text_of(entry[found.start : found.end]).decode("utf-8", "surrogateescape")


def _uuid(entry: bytes) -> bytes:
    info = raw.field(entry, b"info")
    if info is None or info.type != raw.OBJECT:
        return b""
    found = raw.field(entry, b"uuid", info.start)
    if found is None or found.type != raw.BINARY or found.end - found.start != 21:
        return b""
    return entry[found.start + 5 : found.end]


def _true(options: bytes, name: bytes) -> bool:
    found = raw.field(options, name)
    return found is not None and any(options[found.start : found.end])
