"""Time series as servers before 8.3 log them: a collection of buckets, told in the words of the series.

The log creates ``system.buckets.NAME`` with options of its own and indexes on fields of buckets; users and
dumps know ``NAME``, the options it was made with, and indexes on its measurements. Documents are the buckets
in either case. Pure functions over raw BSON.
"""

from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.definitions import Field, field_of, replaced, text_field

_SHOWN = frozenset(b"storageEngine indexOptionDefaults collation timeseries expireAfterSeconds temp".split())
"""Options of the buckets that are options of the series."""
_MIN, _MAX = b"control.min.", b"control.max."
_OF_BUCKETS = (b"control.", b"data.", b"meta.")


def shown_options(options: bytes) -> bytes:
    """Return the options of a series by those of its buckets."""
    parts = (
        options[start - len(name) - 2 : end]
        for name, _, start, end in raw.elements(options)
        if name in _SHOWN
    )
    return raw.framed(b"".join(parts))


def shown_index(spec: bytes, options: bytes) -> bytes | None:
    """Return an index of a series by that of its buckets; None if it is one that users do not see.

    One on fields that are the series' own already is returned as it is.
    """
    original = field_of(spec, b"originalSpec")
    if original is not None and original[0] == raw.OBJECT:
        return original[1]
    key, series = field_of(spec, b"key"), field_of(options, b"timeseries")
    if key is None or series is None:
        return None
    if not any(name == b"meta" or name.startswith(_OF_BUCKETS) for name, _, _, _ in raw.elements(key[1])):
        return spec
    meta = text_field(series[1], b"metaField")
    fields = _shown_key(key[1], b"" if meta is None else meta.encode("utf-8", "surrogateescape"))
    return None if fields is None else replaced(spec, b"key", (raw.OBJECT, raw.document(fields)))


def _shown_key(key: bytes, meta: bytes) -> list[tuple[bytes, int, bytes]] | None:
    found: list[tuple[bytes, int, bytes]] = []
    awaited: tuple[bytes, Field] | None = None  # the other end of a range
    for name, kind, start, end in raw.elements(key):
        value = (kind, key[start:end])
        if awaited is not None:
            if (name, value) != awaited:
                return None
            awaited = None
            continue
        if meta and (name == b"meta" or name.startswith(b"meta.")):
            found.append((meta + name[4:], *value))
        elif name.startswith(b"data.") and kind == raw.STRING and raw.text_of(value[1]) == b"2dsphere_bucket":
            found.append((name[5:], raw.STRING, raw.string("2dsphere")))
        elif name.startswith((_MIN, _MAX)):
            inner = name[len(_MIN) :]
            found.append((inner, *value))
            awaited = ((_MAX if name.startswith(_MIN) else _MIN) + inner, value)
        else:
            return None
    return found if awaited is None else None
