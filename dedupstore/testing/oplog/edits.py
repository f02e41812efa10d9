"""Random changes to a document: paths that operators can reach, or anything at all."""

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.updates import Edit, Path
from dedupstore.testing.oplog.values import PLAIN, Values

_NESTED = (bson.DOCUMENT, bson.ARRAY)


def _addressable(name: bytes) -> bool:
    return bool(name) and b"." not in name and not name.startswith(b"$")


def _reachable(fields: list[Element], taken: frozenset[bytes]) -> list[Element]:
    names = [field.name for field in fields]
    return [f for f in fields if _addressable(f.name) and f.name not in taken and names.count(f.name) == 1]


def _rather_nested(fields: list[Element], chance: Chance) -> list[Element]:
    """Return the documents and arrays among fields, or all of them: half the changes go inside."""
    nested = [field for field in fields if field.type in _NESTED]
    return nested if nested and chance.flip(0.5) else fields


def edits_of(document: bytes, fixed: frozenset[bytes], values: Values, chance: Chance) -> list[Edit]:
    """Return edits on viable paths, none inside another; the fields named ``fixed`` are left alone."""
    edits: dict[Path, Edit] = {}
    for _ in range(chance.pick([1, 1, 1, 2, 3, 4, 6])):
        edit = _edit(Value(bson.DOCUMENT, document), fixed, values, chance)
        if edit is None:
            continue
        path = edit.path
        clash = any(path[: len(other)] == other or other[: len(path)] == path for other in edits)
        if not clash:
            edits[path] = edit
    return list(edits.values())


def _edit(inside: Value, fixed: frozenset[bytes], values: Values, chance: Chance) -> Edit | None:
    """Return one edit somewhere inside a document or array."""
    if inside.type == bson.ARRAY:
        return _array_edit(inside, values, chance)
    fields = bson.elements(inside.raw)
    reachable = _reachable(fields, fixed)
    if not reachable or chance.flip(0.25):
        taken = {field.name for field in fields} | fixed
        fresh = [name for name in PLAIN if name not in taken]
        path = [chance.pick(fresh)] if fresh else []
        while path and chance.flip(0.25):
            path.append(chance.pick(PLAIN))
        return Edit(tuple(path), values.value(len(path))) if path else None
    field = chance.pick(_rather_nested(reachable, chance))
    if field.type in _NESTED and chance.flip(0.7):
        inner = _edit(field.value, frozenset(), values, chance)
        return None if inner is None else Edit((field.name, *inner.path), inner.value)
    return Edit((field.name,), None if chance.flip(0.25) else values.value(1))


def _array_edit(inside: Value, values: Values, chance: Chance) -> Edit | None:
    items = bson.elements(inside.raw)
    if not items or chance.flip(0.35):
        index = len(items) + (0 if chance.flip(0.9) else chance.between(1, 3))
        path: Path = (b"%d" % index,) if chance.flip(0.85) else (b"%d" % index, chance.pick(PLAIN))
        return Edit(path, values.value(2))
    index = chance.below(len(items))
    if items[index].type in _NESTED and chance.flip(0.7):
        inner = _edit(items[index].value, frozenset(), values, chance)
        return None if inner is None else Edit((b"%d" % index, *inner.path), inner.value)
    return Edit((b"%d" % index,), None if chance.flip(0.2) else values.value(2))


def rewritten(document: bytes, fixed: frozenset[bytes], values: Values, chance: Chance) -> bytes:
    """Return what a pipeline may make of a document: anything, but for the ``fixed`` fields."""
    fields = bson.elements(document)
    for _ in range(chance.pick([1, 1, 2, 3, 5])):
        fields = _rewritten_fields(fields, fixed, values, chance)
    return bson.build(fields)


def _rewritten_fields(
    fields: list[Element], fixed: frozenset[bytes], values: Values, chance: Chance
) -> list[Element]:
    fields = list(fields)
    movable = [index for index, field in enumerate(fields) if field.name not in fixed]
    action = chance.pick(["insert", "change", "change", "inside", "inside", "drop", "move"])
    if not movable or action == "insert":
        taken = frozenset(field.name for field in fields) | fixed
        fresh = values.fields(1, 1, taken)
        place = len(fields) if chance.flip(0.6) else chance.between(min(1, len(fields)), len(fields))
        return [*fields[:place], *fresh, *fields[place:]]
    field = chance.pick(_rather_nested([fields[index] for index in movable], chance))
    index = fields.index(field)
    if action == "drop":
        del fields[index]
    elif action == "move":
        del fields[index]
        fields.insert(chance.between(min(1, len(fields)), len(fields)), field)
    elif action == "inside" and field.type == bson.DOCUMENT:
        inner = _rewritten_fields(bson.elements(field.raw), frozenset(), values, chance)
        fields[index] = Element(field.name, field.type, bson.build(inner))
    elif action == "inside" and field.type == bson.ARRAY:
        fields[index] = Element(field.name, field.type, _rewritten_array(field.raw, values, chance))
    else:
        fields[index] = Element(field.name, *values.value(1))
    return fields


def _rewritten_array(raw: bytes, values: Values, chance: Chance) -> bytes:
    items = [element.value for element in bson.elements(raw)]
    action = chance.pick(["cut", "grow", "change", "inside", "inside", "drop", "turn"])
    if not items or action == "grow":
        items += [values.value(2) for _ in range(chance.between(1, 3))]
    elif action == "cut":
        items = items[: chance.below(len(items))]
    elif action == "drop":
        del items[chance.below(len(items))]
    elif action == "turn":
        items.reverse()
    else:
        index = chance.below(len(items))
        item = items[index]
        if action == "inside" and item.type == bson.DOCUMENT:
            inner = _rewritten_fields(bson.elements(item.raw), frozenset(), values, chance)
            items[index] = Value(item.type, bson.build(inner))
        elif action == "inside" and item.type == bson.ARRAY:
            items[index] = Value(item.type, _rewritten_array(item.raw, values, chance))
        else:
            items[index] = values.value(2)
    return bson.numbered(items)
