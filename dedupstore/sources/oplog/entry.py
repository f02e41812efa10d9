"""One entry of a log, taken apart as far as replaying needs.

An entry is ``{op, ns, ui?, o, o2?, ts, t?, wall?, lsid?, txnNumber?, prevOpTime?, multiOpType?, ...}`` in
an order that differs between versions; fields beyond these say nothing about what the data became. One pass
over the entry's own fields; ``o`` and ``o2`` are cut out, not looked into. An operation inside an
``applyOps`` is an `Entry` too, with the time of the entry around it.

Whatever is not known is refused by name, with timestamp and namespace. Pure functions.
"""

import struct
from typing import Final, NamedTuple

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.position import NO_TERM, Ts

INSERT: Final = "i"
UPDATE: Final = "u"
DELETE: Final = "d"
COMMAND: Final = "c"
NOOP: Final = "n"
DOCUMENT_KINDS = frozenset((INSERT, UPDATE, DELETE))
_IGNORED = frozenset(("ci", "cu", "cd", "km"))
"""The server's own bookkeeping of record numbers (8.3 and later): no user's data."""
_KNOWN = DOCUMENT_KINDS | _IGNORED | {COMMAND, NOOP}
_VERSIONS = frozenset((1, 2))

_UUID_HEAD = b"\x10\0\0\0"
_UUID_SUBTYPES = frozenset((3, 4))
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")
_LAYOUT = [-1] * 256
"""Of values: their size, or -2 less what they have beside the length that they begin with; -1: ask `raw`."""
for _kind, _size in (
    (raw.DOUBLE, 8), (raw.OBJECT_ID, 12), (raw.BOOL, 1), (raw.DATE, 8), (raw.NULL, 0), (raw.INT32, 4),
    (raw.TIMESTAMP, 8), (raw.INT64, 8), (raw.STRING, -2 - 4), (raw.OBJECT, -2), (raw.BINARY, -2 - 5),
):  # fmt: skip
    _LAYOUT[_kind] = _size
ANY = ""
"""Namespace of an operation that says none."""


class Entry(NamedTuple):
    """An entry, or one of the operations in it."""

    ts: Ts
    term: int
    wall: int
    """Time of day in milliseconds since 1970; 0 if the entry has none."""
    op: str
    """``i``, ``u``, ``d``, ``c``; ``n`` for everything that is known and changes nothing."""
    ns: str
    ui: bytes
    """UUID of the collection, 16 bytes; empty where the server says none."""
    o: bytes
    o2: bytes
    """Raw document, or ``b""``."""
    session: bytes = b""
    """Raw ``lsid``."""
    number: int = -1
    """``txnNumber`` within the session; -1: none."""
    previous: Ts | None = None
    """``prevOpTime``; `ZERO` where a chain begins."""
    multi: int = 0
    """``multiOpType``; 1: applied by itself though it is one of a chain."""

    @property
    def db(self) -> str:
        """The database: ``ns`` up to its first dot."""
        return self.ns.partition(".")[0]


def parse_entry(entry: bytes) -> Entry:
    """Take an entry of a log apart.

    Raises `SourceError` for damaged BSON, a missing or mistyped field, an unknown kind or log version.
    """
    fields = _fields(entry)
    found = fields.get(b"ts")
    if found is None or found[0] != raw.TIMESTAMP:
        raise raw.damaged(0, "has an entry of the log without a timestamp")
    ts = Ts.of(entry, found[1])
    term, wall = NO_TERM, 0
    found = fields.get(b"t")
    if found is not None:
        term = _integer(entry, found)
    found = fields.get(b"wall")
    if found is not None and found[0] == raw.DATE:
        (wall,) = _I64.unpack_from(entry, found[1])
    found = fields.get(b"v")
    if found is not None and _integer(entry, found) not in _VERSIONS:
        raise _unknown(ts, ANY, "has a format that this version does not know")
    return _entry(entry, fields, ts, term, wall)


def parse_inner(operation: bytes, around: Entry) -> Entry:
    """Take an operation of an ``applyOps`` apart; it has the time of the entry that applies it."""
    return _entry(operation, _fields(operation), around.ts, around.term, around.wall)


def command_of(entry: Entry) -> str:
    """Return the name of the command in an entry of kind ``c``: its first field."""
    for name, _, _, _ in raw.elements(entry.o):
        return name.decode("utf-8", "backslashreplace")
    raise refused(entry, "is a command without a name")


_THEN = "take a new snapshot after it, or use a newer dstore"


def refused(entry: Entry, how: str, then: str = _THEN) -> SourceError:
    """Return the error for an entry that can not be replayed."""
    return SourceError(f"{_where(entry)} {how}: {then}", ts=str(entry.ts), ns=entry.ns)


