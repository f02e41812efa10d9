"""Updates as a log has them, applied to raw documents byte by byte.

Three forms: a whole new document; since 5.0 a difference ``{$v: 2, diff: D}``; before that modifiers
``{$v: 1, $set, $unset}`` (see `modifiers`). What has ``_id`` is a document, whatever else is in it.

::

    D       = {d: {name: false}, u: {name: value}, i: {name: value}, (s<name>: D | A)*}    in this order
    A       = {a: true, l: length, (u<index>: value | s<index>: D | A)*}

``d`` removes a field. ``u`` replaces it where it stands, and appends it if it is gone. ``i`` removes every
field of that name and appends. ``s`` goes into a document or an array; a value of another type becomes null,
a missing one stays missing. ``l`` cuts an array or fills it with null, as does an index behind its end.
Elements of a touched array are named by their positions; everything not mentioned keeps its bytes. Fields
are appended in the order of the difference, those of ``u`` before those of ``i``.

Another section, among them ``b`` (changes inside binary columns of time series), is refused by name.

Pure functions. Memory: the document before and after. Raises `SourceError` without saying where in the log:
whoever has the entry adds that.
"""

from typing import Final, NamedTuple, TypeAlias

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.modifiers import apply_modifiers, check_modifiers

REMOVE: Final = 0
REPLACE: Final = 1
APPEND: Final = 2
NESTED: Final = 3

ELEMENTS_MAX = raw.DOCUMENT_MAX // 8
"""No array has more: the names alone of so many elements would not fit into a document."""
_ORDER = {b"d": 1, b"u": 2, b"i": 3}
_NULL = bytes((raw.NULL,))
_V2 = b"\x10$v\0\x02\0\0\0\x03diff\0"
"""How a difference begins behind its length."""
_V2_END = 4 + len(_V2)


class DocumentDiff(NamedTuple):
    """What happens to the fields of a document."""

    fields: "dict[bytes, Step]"
    """By name: `REMOVE`; `REPLACE` or `APPEND` with type byte and raw value; `NESTED` with a difference."""


class ArrayDiff(NamedTuple):
    """What happens to the elements of an array."""

    length: int | None
    """What the array is cut or filled to; ``None``: nothing of the kind."""
    elements: "dict[int, Step]"
    """By position: `REPLACE` with type byte and raw value, or `NESTED` with a difference."""


Nested: TypeAlias = DocumentDiff | ArrayDiff
Step: TypeAlias = tuple[int, bytes | Nested]
"""What happens, and its value or difference."""


def is_document(update: bytes) -> bool:
    """Say whether the ``o`` of an update is the whole new document."""
    if update.startswith(_V2, 4) and raw.document_at(update, _V2_END) + 1 == len(update):
        return False
    return raw.field(update, b"_id") is not None


def difference_in(update: bytes) -> bytes | None:
    """Return the difference in the ``o`` of an update; ``None`` if it has modifiers instead.

    Raises `SourceError` for anything else, by name.
    """
    if update.startswith(_V2, 4):
        end = raw.document_at(update, _V2_END)
        if end + 1 == len(update):
            return update[_V2_END:end]
    found = {name: (kind, start, end) for name, kind, start, end in raw.elements(update)}
    version = found.get(b"$v")
    number = 1 if version is None else raw.int_of(version[0], update[version[1] : version[2]])
    if number == 2 and found.keys() == {b"$v", b"diff"}:
        kind, start, end = found[b"diff"]
        if kind == raw.OBJECT:
            return update[start:end]
    if number == 1:
        check_modifiers(update)
        return None
    raise _refused(f"has version {number} and the fields {', '.join(_names(update))}")


def parse_diff(difference: bytes) -> DocumentDiff:
    """Take a document's difference apart, all levels of it. Raises `SourceError` for what is not known."""
    return _parse_document(difference, 0, 1)


def check_update(update: bytes) -> None:
    """Raise `SourceError` unless an update that is no whole document can be applied to some document."""
    difference = difference_in(update)
    if difference is not None:
        parse_diff(difference)


def apply_update(document: bytes | None, update: bytes) -> bytes:
    """Return the document after an update, which is the ``o`` of its entry.

    ``document`` counts only for differences and modifiers; ``None``: there is none. Raises `SourceError` if
    they have nothing to work on, and for whatever can not be applied.
    """
    if is_document(update):
        return update
    if document is None:
        raise SourceError("an update changes a document that is not there: take a new snapshot")
    difference = difference_in(update)
    return (
        apply_modifiers(document, update)
        if difference is None
        else apply_diff(document, parse_diff(difference))
    )


def apply_diff(document: bytes, diff: DocumentDiff) -> bytes:
    """Return the document after a difference."""
    end = raw.document_at(document, 0)
    if end != len(document):
        raise raw.damaged(end, "has bytes behind the document")
    after = _apply_document(document, 0, end, diff)
    if len(after) > raw.DOCUMENT_MAX:
        raise _refused(f"makes a document of {len(after)} bytes")
    return after


def apply_value(value: bytes, diff: Nested) -> bytes:
    """Return a value (type byte, raw value) after a difference that goes into it."""
    kind, document = value[0], value[1:]
    if kind == raw.OBJECT and isinstance(diff, DocumentDiff):
        return b"\x03" + _apply_document(document, 0, len(document), diff)
    if kind == raw.ARRAY and isinstance(diff, ArrayDiff):
        return b"\x04" + _apply_array(document, 0, diff)
    return _NULL


