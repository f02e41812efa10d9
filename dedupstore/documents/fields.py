"""What changed between two versions of a document, field by field. Pure.

A field goes by its name and, where a name occurs twice, by which of them it is; an element of an array by its
position, after what both have at the front and at the back is set aside. Memory: the changes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from dedupstore.sources.bson import raw

Value: TypeAlias = bytes
"""Type byte and raw value."""
Path: TypeAlias = tuple[bytes, ...]


class FieldChange(NamedTuple):
    """One field that is not what it was."""

    path: Path
    """Names from the outside in; empty: the order of the fields is all that changed."""
    before: Value | None
    """``None``: it was not there."""
    after: Value | None
    """``None``: it is gone."""


def changed_fields(before: bytes, after: bytes) -> Iterator[FieldChange]:
    """Yield what differs between two raw documents, in order of the first one, then what the second adds.

    Raises `SourceError` for what is no BSON.
    """
    if before == after:
        return
    found = False
    for change in _in_document(before, after, ()):
        found = True
        yield change
    if not found:
        yield FieldChange((), b"\x03" + before, b"\x03" + after)


def _in_document(before: bytes, after: bytes, path: Path) -> Iterator[FieldChange]:
    old, new = _fields(before), _fields(after)
    for key, value in old.items():
        yield from _between(value, new.get(key), (*path, key[0]))
    for key, value in new.items():
        if key not in old:
            yield FieldChange((*path, key[0]), None, value)


def _between(before: Value, after: Value | None, path: Path) -> Iterator[FieldChange]:
    if before == after:
        return
    kind = before[0]
    if after is None or after[0] != kind or kind not in {raw.OBJECT, raw.ARRAY}:
        yield FieldChange(path, before, after)
        return
    inside = _in_document if kind == raw.OBJECT else _in_array
    found = False
    for change in inside(before[1:], after[1:], path):
        found = True
        yield change
    if not found:  # the same fields in another order
        yield FieldChange(path, before, after)


def _in_array(before: bytes, after: bytes, path: Path) -> Iterator[FieldChange]:
    old, new = _values(before), _values(after)
    front = _same(old, new)
    back = _same(old[front:][::-1], new[front:][::-1])
    olds, news = range(front, len(old) - back), range(front, len(new) - back)
    if len(olds) == len(news):
        for index in olds:
            yield from _between(old[index], new[index], (*path, b"%d" % index))
        return
    for index in olds:
        yield FieldChange((*path, b"%d" % index), old[index], None)
    for index in news:
        yield FieldChange((*path, b"%d" % index), None, new[index])


def _same(one: Sequence[Value], other: Sequence[Value]) -> int:
    """Return how many values two lists have in common at the front."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _fields(document: bytes) -> dict[tuple[bytes, int], Value]:
    seen: Counter[bytes] = Counter()
    found = {}
    for name, kind, start, end in raw.elements(document):
        found[name, seen[name]] = bytes((kind,)) + document[start:end]
        seen[name] += 1
    return found


def _values(array: bytes) -> list[Value]:
    return [bytes((kind,)) + array[start:end] for _, kind, start, end in raw.elements(array)]
