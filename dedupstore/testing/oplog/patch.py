"""What an update entry does to a document: the rules of a server, one after the other, nothing saved."""

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value


def patched(document: bytes, o: bytes) -> bytes:
    """Return a document after the update entry ``o``.

    The document may be newer than the entry (a server that catches up meets that): a difference that no
    longer fits leaves null where it meant to go inside a value of another type, as servers do.
    """
    names = [element.name for element in bson.elements(o)]
    if b"_id" in names or not any(name.startswith(b"$") for name in names):
        return o
    version = bson.find(o, b"$v")
    if version is not None and version.raw[0] == 2:
        diff = bson.find(o, b"diff")
        assert diff is not None, "a difference without diff"
        return _document(document, diff.raw)
    value = Value(bson.DOCUMENT, document)
    for element in bson.elements(o):
        for edit in bson.elements(element.raw) if element.type == bson.DOCUMENT else []:
            path = edit.name.split(b".")
            if element.name == b"$set":
                value = _set(value, path, edit.value)
            else:
                assert element.name == b"$unset", f"{element.name!r} is no modifier of the oplog"
                value = _unset(value, path)
    return value.raw


def _document(before: bytes, diff: bytes) -> bytes:
    deletes: set[bytes] = set()
    updates: list[Element] = []
    inserts: list[Element] = []
    inner: dict[bytes, bytes] = {}
    for section in bson.elements(diff):
        if section.name == b"d":
            deletes = {element.name for element in bson.elements(section.raw)}
        elif section.name == b"u":
            updates = bson.elements(section.raw)
        elif section.name == b"i":
            inserts = bson.elements(section.raw)
        else:
            assert section.name[:1] == b"s", f"a difference has no section {section.name!r}"
            inner[section.name[1:]] = section.raw
    new_values = {element.name: element for element in updates}
    moved = {element.name for element in inserts}
    after: list[Element] = []
    for old in bson.elements(before):
        if old.name in deletes or old.name in moved:
            continue
        if old.name in new_values:
            after.append(new_values[old.name])
        elif old.name in inner:
            after.append(Element(old.name, *_inside(old.value, inner[old.name])))
        else:
            after.append(old)
    present = {element.name for element in after}
    after += [element for element in updates if element.name not in present]
    return bson.build(after + inserts)


def _inside(before: Value, diff: bytes) -> Value:
    is_array = bson.elements(diff)[:1] == [Element(b"a", *bson.boolean(True))]
    if before.type != (bson.ARRAY if is_array else bson.DOCUMENT):
        return bson.NOTHING
    return Value(before.type, (_array if is_array else _document)(before.raw, diff))


def _array(before: bytes, diff: bytes) -> bytes:
    values = [element.value for element in bson.elements(before)]
    limit = bson.find(diff, b"l")
    if limit is not None:
        size = int.from_bytes(limit.raw, "little")
        values = values[:size] + [bson.NOTHING] * (size - len(values))
    for element in bson.elements(diff):
        action, index = element.name[:1], element.name[1:]
        if not index:
            continue
        place = int(index)
        missing = place >= len(values)
        values += [bson.NOTHING] * (place + 1 - len(values))
        if action == b"u":
            values[place] = element.value
        else:
            assert action == b"s", f"a difference of arrays has no {element.name!r}"
            values[place] = bson.NOTHING if missing else _inside(values[place], element.raw)
    return bson.numbered(values)


def _set(value: Value, path: list[bytes], new: Value) -> Value:
    """Return a value with something set below it; unchanged if the path leads through a scalar."""
    if not path:
        return new
    name, rest = path[0], path[1:]
    fields = bson.elements(value.raw) if value.type in (bson.DOCUMENT, bson.ARRAY) else []
    if value.type == bson.ARRAY:
        if not name.isdigit():
            return value
        missing = range(len(fields), int(name) + 1)
        fields += [Element(b"%d" % index, bson.NULL, b"") for index in missing]
        old = Value(bson.DOCUMENT, bson.EMPTY) if missing and rest else fields[int(name)].value
        fields[int(name)] = Element(name, *_set(old, rest, new))
        return Value(bson.ARRAY, bson.build(fields))
    if value.type != bson.DOCUMENT:
        return value
    place = next((index for index, field in enumerate(fields) if field.name == name), None)
    if place is None:
        empty = Value(bson.DOCUMENT, bson.EMPTY)
        fields.append(Element(name, *_set(empty, rest, new)))
    else:
        fields[place] = Element(name, *_set(fields[place].value, rest, new))
    return Value(bson.DOCUMENT, bson.build(fields))


def _unset(value: Value, path: list[bytes]) -> Value:
    if value.type not in (bson.DOCUMENT, bson.ARRAY):
        return value
    fields = bson.elements(value.raw)
    for place, field in enumerate(fields):
        if field.name != path[0]:
            continue
        if path[1:]:
            fields[place] = Element(field.name, *_unset(field.value, path[1:]))
        elif value.type == bson.ARRAY:
            fields[place] = Element(field.name, *bson.NOTHING)
        else:
            del fields[place]
        break
    return Value(value.type, bson.build(fields))
