"""How an archive of mongodump begins: magic number, header, and what is in it.

::

    archive   = u32 0x8199E26D, header, entry*, FFFFFFFF, (segment | end)*
    header    = {concurrent_collections: int, version: "0.1", server_version, tool_version}
    entry     = {db, collection, metadata: <JSON text, or "">, size, type}
    segment   = {db, collection, EOF: false, CRC: 0}, document*, FFFFFFFF
    end       = {db, collection, EOF: true, CRC: <of all documents of the namespace>}, FFFFFFFF

The set of fields is strict in headers of segments and ends; some versions of mongodump leave ``size`` or
``type`` out of an entry. The log of a dump taken with ``--oplog`` is the namespace ``.oplog``. Pure.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.model import Data
from dedupstore.sources.bson import raw

MAGIC = struct.pack("<I", 0x8199E26D)
TERMINATOR = b"\xff\xff\xff\xff"
VERSION = "0.1"
BUCKETS = "system.buckets."
"""Before what a time series is called stand its buckets, on servers before `PLAIN_BUCKETS`."""
PLAIN_BUCKETS = (8, 3)


class Namespace(NamedTuple):
    """A collection by its names; the log is ``("", "oplog")``."""

    db: str
    collection: str

    def __str__(self) -> str:
        return printable(f"{self.db}.{self.collection}".encode())


@dataclass(frozen=True, slots=True)
class Entry:
    """One collection, view or time series as the prelude lists it."""

    namespace: Namespace
    metadata: bytes = b""
    """Canonical extended JSON, byte for byte; empty for what has none (the log, users of one database)."""
    size: int = 0
    """Bytes that the server stated; not the size of the documents."""
    kind: str = ""
    """``collection``, ``view``, ``timeseries``; older tools say nothing of collections."""


@dataclass(frozen=True, slots=True)
class Prelude:
    """Everything before the first document."""

    entries: tuple[Entry, ...]
    server_version: str
    tool_version: str
    concurrent: int = 4
    """Most namespaces that are open at a time, so that a reader keeps as many consumers."""

    @property
    def plain_buckets(self) -> bool:
        """Whether the buckets of a time series have its own name."""
        numbers = [int(part) if part.isdecimal() else 0 for part in self.server_version.split(".")[:2]]
        return tuple(numbers) >= PLAIN_BUCKETS

    def data_of(self, entry: Entry) -> Namespace:
        """Return the namespace that an entry's documents stand under."""
        db, collection = entry.namespace
        if entry.kind == "timeseries" and not self.plain_buckets:
            return Namespace(db, BUCKETS + collection)
        return entry.namespace


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What stands before documents, and after the last ones of a namespace."""

    namespace: Namespace
    ends: bool = False
    crc: int = 0
    """Unsigned; 0 unless it ends."""


def encode_header(prelude: Prelude) -> bytes:
    """Return the document behind the magic number."""
    return raw.document(
        (
            (b"concurrent_collections", raw.INT32, raw.int32(prelude.concurrent)),
            (b"version", raw.STRING, raw.string(VERSION)),
            (b"server_version", raw.STRING, raw.string(prelude.server_version)),
            (b"tool_version", raw.STRING, raw.string(prelude.tool_version)),
        )
    )


def encode_prelude(prelude: Prelude) -> bytes:
    """Return the bytes of an archive up to its first segment."""
    entries = [
        raw.document(
            (
                (b"db", raw.STRING, raw.string(entry.namespace.db)),
                (b"collection", raw.STRING, raw.string(entry.namespace.collection)),
                (b"metadata", raw.STRING, raw.string(entry.metadata)),
                (b"size", raw.INT32, raw.int32(min(entry.size, 0x7FFF_FFFF))),
                (b"type", raw.STRING, raw.string(entry.kind)),
            )
        )
        for entry in prelude.entries
    ]
    return b"".join((MAGIC, encode_header(prelude), *entries, TERMINATOR))


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the document before a segment, or that at a namespace's end."""
    signed = header.crc - (1 << 64) if header.crc >> 63 else header.crc
    return raw.document(
        (
            (b"db", raw.STRING, raw.string(header.namespace.db)),
            (b"collection", raw.STRING, raw.string(header.namespace.collection)),
            (b"EOF", raw.BOOL, b"\1" if header.ends else b"\0"),
            (b"CRC", raw.INT64, raw.int64(signed)),
        )
    )


def decode_header(document: Data) -> Prelude:
    """Read the document behind the magic number. Raises `SourceError`."""
    fields = _Fields(document, ("concurrent_collections", "version", "server_version", "tool_version"))
    version = fields.text("version")
    if version != VERSION:
        raise SourceError(f"archive format {version!r} is unknown: a newer dstore is needed")
    server, tool = fields.text("server_version"), fields.text("tool_version")
    return Prelude((), server, tool, fields.number("concurrent_collections"))


def decode_entry(document: Data) -> Entry:
    """Read what the prelude says of one collection. Raises `SourceError`."""
    fields = _Fields(document, ("db", "collection", "metadata"), ("size", "type"))
    namespace = Namespace(fields.text("db"), fields.text("collection"))
    if not namespace.collection:
        raise SourceError(f"the archive lists a collection of {namespace.db!r} without a name: take it again")
    size = fields.number("size") if "size" in fields else 0
    kind = fields.text("type") if "type" in fields else ""
    if kind not in {"", "collection", "view", "timeseries"}:
        raise SourceError(f"{namespace} is of the unknown type {kind!r}: a newer dstore is needed")
    return Entry(namespace, fields.data("metadata"), size, kind)


def decode_segment_header(document: Data) -> SegmentHeader:
    """Read what stands before documents. Raises `SourceError`."""
    fields = _Fields(document, ("db", "collection", "EOF", "CRC"))
    header = SegmentHeader(
        Namespace(fields.text("db"), fields.text("collection")),
        fields.flag("EOF"),
        fields.number("CRC") & 0xFFFF_FFFF_FFFF_FFFF,
    )
    if not header.namespace.collection or (header.crc and not header.ends):
        raise SourceError("the archive has a segment of no collection, or with a checksum too early")
    return header


class _Fields:
    """The fields of one small document, each there once, none beside those that are known."""

    def __init__(self, document: Data, wanted: Sequence[str], perhaps: Sequence[str] = ()) -> None:
        self._data = bytes(document)
        raw.validate(self._data)
        self._found: Mapping[str, raw.Element] = {
            element.name.decode("utf-8", "backslashreplace"): element for element in raw.elements(self._data)
        }
        count = sum(1 for _ in raw.elements(self._data))
        names = self._found.keys()
        if count != len(names) or names - {*wanted, *perhaps} or {*wanted} - names:
            told = ", ".join(names) or "none"
            raise SourceError(f"the archive has a document with the fields {told}, not {', '.join(wanted)}")

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def _value(self, name: str, *kinds: int) -> tuple[int, bytes]:
        element = self._found[name]
        if element.type not in kinds:
            raise SourceError(f"the archive has a {name} that is a {raw.TYPE_NAMES[element.type]}")
        return element.type, self._data[element.start : element.end]

    def data(self, name: str) -> bytes:
        return raw.text_of(self._value(name, raw.STRING)[1])

    def text(self, name: str) -> str:
        try:
            return self.data(name).decode()
        except UnicodeDecodeError as error:
            raise SourceError(f"the archive has a {name} that is no UTF-8") from error

    def number(self, name: str) -> int:
        return raw.int_of(*self._value(name, raw.INT32, raw.INT64))

    def flag(self, name: str) -> bool:
        return self._value(name, raw.BOOL)[1] != b"\0"
