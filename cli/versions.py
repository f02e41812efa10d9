"""How a version of a document is shown: lines for people, an object for programs."""

from collections.abc import Iterator

import msgspec

from dedupstore.documents.fields import FieldChange, changed_fields
from dedupstore.documents.history import Version
from dedupstore.findings import printable
from dedupstore.ids import short
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.extjson import shown, shown_value

from .render import Fields, instant

_VALUE_MAX = 200
_DOCUMENT_MAX = 2000


def version_lines(version: Version) -> Iterator[str]:
    """Yield the lines for people: a heading, and below it what changed."""
    when = version.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    millis = f".{version.time.microsecond // 1000:03d}" if version.time.microsecond else ""
    zone = version.time.astimezone().strftime("%z")
    words = [f"{when}{millis} {zone}", "" if version.ts is None else str(version.ts), _what(version)]
    yield "  ".join(word for word in words if word)
    if version.after is None:
        return
    if version.before is None:
        yield f"  {_cut(shown(version.after), _DOCUMENT_MAX)}"
        return
    if version.before == version.after:
        yield "  nothing changed"
    for change in changed_fields(version.before, version.after):
        yield f"  {_change_line(change)}"


def version_fields(version: Version) -> Fields:
    """Return it for JSON."""
    changes = []
    if version.before is not None and version.after is not None:
        changes = [_change_fields(change) for change in changed_fields(version.before, version.after)]
    return {
        "time": instant(version.time),
        "operation": None if version.ts is None else str(version.ts),
        "op": version.op,
        "transaction": version.transaction,
        "snapshot": None if version.snapshot is None else version.snapshot.hex(),
        "document": None if version.after is None else msgspec.Raw(shown(version.after).encode()),
        "changes": changes,
    }


def _what(version: Version) -> str:
    if version.snapshot is not None:
        state = "not there" if version.after is None else "as found"
        return f"{state} in snapshot {short(version.snapshot)}"
    words = [version.op]
    if version.after is None and version.op != "delete":
        words.append("took it away")
    elif version.before is None and version.op not in {"insert", "update"}:
        words.append("brought it here")
    if version.transaction:
        words.append("(one of several operations at once)")
    return " ".join(words)


def _change_line(change: FieldChange) -> str:
    if not change.path:
        return "the order of its fields"
    path = _path(change)
    if change.before is None:
        return f"+ {path}: {_value(change.after)}"
    if change.after is None:
        return f"- {path}: {_value(change.before)}"
    return f"~ {path}: {_value(change.before)} -> {_value(change.after)}"


def _change_fields(change: FieldChange) -> Fields:
    return {
        "path": [name.decode("utf-8", "replace") for name in change.path],
        "before": None if change.before is None else _raw(change.before),
        "after": None if change.after is None else _raw(change.after),
    }


def _path(change: FieldChange) -> str:
    return ".".join(printable(name) for name in change.path)


def _raw(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(shown_value(value).encode())


def _value(value: bytes | None) -> str:
    return _cut(shown_value(value or bytes((raw.NULL,))), _VALUE_MAX)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