def located(entry: Entry, error: SourceError) -> SourceError:
    """Return an error with timestamp and namespace of the entry that it comes from."""
    if "ts" in error.data:
        return error
    return SourceError(f"{_where(entry)}: {error.message}", ts=str(entry.ts), ns=entry.ns)


def _where(entry: Entry) -> str:
    ns = printable(entry.ns.encode("utf-8", "surrogateescape"))
    return f"the log entry at {entry.ts} on {ns or 'nothing'}"


_Fields = dict[bytes, tuple[int, int, int]]


def _fields(entry: bytes) -> _Fields:
    """Return type, start and end of each field's value; of the values only the lengths are looked at."""
    end = raw.document_at(entry, 0) - 1
    if end + 1 != len(entry):
        raise raw.damaged(end + 1, "has bytes behind an entry of the log")
    fields: _Fields = {}
    find, layout, length_at = entry.find, _LAYOUT, _I32.unpack_from
    at = 4
    while at < end:
        kind = entry[at]
        stop = find(0, at + 1, end)
        if stop < 0:
            raise raw.damaged(at, "has a name without an end")
        value = stop + 1
        size = layout[kind]
        if size >= 0:
            following = value + size
        elif size == -1 or end - value < 4:
            following = raw.value_end(entry, kind, value, end)
        else:
            (length,) = length_at(entry, value)
            following = value + length - size - 2
        if following > end or following < value:
            raise raw.damaged(value, f"has a {raw.TYPE_NAMES[kind]} of impossible length")
        fields[entry[at + 1 : stop]] = (kind, value, following)
        at = following
    return fields


def _entry(entry: bytes, fields: _Fields, ts: Ts, term: int, wall: int) -> Entry:
    get = fields.get
    op = _string(entry, get(b"op"))
    ns = _string(entry, get(b"ns"))
    if op not in _KNOWN:
        raise _unknown(ts, ns, f"is of kind {op!r}, which this version does not know")
    found = get(b"o")
    if op == NOOP or op in _IGNORED or found is None:
        if found is None and op in DOCUMENT_KINDS | {COMMAND}:
            raise _unknown(ts, ns, "has no operation in it")
        return Entry(ts, term, wall, NOOP, ns, b"", b"", b"")
    if found[0] != raw.OBJECT:
        raise _unknown(ts, ns, f"has a {raw.TYPE_NAMES[found[0]]} for its operation")
    o = entry[found[1] : found[2]]
    found = get(b"o2")
    o2 = entry[found[1] : found[2]] if found is not None and found[0] == raw.OBJECT else b""
    found = get(b"ui")
    ui = b"" if found is None else _uuid(entry, found, ts, ns)
    if b"lsid" not in fields and b"prevOpTime" not in fields and b"multiOpType" not in fields:
        return Entry(ts, term, wall, op, ns, ui, o, o2)
    return _linked(Entry(ts, term, wall, op, ns, ui, o, o2), entry, fields)


def _linked(parsed: Entry, entry: bytes, fields: _Fields) -> Entry:
    """Add what links an entry to others."""
    session, number, multi = b"", -1, 0
    previous: Ts | None = None
    found = fields.get(b"lsid")
    if found is not None:
        session = entry[found[1] : found[2]]
    found = fields.get(b"txnNumber")
    if found is not None:
        number = _integer(entry, found)
    found = fields.get(b"multiOpType")
    if found is not None:
        multi = _integer(entry, found)
    found = fields.get(b"prevOpTime")
    if found is not None and found[0] == raw.OBJECT:
        ts = raw.field(entry, b"ts", found[1])
        if ts is not None and ts.type == raw.TIMESTAMP:
            previous = Ts.of(entry, ts.start)
    elif found is not None and found[0] == raw.TIMESTAMP:
        previous = Ts.of(entry, found[1])
    return parsed._replace(session=session, number=number, previous=previous, multi=multi)


def _string(entry: bytes, found: tuple[int, int, int] | None) -> str:
    if found is None or found[0] != raw.STRING:
        return ANY
    return entry[found[1] + 4 : found[2] - 1].decode("utf-8", "surrogateescape")


def _integer(entry: bytes, found: tuple[int, int, int]) -> int:
    kind, start, end = found
    if kind == raw.INT64:
        return int(_I64.unpack_from(entry, start)[0])
    return raw.int_of(kind, entry[start:end])


def _uuid(entry: bytes, found: tuple[int, int, int], ts: Ts, ns: str) -> bytes:
    kind, start, end = found
    if kind != raw.BINARY or entry[start : start + 4] != _UUID_HEAD or entry[start + 4] not in _UUID_SUBTYPES:
        raise _unknown(ts, ns, "names its collection by what is no UUID")
    return entry[start + 5 : end]


def _unknown(ts: Ts, ns: str, how: str) -> SourceError:
    return refused(Entry(ts, NO_TERM, 0, "", ns, b"", b"", b""), how)
