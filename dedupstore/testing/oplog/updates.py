"""What an update makes of a document, and how a server logs it.

Two ways lead to an entry. *Operators* (``$set``, ``$unset``, ``$push``) touch paths; what they did is
logged as a ``$v: 2`` difference built on the way, or by old servers as ``$v: 1`` modifiers. A *pipeline*
makes any document of any; the server compares before and after. Either way the document after the update
comes from what was asked, never from the difference.
"""

from collections.abc import Sequence
from functools import cmp_to_key
from typing import NamedTuple

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value

Path = tuple[bytes, ...]


class Edit(NamedTuple):
    """One path that an operator sets, or with no value unsets."""

    path: Path
    value: Value | None


class Outcome(NamedTuple):
    """A document (or array) after some edits, and what was logged of them."""

    raw: bytes
    diff: bytes | None
    """The ``$v: 2`` difference; ``None`` if nothing changed."""
    modifiers: tuple[Edit, ...]
    """The same for ``$v: 1``: the paths in the order they were applied."""


def _compare_parts(left: bytes, right: bytes) -> int:
    if left.isdigit() and right.isdigit() and len(left) != len(right):
        return len(left) - len(right)
    return (left > right) - (left < right)


_PART_ORDER = cmp_to_key(_compare_parts)


def in_server_order(edits: Sequence[Edit]) -> list[Edit]:
    """Sort edits as a server applies them: by path, array indexes as numbers."""
    return sorted(edits, key=lambda edit: [_PART_ORDER(part) for part in edit.path])


def _grouped(edits: Sequence[Edit]) -> dict[bytes, list[Edit]]:
    groups: dict[bytes, list[Edit]] = {}
    for edit in edits:
        groups.setdefault(edit.path[0], []).append(Edit(edit.path[1:], edit.value))
    return groups


def _created(edits: Sequence[Edit]) -> Value | None:
    """Return the value that edits below a path make where there was nothing."""
    if not edits[0].path:
        return edits[0].value
    parts = []
    for name, group in _grouped(edits).items():
        made = _created(group)
        if made is not None:
            parts.append(Element(name, *made))
    return Value(bson.DOCUMENT, bson.build(parts)) if parts else None


def _below(name: bytes, edits: Sequence[Edit]) -> list[Edit]:
    return [Edit((name, *edit.path), edit.value) for edit in edits]


def _sections(sections: dict[str, list[Element]], nested: Sequence[Element]) -> bytes | None:
    parts = [
        Element(name.encode(), bson.DOCUMENT, bson.build(fields))
        for name, fields in sections.items()
        if fields
    ]
    return bson.build([*parts, *nested]) if parts or nested else None


def modify(raw: bytes, edits: Sequence[Edit]) -> Outcome:
    """Apply edits in server order to a document; their paths must be viable and none inside another."""
    fields = bson.elements(raw)
    places = {element.name: index for index, element in enumerate(fields)}
    gone: set[int] = set()
    sections: dict[str, list[Element]] = {"d": [], "u": [], "i": []}
    nested: list[Element] = []
    modifiers: list[Edit] = []
    for name, group in _grouped(edits).items():
        place = places.get(name)
        old = None if place is None else fields[place]
        if old is None or place is None:
            made = _created(group)
            if made is not None:
                fields.append(Element(name, *made))
                sections["i"].append(fields[-1])
                modifiers += _below(name, [edit for edit in group if edit.value is not None])
        elif group[0].path:
            inner = (modify if old.type == bson.DOCUMENT else modify_array)(old.raw, group)
            if inner.diff is not None:
                fields[place] = Element(name, old.type, inner.raw)
                nested.append(Element(b"s" + name, bson.DOCUMENT, inner.diff))
                modifiers += _below(name, inner.modifiers)
        elif group[0].value is None:
            gone.add(place)
            sections["d"].append(Element(name, *bson.boolean(False)))
            modifiers.append(Edit((name,), None))
        elif group[0].value != old.value:
            fields[place] = Element(name, *group[0].value)
            sections["u"].append(fields[place])
            modifiers.append(Edit((name,), group[0].value))
    after = bson.build(field for index, field in enumerate(fields) if index not in gone)
    return Outcome(after, _sections(sections, nested), tuple(modifiers))


