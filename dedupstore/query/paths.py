"""Dotted paths into documents, the two ways MongoDB follows them.

A filter's path fans out over arrays (`reached`): it may end at many places, numbers in it are positions too,
and where it ends at an array each item and the array itself are meant. An expression's path (`along`) maps
over arrays and knows no positions. Pure functions.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.values import KIND, MISSING, Value, array_value
from dedupstore.sources.bson import raw

Path: TypeAlias = tuple[bytes, ...]

LONGEST = 200
"""Names in a path; MongoDB has the same limit."""


@lru_cache(1024)
def split(text: bytes) -> Path:
    """Return the names in a dotted path; raises `QueryError` for one that is too long."""
    path = tuple(text.split(b"."))
    if len(path) > LONGEST:
        raise QueryError(Failure.Overflow, f"FieldPath is too long: at most {LONGEST} names")
    return path


def shown(path: Path) -> str:
    """Return a path for messages."""
    return b".".join(path).decode("utf-8", "backslashreplace")


def position(name: bytes) -> int | None:
    """Return the place in an array that a name means; None if it means none."""
    if not name.isdigit() or len(name) > 9 or (name[0] == 0x30 and len(name) > 1):
        return None
    return int(name)


def reached(doc: bytes, path: Path, *, expand: bool) -> Iterator[Value]:
    """Yield what a filter's path leads to; `MISSING` where it leads nowhere.

    With ``expand`` an array at the end gives its items, then itself; an item that a number in the path
    leads to is never taken apart.
    """
    return _in_document(doc, 0, path, 0, expand)


def _in_document(doc: bytes, start: int, path: Path, at: int, expand: bool) -> Iterator[Value]:
    found = raw.seek(doc, path[at], start)
    if found is None:
        yield MISSING
        return
    kind, value, end = found
    if at + 1 == len(path):
        if expand and kind == raw.ARRAY:
            for element in raw.elements(doc, value):
                yield KIND[element.type] + doc[element.start : element.end]
        yield KIND[kind] + doc[value:end]
    elif kind == raw.OBJECT:
        yield from _in_document(doc, value, path, at + 1, expand)
    elif kind == raw.ARRAY:
        yield from _in_array(doc, value, path, at + 1, expand)
    else:
        yield MISSING


def _in_array(doc: bytes, start: int, path: Path, at: int, expand: bool) -> Iterator[Value]:
    wanted = position(path[at])
    last = at + 1 == len(path)
    for number, element in enumerate(raw.elements(doc, start)):
        is_document = element.type == raw.OBJECT
        if is_document:
            yield from _in_document(doc, element.start, path, at, expand)
        if number != wanted:
            continue
        if last:
            yield KIND[element.type] + doc[element.start : element.end]
        elif is_document:
            yield from _in_document(doc, element.start, path, at + 1, expand)
        elif element.type == raw.ARRAY:
            yield from _in_array(doc, element.start, path, at + 1, expand)


def along(doc: bytes, path: Path, start: int = 0, at: int = 0) -> Value:
    """Return what an expression's path leads to; over arrays, an array of what is in the items."""
    found = raw.seek(doc, path[at], start)
    if found is None:
        return MISSING
    kind, value, end = found
    if at + 1 == len(path):
        return KIND[kind] + doc[value:end]
    if kind == raw.OBJECT:
        return along(doc, path, value, at + 1)
    if kind != raw.ARRAY:
        return MISSING
    inside = [
        along(doc, path, element.start, at + 1)
        for element in raw.elements(doc, value)
        if element.type == raw.OBJECT
    ]
    return array_value(one for one in inside if one)
