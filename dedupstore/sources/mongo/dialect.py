"""The log of servers that write it in the words of change streams, made into mongod's. Only on request.

What such a server (SecantusDB) does otherwise, and what is made of it:

* Updates are ``{$v: 2, diff: {updatedFields, removedFields, truncatedArrays, disambiguatedPaths}}``: made
  into the diff that mongod writes. A number in a path is a position in an array unless it is disambiguated.
* A collection that comes to be with its first document is not logged: a ``create`` is put before that.
* ``createIndexes`` lists several indexes: one entry for each. Views are created and dropped by command: made
  into documents of ``system.views``.
* A renamed collection gets a new UUID: entries keep the one that it had when following began.
* Terms and versions are missing: 1 and 2.

Operations of a transaction are entries of their own that share one timestamp; they stay that. Used wrongly,
on the log of a server that writes mongod's words, it raises `SourceError` at the first update.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import VIEW
from dedupstore.sources.mongo.catalog import Catalog
from dedupstore.sources.oplog.entry import parse_entry
from dedupstore.sources.oplog.namespaces import COMMANDS, VIEWS, split

CHANGE_STREAM = "changestream"
"""What asks for it."""
_PRIVATE = frozenset((b"entryFormat", b"ns"))
_ID_INDEX = raw.document(
    [
        (b"v", raw.INT32, raw.int32(2)),
        (b"key", raw.OBJECT, raw.document([(b"_id", raw.INT32, raw.int32(1))])),
        (b"name", raw.STRING, raw.string("_id_")),
    ]
)
_Fields = list[tuple[bytes, int, bytes]]


@dataclass(slots=True)
class _Change:
    """What happens to one document or array."""

    removed: list[bytes] = field(default_factory=list)
    updated: _Fields = field(default_factory=list)
    below: "dict[bytes, _Change]" = field(default_factory=dict)
    array: bool = False
    length: int = -1
    """Of an array that got shorter."""

    def at(self, path: Iterable[tuple[bytes, bool]]) -> "_Change":
        """Return what happens at a path: names, and whether each is a position."""
        here = self
        for name, position in path:
            here.array = here.array or position
            here = here.below.setdefault(name, _Change())
        return here

    def diff(self) -> bytes:
        """Return it in mongod's words."""
        fields: _Fields = []
        if self.array:
            fields.append((b"a", raw.BOOL, b"\1"))
            if self.length >= 0:
                fields.append((b"l", raw.INT32, raw.int32(self.length)))
            fields += [(b"u" + name, kind, value) for name, kind, value in self.updated]
        else:
            if self.removed:
                gone = raw.document((name, raw.BOOL, b"\0") for name in self.removed)
                fields.append((b"d", raw.OBJECT, gone))
            if self.updated:
                fields.append((b"u", raw.OBJECT, raw.document(self.updated)))
        fields += [(b"s" + name, raw.OBJECT, change.diff()) for name, change in self.below.items()]
        return raw.document(fields)


class ChangeStreamDialect:
    """Translates one log from some moment on; see `oplog.Dialect`. One thread.

    ``catalog`` is the server's at that moment or before. Memory: a UUID and a name for each collection.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._uuids = {listed.info.uuid for listed in catalog.collections}
        self._views = {listed.info.namespace for listed in catalog.collections if listed.info.kind == VIEW}
        self._was: dict[bytes, bytes] = {}
        """UUID that a collection had before it was renamed, by the one that it has."""
        self._renamed: dict[str, bytes] = {}
        """UUID of a collection that has just been renamed, by its new name."""

    def translated(self, entry: bytes) -> list[bytes]:
        """Return what an entry says in mongod's words: one entry, or several of one timestamp."""
        parsed = parse_entry(_with_version(entry))
        if parsed.op == "n":
            return [_with_version(entry)]
        ui = self._uuid(parsed.ns, parsed.ui)
        if parsed.op == "c":
            return [
                _rebuilt(entry, ns, op, ui, o) for ns, op, ui, o in self._command(parsed.ns, ui, parsed.o)
            ]
        found = []
        if parsed.op == "i" and ui not in self._uuids:
            self._uuids.add(ui)
            db, name = split(parsed.ns)
            made = [(b"create", raw.STRING, raw.string(name)), (b"idIndex", raw.OBJECT, _ID_INDEX)]
            found.append(_rebuilt(entry, f"{db}.{COMMANDS}", "c", ui, raw.document(made)))
        o = _update(parsed.o) if parsed.op == "u" else parsed.o
        found.append(_rebuilt(entry, parsed.ns, parsed.op, ui, o))
        return found

    def _uuid(self, ns: str, ui: bytes) -> bytes:
        if ui and ui not in self._uuids and ns in self._renamed:
            self._was[ui] = self._renamed.pop(ns)
        return self._was.get(ui, ui)

    def _command(self, ns: str, ui: bytes, o: bytes) -> Iterator[tuple[str, str, bytes, bytes]]:
        """Yield namespace, kind, UUID and operation of what a command becomes."""
        db, _ = split(ns)
        fields = [(name, kind, o[start:end]) for name, kind, start, end in raw.elements(o)]
        command, kind, value = fields[0]
        name = raw.text_of(value).decode() if kind == raw.STRING else ""
        if command == b"create" and any(name == b"viewOn" for name, _, _ in fields):
            self._views.add(f"{db}.{name}")
            yield f"{db}.{VIEWS}", "i", b"", _view(f"{db}.{name}", fields)
        elif command == b"drop" and f"{db}.{name}" in self._views:
            self._views.discard(f"{db}.{name}")
            gone = raw.document([(b"_id", raw.STRING, raw.string(f"{db}.{name}"))])
            yield f"{db}.{VIEWS}", "d", b"", gone
        elif command == b"createIndexes":
            indexes = next((value for name, _, value in fields if name == b"indexes"), raw.EMPTY)
            for element in raw.elements(indexes):
                specification = indexes[element.start : element.end]
                kept = [
                    (name, kind, specification[start:end])
                    for name, kind, start, end in raw.elements(specification)
                    if name not in _PRIVATE
                ]
                yield ns, "c", ui, raw.document([fields[0], *kept])
        else:
            if command == b"create":
                self._uuids.add(ui)
            elif command == b"renameCollection":
                to = next((value for name, _, value in fields if name == b"to"), raw.string(""))
                self._renamed[raw.text_of(to).decode()] = ui
            yield ns, "c", ui, o