def modify_array(raw: bytes, edits: Sequence[Edit]) -> Outcome:
    """Do as `modify` does to an array; the first part of every path is an index."""
    values = [element.value for element in bson.elements(raw)]
    logged: list[Element] = []
    modifiers: list[Edit] = []
    for name, group in _grouped(edits).items():
        index = int(name)
        if group[0].path and index < len(values):
            old = values[index]
            inner = (modify if old.type == bson.DOCUMENT else modify_array)(old.raw, group)
            if inner.diff is not None:
                values[index] = Value(old.type, inner.raw)
                logged.append(Element(b"s" + name, bson.DOCUMENT, inner.diff))
                modifiers += _below(name, inner.modifiers)
            continue
        made = _created(group)
        if made is None and index >= len(values):
            continue
        made = made or bson.NOTHING
        if index < len(values) and values[index] == made:
            continue
        values += [bson.NOTHING] * (index + 1 - len(values))
        values[index] = made
        logged.append(Element(b"u" + name, *made))
        set_below = [edit for edit in group if edit.path and edit.value is not None]
        modifiers += _below(name, set_below or [Edit((), made)])
    diff = bson.build([Element(b"a", *bson.boolean(True)), *logged]) if logged else None
    return Outcome(bson.numbered(values), diff, tuple(modifiers))


def modifier_entry(modifiers: Sequence[Edit]) -> bytes:
    """Return the ``o`` of servers up to 4.4: ``$v: 1`` with ``$set`` and ``$unset``."""
    sets = [Element(b".".join(edit.path), *edit.value) for edit in modifiers if edit.value is not None]
    unsets = [Element(b".".join(e.path), *bson.boolean(True)) for e in modifiers if e.value is None]
    parts = [Element(b"$v", *bson.int32(1))]
    if unsets and modifiers[0].value is None:
        parts.append(Element(b"$unset", bson.DOCUMENT, bson.build(unsets)))
        unsets = []
    if sets:
        parts.append(Element(b"$set", bson.DOCUMENT, bson.build(sets)))
    if unsets:
        parts.append(Element(b"$unset", bson.DOCUMENT, bson.build(unsets)))
    return bson.build(parts)


def difference_entry(diff: bytes) -> bytes:
    """Return the ``o`` of servers from 5.0 on: ``$v: 2`` with a difference."""
    return bson.document({"$v": bson.int32(2), "diff": Value(bson.DOCUMENT, diff)})


def difference(before: bytes, after: bytes) -> bytes | None:
    """Return the ``$v: 2`` difference of two documents, as a server compares them.

    ``None`` if the difference would be no smaller than the document. No name may come twice in either.
    """
    old, new = bson.elements(before), bson.elements(after)
    sections: dict[str, list[Element]] = {"d": [], "u": [], "i": []}
    nested: list[Element] = []
    missed: list[bytes] = []
    at = seen = 0
    while at < len(old) and seen < len(new):
        left, right = old[at], new[seen]
        if left.name != right.name:
            missed.append(left.name)
            at += 1
            continue
        if left != right:
            inner = _inner(left.value, right.value)
            if inner is None:
                sections["u"].append(right)
            else:
                nested.append(Element(b"s" + left.name, bson.DOCUMENT, inner))
        at += 1
        seen += 1
    sections["i"] = new[seen:]
    back = {element.name for element in sections["i"]}
    dropped = [element.name for element in old[at:]] + sorted(name for name in missed if name not in back)
    sections["d"] = [Element(name, *bson.boolean(False)) for name in dropped]
    diff = _sections(sections, nested) or bson.EMPTY
    return diff if len(diff) < len(after) else None


def _inner(left: Value, right: Value) -> bytes | None:
    if left.type != right.type or left.type not in (bson.DOCUMENT, bson.ARRAY):
        return None
    return (difference if left.type == bson.DOCUMENT else array_difference)(left.raw, right.raw)


def array_difference(before: bytes, after: bytes) -> bytes | None:
    """Do as `difference` does with two arrays."""
    old, new = bson.elements(before), bson.elements(after)
    parts = [Element(b"a", *bson.boolean(True))]
    if len(old) > len(new):
        parts.append(Element(b"l", *bson.int32(len(new))))
    for index, right in enumerate(new):
        left = old[index].value if index < len(old) else None
        if left == right.value:
            continue
        inner = None if left is None else _inner(left, right.value)
        if inner is None:
            parts.append(Element(b"u%d" % index, *right.value))
        else:
            parts.append(Element(b"s%d" % index, bson.DOCUMENT, inner))
    diff = bson.build(parts)
    return diff if len(diff) < len(after) else None


def has_twins(raw: bytes, kind: int = bson.DOCUMENT) -> bool:
    """Whether a name comes twice in a document, at any depth."""
    fields = bson.elements(raw)
    if kind == bson.DOCUMENT and len({field.name for field in fields}) < len(fields):
        return True
    return any(has_twins(f.raw, f.type) for f in fields if f.type in (bson.DOCUMENT, bson.ARRAY))
