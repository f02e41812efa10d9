"""Options and indexes of a collection as raw documents, and what commands of the log make of them.

What a command does not mention keeps its bytes and its place. A changed option stays where it was, a new
one goes where servers tell it. A changed index is written as the server does it: the field goes to the end,
``hidden``, ``unique`` and ``prepareUnique`` only while they are true.

Pure functions over raw BSON. Raises `SourceError` for what is not known, without saying where in the log.
"""

from collections.abc import Container, Iterable

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.sources.bson import raw

ID_INDEX = raw.document(
    (
        (b"v", raw.INT32, raw.int32(2)),
        (b"key", raw.OBJECT, raw.document(((b"_id", raw.INT32, raw.int32(1)),))),
        (b"name", raw.STRING, raw.string("_id_")),
    )
)
"""The index that every collection has, unless it is clustered."""

_ASIDE = frozenset(
    b"collMod isTimeseriesNamespace dryRun writeConcern comment $db lsid $clusterTime maxTimeMS apiVersion "
    b"apiStrict apiDeprecationErrors timeseriesBucketsMayHaveMixedSchemaData usePowerOf2Sizes noPadding "
    b"removeLegacyTimeseriesBucketingParametersHaveChanged "
    b"_removeLegacyTimeseriesBucketingParametersHaveChanged recordIdsReplicated".split()
)
"""What a ``collMod`` may say beside what shows in options and indexes."""
OPTIONS = tuple(
    b"capped size max autoIndexId temp recordPreImages changeStreamPreAndPostImages storageEngine "
    b"indexOptionDefaults validator validationLevel validationAction collation clusteredIndex "
    b"expireAfterSeconds viewOn pipeline timeseries encryptedFields".split()
)
"""In the order in which servers tell them."""
_TAKEN_OVER = frozenset(b"validationLevel validationAction viewOn pipeline".split())
_RENAMED = {b"cappedSize": b"size", b"cappedMax": b"max"}
_INDEX_FLAGS = frozenset(b"hidden unique prepareUnique".split())
_GRANULARITIES = {b"seconds": 3600, b"minutes": 86_400, b"hours": 2_592_000}
"""Seconds that a bucket spans at most, by granularity."""

Field = tuple[int, bytes]
"""Type and raw value."""


def field_of(doc: bytes, name: bytes) -> Field | None:
    """Return the first field of that name."""
    found = raw.field(doc, name)
    return None if found is None else (found.type, doc[found.start : found.end])


def text_field(doc: bytes, name: bytes) -> str | None:
    """Return the text of a field; None if there is none or it is no string."""
    found = field_of(doc, name)
    if found is None or found[0] != raw.STRING:
        return None
    return raw.text_of(found[1]).decode("utf-8", "surrogateescape")


def truth(field: Field | None) -> bool:
    """Return whether a field is there and true, as the server takes numbers and truth values."""
    return field is not None and any(field[1]) and field[0] not in {raw.NULL, raw.UNDEFINED}


def without(doc: bytes, names: Container[bytes]) -> bytes:
    """Return a document without these fields."""
    parts = (
        doc[start - len(name) - 2 : end] for name, _, start, end in raw.elements(doc) if name not in names
    )
    return raw.framed(b"".join(parts))


def replaced(doc: bytes, name: bytes, field: Field, before: Container[bytes] = ()) -> bytes:
    """Return a document with that field: in its place, or if it was not there before some others, or last."""
    new = raw.element(name, *field)
    parts: list[bytes] = []
    place: int | None = None
    there = False
    for other, _, start, end in raw.elements(doc):
        if place is None and other in before:
            place = len(parts)
        parts.append(new if other == name else doc[start - len(other) - 2 : end])
        there = there or other == name
    if not there:
        parts.insert(len(parts) if place is None else place, new)
    return raw.framed(b"".join(parts))


def with_option(options: bytes, name: bytes, field: Field) -> bytes:
    """Return options with that one; a new one goes where the server would tell it."""
    behind = OPTIONS[OPTIONS.index(name) + 1 :] if name in OPTIONS else ()
    return replaced(options, name, field, behind)


def documents_in(array: bytes) -> list[bytes]:
    """Return the documents in the raw value of an array; raises `SourceError` if there is anything else."""
    found = []
    for _, kind, start, end in raw.elements(array):
        if kind != raw.OBJECT:
            raise SourceError(
                f"a list has a {raw.TYPE_NAMES[kind]} where a document belongs: take a new snapshot"
            )
        found.append(array[start:end])
    return found


