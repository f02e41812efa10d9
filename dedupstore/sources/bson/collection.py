"""What is known of a collection beside its documents, and how mongodump writes that into files.

`CollectionInfo` is the collection's place in the catalog: name, kind, identity, options, indexes, the last
two as raw BSON, byte for byte as the server or a dump gave them. `CollectionFacts` is what the stored stream
of documents needs to be read and gone on with; it lies in the stream's node under ``extra["bson"]``.

The files of one collection are ``<name>.bson`` and ``<name>.metadata.json`` in the folder of its database,
the name escaped as `file_name` says; beside the databases lies ``prelude.json``. Pure functions.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote_plus, unquote_plus

import msgspec

from dedupstore.errors import FormatError, ObjectDamaged, SourceError
from dedupstore.model import Node
from dedupstore.sources.bson import extjson, raw

DATA_SUFFIX = b".bson"
METADATA_SUFFIX = b".metadata.json"
PRELUDE = b"prelude.json"
COLLECTION, VIEW, TIMESERIES = "collection", "view", "timeseries"

NAME_MAX = 238
"""Characters of an escaped name; a longer one is cut and ends in a hash of the whole."""
_KEPT = 208
_CUT = re.compile("%24[-_A-Za-z0-9]{27}")

EXTRA = "bson"
"""Key of the facts in a node's ``extra``."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection, view or time series as the catalog has it."""

    db: str
    name: str
    kind: str = COLLECTION
    """``collection``, ``view`` or ``timeseries``."""
    uuid: bytes = b""
    """16 bytes; empty for views and where a dump does not say."""
    options: bytes = raw.EMPTY
    """Raw document as ``listCollections`` gives it: capped, validator, collation, viewOn, timeseries, ..."""
    indexes: tuple[bytes, ...] = ()
    """Raw index specifications as ``listIndexes`` gives them, in its order."""
    more: bytes = raw.EMPTY
    """Raw document of what a metadata file says beyond that; written back as it was."""

    @property
    def namespace(self) -> str:
        """Database and name with a dot between."""
        return f"{self.db}.{self.name}"


@dataclass(frozen=True, slots=True)
class CollectionFacts:
    """What a stored stream of documents must say of itself."""

    k: int
    """Bits of the leaf rule (see `leaves`)."""
    in_order: bool
    """Whether the documents lie in order of ``_id``: only then are the leaves labelled."""
    documents: int
    db: str
    name: str
    uuid: bytes
    """16 bytes, or none."""

    def pack(self) -> bytes:
        """Return the bytes for ``extra[EXTRA]`` of the stream's node."""
        values = (_VERSION, self.k, self.in_order, self.documents, self.db, self.name, self.uuid)
        return msgspec.msgpack.encode(values)


def read_facts(node: Node) -> CollectionFacts | None:
    """Return what a node says of the documents in it; None if it holds none.

    Raises `FormatError` for a later version, `ObjectDamaged` for what makes no sense.
    """
    packed = (node.extra or {}).get(EXTRA)
    if packed is None:
        return None
    try:
        version = msgspec.msgpack.decode(packed)[0]
        if version == _VERSION:
            values = msgspec.msgpack.decode(packed, type=tuple[int, int, bool, int, str, str, bytes])
            return CollectionFacts(*values[1:])
    except (msgspec.MsgspecError, LookupError, TypeError, UnicodeDecodeError) as error:
        raise ObjectDamaged("what a stream says of its documents makes no sense: run a verify") from error
    raise FormatError(f"version {version!r} of a stored collection is unknown: a newer dstore is needed")


def file_name(name: str) -> bytes:
    """Return the escaped name of a collection, to which `DATA_SUFFIX` or `METADATA_SUFFIX` is added.

    As Go's ``url.QueryEscape``; of an escaped name longer than `NAME_MAX` the first 208 characters are kept,
    then come ``%24`` and the SHA-1 of the name in base64.
    """
    data = name.encode("utf-8", "surrogateescape")
    escaped = quote_plus(data)
    if len(escaped) > NAME_MAX:
        digest = base64.urlsafe_b64encode(hashlib.sha1(data, usedforsecurity=False).digest())
        escaped = f"{escaped[:_KEPT]}%24{digest.decode().rstrip('=')}"
    return escaped.encode("ascii")


def collection_name(stem: bytes) -> str | None:
    """Return the name that `file_name` escaped; None if it was cut, so that only the metadata knows it."""
    text = stem.decode("utf-8", "surrogateescape")
    if len(text) == NAME_MAX and _CUT.fullmatch(text, _KEPT):
        return None
    return unquote_plus(text, errors="surrogateescape")


