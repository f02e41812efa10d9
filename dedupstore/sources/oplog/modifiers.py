"""Updates as servers from 3.6 to 4.4 log them: ``{$v: 1, $set: {path: value}, $unset: {path: true}}``.

A path is names with dots between; in an array a name is a position. The rules are the server's for
updates that come from the log:

* Paths are taken in order of their names, positions as numbers: that is the order of fields appended.
* Documents on the way that are missing are made by ``$set``; ``$unset`` makes nothing.
* A position behind an array's end fills it up with null. An unset element becomes null.
* A path that leads into a value that is neither document nor array, or by a name into an array, does
  nothing: the update is seen a second time, and what it meant has been overwritten since.
* Of several fields of one name the first is meant.

Any operator but these two is refused by name. Pure functions.
"""

from functools import cmp_to_key
from typing import TypeAlias

from dedupstore.errors import SourceError
from dedupstore.findings import printable
from dedupstore.sources.bson import raw

Tree: TypeAlias = "dict[bytes, bytes | Tree]"
"""By name or position what happens there: a value is set (type byte, raw value), unset (``b""``), or more."""

_NULL = bytes((raw.NULL,))
_UNSET = b""
_ELEMENTS_MAX = raw.DOCUMENT_MAX // 8


def check_modifiers(update: bytes) -> None:
    """Raise `SourceError` unless an update consists of modifiers that are known."""
    _tree_of(update)


def apply_modifiers(document: bytes, update: bytes) -> bytes:
    """Return the document after an update. Raises `SourceError` for what can not be applied."""
    after = _apply_document(document, 0, len(document), _tree_of(update))
    if len(after) > raw.DOCUMENT_MAX:
        raise _refused(f"makes a document of {len(after)} bytes")
    return after


def paths_of(update: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return pairs of operator and path, in order; an update that has those of another undoes all it did."""
    return tuple(
        (operator, path)
        for operator, kind, start, _ in raw.elements(update)
        if kind == raw.OBJECT
        for path, _, _, _ in raw.elements(update, start)
    )


def _tree_of(update: bytes) -> Tree:
    tree: Tree = {}
    for operator, kind, start, _ in raw.elements(update):
        if operator == b"$v":
            continue
        if operator not in {b"$set", b"$unset"} or kind != raw.OBJECT:
            raise _refused(f"has the operator {printable(operator)!r}")
        for path, of_type, value, end in raw.elements(update, start):
            _plant(tree, path, b"%c%b" % (of_type, update[value:end]) if operator == b"$set" else _UNSET)
    if not tree:
        raise _refused("has nothing to do in it")
    return _sorted(tree)


def _plant(tree: Tree, path: bytes, value: bytes) -> None:
    *way, last = path.split(b".")
    if len(way) >= raw.NESTING_MAX:
        raise _refused("goes deeper than documents are")
    for name in way:
        below = tree.setdefault(name, {})
        if isinstance(below, bytes):
            raise _refused(f"changes {printable(path)!r} twice")
        tree = below
    if last in tree:
        raise _refused(f"changes {printable(path)!r} twice")
    tree[last] = value


def _compare(left: bytes, right: bytes) -> int:
    if len(left) != len(right) and _is_number(left) and _is_number(right):
        return len(left) - len(right)
    return (left > right) - (left < right)


def _is_number(name: bytes) -> bool:
    """Say whether the server compares this name by its length: it begins like a number."""
    return name[:1].isdigit() and (name[:1] != b"0" or name == b"0")


_IN_ORDER = cmp_to_key(_compare)


def _sorted(tree: Tree) -> Tree:
    return {
        name: below if isinstance(below, bytes) else _sorted(below)
        for name, below in sorted(tree.items(), key=lambda item: _IN_ORDER(item[0]))
    }


def _apply_document(data: bytes, start: int, end: int, tree: Tree) -> bytes:
    parts: list[bytes] = []
    left = dict(tree)
    kept = at = start + 4
    for name, kind, value, following in raw.elements(data, start):
        change = left.pop(name, None)
        if change is not None:
            parts.append(data[kept:at])
            kept = following
            new = _changed(data, kind, value, following, change)
            if new:
                parts.append(_element(name, new))
        at = following
    parts.append(data[kept : end - 1])
    for name, change in left.items():
        new = _created(change)
        if new:
            parts.append(_element(name, new))
    return raw.framed(b"".join(parts))


def _apply_array(data: bytes, start: int, tree: Tree) -> bytes:
    values = [bytes((kind,)) + data[value:end] for _, kind, value, end in raw.elements(data, start)]
    for name, change in tree.items():
        if not name.isdigit() or len(name) > 8:
            continue
        index = int(name)
        if index < len(values):
            old = values[index]
            values[index] = _changed(old, old[0], 1, len(old), change) or _NULL
            continue
        new = _created(change)
        if new:
            if index > _ELEMENTS_MAX:
                raise _refused(f"fills an array up to element {index}")
            values += [_NULL] * (index - len(values))
            values.append(new)
    return raw.array((value[0], value[1:]) for value in values)


def _changed(data: bytes, kind: int, start: int, end: int, change: "bytes | Tree") -> bytes:
    """Return what a value (type byte, raw value) becomes; ``b""``: it is unset."""
    if isinstance(change, bytes):
        return change
    if kind == raw.OBJECT:
        return b"\x03" + _apply_document(data, start, end, change)
    if kind == raw.ARRAY:
        return b"\x04" + _apply_array(data, start, change)
    return b"%c%b" % (kind, data[start:end])


def _created(change: "bytes | Tree") -> bytes:
    """Return what appears where there was nothing; ``b""``: nothing does."""
    if isinstance(change, bytes):
        return change
    fields = [(name, _created(below)) for name, below in change.items()]
    made = [_element(name, value) for name, value in fields if value]
    return b"\x03" + raw.framed(b"".join(made)) if made else b""


def _element(name: bytes, value: bytes) -> bytes:
    return b"%b%b\0%b" % (value[:1], name, value[1:])


def _refused(how: str) -> SourceError:
    return SourceError(
        f"an update {how}, which this version can not apply: take a new snapshot, or use a newer dstore"
    )