def _update(o: bytes) -> bytes:
    """Return an update as mongod logs it; a whole document stays what it is."""
    version = raw.field(o, b"$v")
    if version is None:
        return o
    found = raw.field(o, b"diff")
    if found is None or found.type != raw.OBJECT:
        raise _foreign("has no diff")
    diff = o[found.start : found.end]
    parts: dict[bytes, bytes] = {}
    for name, kind, start, end in raw.elements(diff):
        if name not in {b"updatedFields", b"removedFields", b"truncatedArrays", b"disambiguatedPaths"}:
            raise _foreign(f"has {name.decode(errors='replace')!r} in its diff")
        if kind not in {raw.OBJECT, raw.ARRAY}:
            raise _foreign("is not made of documents")
        parts[name] = diff[start:end]
    paths = _disambiguated(parts.get(b"disambiguatedPaths", raw.EMPTY))
    change = _Change()
    for _, kind, value in _elements(parts.get(b"truncatedArrays", raw.EMPTY)):
        _truncate(change, paths, kind, value)
    for _, kind, value in _elements(parts.get(b"removedFields", raw.EMPTY)):
        *above, (name, _) = _path(raw.text_of(value) if kind == raw.STRING else b"", paths)
        change.at(above).removed.append(name)
    for whole, kind, value in _elements(parts.get(b"updatedFields", raw.EMPTY)):
        *above, (name, position) = _path(whole, paths)
        here = change.at(above)
        here.array = here.array or position
        here.updated.append((name, kind, value))
    return raw.document([(b"$v", raw.INT32, raw.int32(2)), (b"diff", raw.OBJECT, change.diff())])


def _truncate(change: _Change, paths: dict[bytes, list[tuple[bytes, bool]]], kind: int, value: bytes) -> None:
    whole = raw.field(value, b"field") if kind == raw.OBJECT else None
    size = raw.field(value, b"newSize") if kind == raw.OBJECT else None
    if whole is None or size is None:
        raise _foreign("truncates no array")
    here = change.at(_path(raw.text_of(value[whole.start : whole.end]), paths))
    here.array = True
    here.length = raw.int_of(size.type, value[size.start : size.end])


def _disambiguated(paths: bytes) -> dict[bytes, list[tuple[bytes, bool]]]:
    """Return the names on each path that is not what it looks like; True: a position."""
    found = {}
    for whole, kind, value in _elements(paths):
        if kind == raw.ARRAY:
            found[whole] = [
                (raw.text_of(part), False) if of == raw.STRING else (b"%d" % raw.int_of(of, part), True)
                for _, of, part in _elements(value)
            ]
    return found


def _path(whole: bytes, known: dict[bytes, list[tuple[bytes, bool]]]) -> list[tuple[bytes, bool]]:
    return known.get(whole) or [(name, name.isdigit()) for name in whole.split(b".")]


def _elements(doc: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    for name, kind, start, end in raw.elements(doc):
        yield name, kind, doc[start:end]


def _view(namespace: str, fields: _Fields) -> bytes:
    """Return the document of ``system.views`` for a view."""
    kept: _Fields = [(b"_id", raw.STRING, raw.string(namespace))]
    for name, kind, value in fields[1:]:
        if name in {b"viewOn", b"collation"}:
            kept.append((name, kind, value))
        elif name in {b"viewPipeline", b"pipeline"}:
            kept.append((b"pipeline", kind, value))
    return raw.document(kept)


def _rebuilt(entry: bytes, ns: str, op: str, ui: bytes, o: bytes) -> bytes:
    """Return an entry with another operation in it."""
    fields: _Fields = [(b"op", raw.STRING, raw.string(op)), (b"ns", raw.STRING, raw.string(ns))]
    if ui:
        fields.append((b"ui", raw.BINARY, raw.binary(ui, 4)))
    fields.append((b"o", raw.OBJECT, o))
    fields += [part for part in _elements(entry) if part[0] not in {b"op", b"ns", b"ui", b"o"}]
    return _with_version(raw.document(fields))


def _with_version(entry: bytes) -> bytes:
    """Add term and version where they are missing."""
    fields = list(_elements(entry))
    names = {name for name, _, _ in fields}
    if b"t" not in names:
        fields.append((b"t", raw.INT64, raw.int64(1)))
    if b"v" not in names:
        fields.append((b"v", raw.INT32, raw.int32(2)))
    return raw.document(fields)


def _foreign(how: str) -> SourceError:
    return SourceError(
        f"an update in the log {how}, so it is not written in the words of change streams: follow it without "
        f"--oplog-dialect {CHANGE_STREAM}"
    )