def metadata_json(info: CollectionInfo) -> bytes:
    """Return the content of a collection's metadata file: one line of canonical extended JSON."""
    fields: list[tuple[bytes, int, bytes]] = []
    if info.options != raw.EMPTY:
        fields.append((b"options", raw.OBJECT, info.options))
    fields.append((b"indexes", raw.ARRAY, raw.array((raw.OBJECT, index) for index in info.indexes)))
    if info.uuid:
        fields.append((b"uuid", raw.STRING, raw.string(info.uuid.hex())))
    fields.append((b"collectionName", raw.STRING, _text(info.name)))
    fields.append((b"type", raw.STRING, raw.string(info.kind)))
    known = {name for name, _, _ in fields}
    for name, kind, start, end in raw.elements(info.more):
        if name not in known:
            fields.append((name, kind, info.more[start:end]))
    return extjson.to_json(raw.document(fields)).encode("utf-8", "surrogateescape")


def parse_metadata(data: bytes, db: str, name: str = "") -> CollectionInfo:
    """Read a metadata file of database ``db``.

    ``name`` is what the file is called after (see `collection_name`): it counts where the file does not say,
    as those of old mongodumps do not. Raises `SourceError`.
    """
    doc = extjson.from_json(data.decode("utf-8", "surrogateescape"))
    options, uuid, kind = raw.EMPTY, b"", ""
    indexes: tuple[bytes, ...] = ()
    more = []
    for field, of_type, start, end in raw.elements(doc):
        value = doc[start:end]
        if of_type == raw.NULL and field in {b"options", b"indexes", b"uuid", b"type"}:
            continue
        if field == b"options" and of_type == raw.OBJECT:
            options = value
        elif field == b"indexes" and of_type == raw.ARRAY:
            indexes = tuple(_specification(value, element, db) for element in raw.elements(value))
        elif field == b"uuid" and of_type == raw.STRING:
            uuid = _uuid(value, db)
        elif field == b"collectionName" and of_type == raw.STRING:
            name = raw.text_of(value).decode("utf-8", "surrogateescape")
        elif field == b"type" and of_type == raw.STRING:
            kind = raw.text_of(value).decode("utf-8", "replace")
        else:
            more.append((field, of_type, value))
    if not name:
        raise _unusable(db, "does not name its collection")
    kind = kind or _kind_by(options)
    if kind not in {COLLECTION, VIEW, TIMESERIES}:
        raise _unusable(db, f"is of the unknown type {kind!r}")
    return CollectionInfo(db, name, kind, uuid, options, indexes, raw.document(more))


def prelude_json(server_version: str, tool_version: str) -> bytes:
    """Return the content of a dump's `PRELUDE`: the versions of the server and of the tool that dumps."""
    fields = [
        (b"ServerVersion", raw.STRING, raw.string(server_version)),
        (b"ToolVersion", raw.STRING, raw.string(tool_version)),
    ]
    return extjson.to_json(raw.document(fields)).encode()


def server_version(prelude: bytes) -> str:
    """Return the server's version that a `PRELUDE` tells of, or ``""``; raises `SourceError`."""
    doc = extjson.from_json(prelude.decode("utf-8", "surrogateescape"))
    found = raw.field(doc, b"ServerVersion")
    if found is None or found.type != raw.STRING:
        return ""
    return raw.text_of(doc[found.start : found.end]).decode("utf-8", "replace")


def _text(name: str) -> bytes:
    return raw.string(name.encode("utf-8", "surrogateescape"))


def _specification(indexes: bytes, element: raw.Element, db: str) -> bytes:
    if element.type != raw.OBJECT:
        raise _unusable(db, "has an index that is no document")
    return indexes[element.start : element.end]


def _uuid(value: bytes, db: str) -> bytes:
    try:
        uuid = bytes.fromhex(raw.text_of(value).decode().replace("-", ""))
    except ValueError as error:
        raise _unusable(db, "has a uuid that is none") from error
    if len(uuid) not in {0, 16}:
        raise _unusable(db, "has a uuid that is none")
    return uuid


def _kind_by(options: bytes) -> str:
    if raw.field(options, b"viewOn"):
        return VIEW
    return TIMESERIES if raw.field(options, b"timeseries") else COLLECTION


def _unusable(db: str, how: str) -> SourceError:
    return SourceError(f"a collection's metadata in database {db!r} {how}: take the dump again", db=db)