def _apply_document(data: bytes, start: int, end: int, diff: DocumentDiff) -> bytes:
    """Return the document at ``data[start:end]`` after a difference."""
    parts: list[bytes] = []
    there: set[bytes] = set()
    fields = diff.fields
    kept = at = start + 4
    for name, kind, value, following in raw.elements(data, start):
        change = fields.get(name)
        if change is not None:
            what, payload = change
            parts.append(data[kept:at])
            kept = following
            if what == REPLACE:
                parts.append(_element(name, payload))
                there.add(name)
            elif what == NESTED:
                parts.append(_element(name, _apply_nested(data, kind, value, following, payload)))
        at = following
    parts.append(data[kept : end - 1])
    if len(there) < len(fields):
        for wanted in (REPLACE, APPEND):
            for name, (what, payload) in fields.items():
                if what == wanted and name not in there:
                    parts.append(_element(name, payload))
    return raw.framed(b"".join(parts))


def _apply_array(data: bytes, start: int, diff: ArrayDiff) -> bytes:
    """Return the array at ``data[start:]`` after a difference."""
    parts: list[bytes] = []
    length, changes = diff.length, diff.elements
    index, kept, at = 0, start + 4, start + 4
    for name, kind, value, following in raw.elements(data, start):
        if index == length:
            break
        position = b"%d" % index
        change = changes.get(index)
        if change is not None or name != position:
            parts.append(data[kept:at])
            kept = following
            if change is None:
                new: bytes | Nested = b"%c%b" % (kind, data[value:following])
            elif change[0] == REPLACE:
                new = change[1]
            else:
                new = _apply_nested(data, kind, value, following, change[1])
            parts.append(_element(position, new))
        at = following
        index += 1
    parts.append(data[kept:at])
    upto = length if length is not None else max(changes, default=-1) + 1
    for behind in range(index, upto):
        change = changes.get(behind)
        new = change[1] if change is not None and change[0] == REPLACE else _NULL
        parts.append(_element(b"%d" % behind, new))
    return raw.framed(b"".join(parts))


def _apply_nested(data: bytes, kind: int, start: int, end: int, diff: bytes | Nested) -> bytes:
    if kind == raw.OBJECT and isinstance(diff, DocumentDiff):
        return b"\x03" + _apply_document(data, start, end, diff)
    if kind == raw.ARRAY and isinstance(diff, ArrayDiff):
        return b"\x04" + _apply_array(data, start, diff)
    return _NULL


def _element(name: bytes, value: bytes | Nested) -> bytes:
    assert isinstance(value, bytes)
    return b"%b%b\0%b" % (value[:1], name, value[1:])


def _parse_document(data: bytes, start: int, depth: int) -> DocumentDiff:
    if depth > raw.NESTING_MAX:
        raise _refused(f"nests its difference more than {raw.NESTING_MAX} deep")
    fields: dict[bytes, Step] = {}
    before = 0
    for section, kind, at, _ in raw.elements(data, start):
        order = _ORDER.get(section, 4 if section.startswith(b"s") else 0)
        if not order:
            raise _refused(
                f"has the operator {printable(section)!r}{' (a binary difference)' * (section == b'b')}"
            )
        if kind != raw.OBJECT or order < max(before, 1) or order == before != 4:
            raise _refused(f"has the operator {printable(section)!r} where it does not belong")
        before = order
        if order == 4:
            _put(fields, section[1:], (NESTED, _parse_nested(data, at, depth + 1)))
            continue
        for name, of_type, value, end in raw.elements(data, at):
            _put(fields, name, (order - 1, b"" if order == 1 else b"%c%b" % (of_type, data[value:end])))
    return DocumentDiff(fields)


def _put(fields: dict[bytes, Step], name: bytes, change: Step) -> None:
    if name in fields:
        raise _refused(f"changes the field {printable(name)!r} twice")
    fields[name] = change


def _parse_nested(data: bytes, start: int, depth: int) -> Nested:
    if data[start + 4 : start + 7] == b"\x08a\0":
        return _parse_array(data, start, depth)
    return _parse_document(data, start, depth)


def _parse_array(data: bytes, start: int, depth: int) -> ArrayDiff:
    if depth > raw.NESTING_MAX:
        raise _refused(f"nests its difference more than {raw.NESTING_MAX} deep")
    length: int | None = None
    changes: dict[int, Step] = {}
    for number, (name, kind, value, end) in enumerate(raw.elements(data, start)):
        if not number:
            if data[value] != 1:
                raise _refused("has an array's difference that says it is none")
            continue
        if name == b"l" and number == 1 and kind == raw.INT32:
            length = raw.int_of(kind, data[value:end])
            if not 0 <= length <= ELEMENTS_MAX:
                raise _refused(f"cuts an array to {length} elements")
            continue
        index = _index(name[1:])
        if name[:1] == b"u":
            changes[index] = (REPLACE, b"%c%b" % (kind, data[value:end]))
        elif name[:1] == b"s" and kind == raw.OBJECT:
            changes[index] = (NESTED, _parse_nested(data, value, depth + 1))
        else:
            raise _refused(f"has the operator {printable(name)!r} in an array")
        if length is not None and index >= length:
            raise _refused(f"changes element {index} of an array that it cuts to {length}")
    return ArrayDiff(length, changes)


def _index(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 8 or int(digits) > ELEMENTS_MAX:
        raise _refused(f"changes the element {printable(digits)!r} of an array")
    return int(digits)


def _names(update: bytes) -> list[str]:
    return [printable(name) for name, _, _, _ in raw.elements(update)]


def _refused(how: str) -> SourceError:
    return SourceError(
        f"an update {how}, which this version can not apply: take a new snapshot, or use a newer dstore"
    )