def created(command: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return options and indexes of the collection that a ``create`` makes."""
    options = without(command, {b"create", b"idIndex"})
    index = field_of(command, b"idIndex")
    if index is not None and index[0] == raw.OBJECT:
        return options, (index[1],)
    clustered = field_of(command, b"clusteredIndex")
    if clustered is not None:
        return options, (_clustered(clustered),)
    return options, () if field_of(command, b"viewOn") else (ID_INDEX,)


def _clustered(field: Field) -> bytes:
    """Return what ``listIndexes`` says of the order of a clustered collection."""
    spec = field[1] if field[0] == raw.OBJECT else replaced(ID_INDEX, b"unique", (raw.BOOL, b"\1"))
    return replaced(spec, b"clustered", (raw.BOOL, b"\1"))


def name_of(spec: bytes) -> str:
    """Return the name of an index. Raises `SourceError` if it has none."""
    name = text_field(spec, b"name")
    if name is None:
        raise SourceError("an index has no name: take a new snapshot")
    return name


def with_indexes(indexes: Iterable[bytes], specs: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return the indexes after others were built: they come last, and none is left of their names."""
    names = {name_of(spec): spec for spec in indexes}
    for spec in specs:
        names.pop(name_of(spec), None)
        names[name_of(spec)] = spec
    return tuple(names.values())


def without_indexes(indexes: tuple[bytes, ...], which: Field) -> tuple[bytes, ...]:
    """Return the indexes after a ``dropIndexes``: by name, names, key, or all with ``*``.

    The one on ``_id`` stays. What is not there is no error: the entry may be older than the catalog.
    """
    kind, value = which
    if kind == raw.OBJECT:
        return tuple(spec for spec in indexes if field_of(spec, b"key") != which)
    if kind == raw.ARRAY:
        names = {
            raw.text_of(value[start:end]) for _, of, start, end in raw.elements(value) if of == raw.STRING
        }
    elif kind == raw.STRING:
        names = {raw.text_of(value)}
    else:
        raise SourceError(f"indexes are dropped by a {raw.TYPE_NAMES[kind]}: take a new snapshot")
    if b"*" in names:
        return tuple(
            spec for spec in indexes if name_of(spec) == "_id_" or truth(field_of(spec, b"clustered"))
        )
    gone = {name.decode("utf-8", "surrogateescape") for name in names}
    return tuple(spec for spec in indexes if name_of(spec) not in gone)


def modified(command: bytes, options: bytes, indexes: tuple[bytes, ...]) -> tuple[bytes, tuple[bytes, ...]]:
    """Return options and indexes after a ``collMod``; raises `SourceError` for what is not known."""
    for name, kind, start, end in raw.elements(command):
        field = (kind, command[start:end])
        if name == b"index" and kind == raw.OBJECT:
            indexes = _index_modified(field[1], indexes)
        elif name in _TAKEN_OVER:
            options = with_option(options, name, field)
        elif name in _RENAMED:
            options = with_option(options, _RENAMED[name], field)
        elif name == b"validator":
            options = _kept_if(field[1] != raw.EMPTY, options, name, field)
        elif name == b"recordPreImages":
            options = _kept_if(truth(field), options, name, field)
        elif name == b"changeStreamPreAndPostImages" and kind == raw.OBJECT:
            options = _kept_if(truth(field_of(field[1], b"enabled")), options, name, field)
        elif name == b"expireAfterSeconds":
            options = _kept_if(kind != raw.STRING, options, name, field)
        elif name == b"timeseries" and kind == raw.OBJECT:
            options = _timeseries_modified(field[1], options)
        elif name not in _ASIDE:
            raise SourceError(
                f"a collMod changes {printable(name)!r}, which this version does not know: "
                "take a new snapshot after it, or use a newer dstore"
            )
    return options, indexes


def _kept_if(kept: bool, options: bytes, name: bytes, field: Field) -> bytes:
    return with_option(options, name, field) if kept else without(options, {name})


def _index_modified(change: bytes, indexes: tuple[bytes, ...]) -> tuple[bytes, ...]:
    name, key = text_field(change, b"name"), field_of(change, b"keyPattern")
    return tuple(
        _spec_modified(change, spec)
        if name_of(spec) == name or (name is None and field_of(spec, b"key") == key)
        else spec
        for spec in indexes
    )


def _spec_modified(change: bytes, spec: bytes) -> bytes:
    for name, kind, start, end in raw.elements(change):
        field = (kind, change[start:end])
        if name in {b"name", b"keyPattern"}:
            continue
        if name == b"expireAfterSeconds":
            spec = _at_end(spec, name, field)
        elif name in _INDEX_FLAGS:
            spec = without(spec, {name, b"prepareUnique"} if name == b"unique" else {name})
            if truth(field):
                spec = _at_end(spec, name, (raw.BOOL, b"\1"))
        elif name == b"forceNonUnique":
            spec = without(spec, {b"unique"}) if truth(field) else spec
        else:
            raise SourceError(
                f"a collMod changes {printable(name)!r} of an index, which this version does not know: "
                "take a new snapshot after it, or use a newer dstore"
            )
    return spec


def _at_end(doc: bytes, name: bytes, field: Field) -> bytes:
    return replaced(without(doc, {name}), name, field)


def _timeseries_modified(change: bytes, options: bytes) -> bytes:
    found = field_of(options, b"timeseries")
    if found is None or found[0] != raw.OBJECT:
        return options
    series = found[1]
    for name, kind, start, end in raw.elements(change):
        value = change[start:end]
        series = replaced(series, name, (kind, value))
        if name == b"granularity" and kind == raw.STRING:
            span = _GRANULARITIES.get(raw.text_of(value))
            if span is not None and field_of(series, b"bucketMaxSpanSeconds"):
                series = replaced(series, b"bucketMaxSpanSeconds", (raw.INT32, raw.int32(span)))
            series = without(series, {b"bucketRoundingSeconds"})
        elif name == b"bucketRoundingSeconds":
            series = without(series, {b"granularity"})
    return replaced(options, b"timeseries", (raw.OBJECT, series))
