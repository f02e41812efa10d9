"""Reads ``tests/vectors/oplog``: entries written by hand, what there was before, what must be there after.

The files are JSON. A number is an int32, or a double if it has a point. The other types are ``{"$long": 5}``,
``{"$double": "-0.0"}``, ``{"$decimal": [sign, coefficient, exponent]}``, ``{"$oid": "2 or 24 hex digits"}``,
``{"$uuid": "2 or 32"}``, ``{"$ts": [seconds, increment]}``, ``{"$date": milliseconds}``,
``{"$bin": [subtype, "hex"]}``, ``{"$code": "..."}``, ``{"$symbol": "..."}``, ``{"$regex": ["...", ""]}``,
``{"$ref": ["ns", "oid"]}``, and ``{"$type": number}`` for one without bytes. Names may come twice.

A case has ``entries`` and, by namespace, ``before`` and ``after``: ``uuid``, ``options``, ``indexes`` (not
there: the one on ``_id``), ``documents``, or ``view``. Instead of ``after`` there may be ``refused``, a word
that the error says. ``fuzzy``: the base may be ahead of the entries. ``engine``: only the real one knows it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Value
from dedupstore.testing.oplog.fuzzy import Base, Scanned
from dedupstore.testing.oplog.identity import id_of, identity
from dedupstore.testing.oplog.indexes import id_index
from dedupstore.testing.oplog.model import Collection, Described, Meta, raw_id

FOLDER = Path(__file__).parent.parent / "vectors" / "oplog"


class Pairs(list[tuple[str, Any]]):
    """A JSON object."""

    def get(self, name: str, default: Any = None) -> Any:
        return next((value for key, value in self if key == name), default)


@dataclass(frozen=True)
class Case:
    name: str
    base: Base
    entries: list[bytes]
    after: Described | None
    refused: str
    fuzzy: bool
    engine: bool


def cases() -> Iterator[Case]:
    for path in sorted(FOLDER.glob("*.json")):
        for case in json.loads(path.read_text("utf-8"), object_pairs_hook=Pairs):
            yield _case(f"{path.stem}: {case.get('case')}", case)


def _case(name: str, case: Pairs) -> Case:
    known = {"case", "before", "entries", "after", "refused", "fuzzy", "engine"}
    assert {key for key, _ in case} <= known, name
    before = _described(case.get("before", Pairs()))
    scanned = [
        Scanned(Meta(*place, found.uuid, found.options, found.indexes), list(found.documents.values()))
        for place, found in before.items()
        if found.kind == "collection"
    ]
    views = {place: found.options for place, found in before.items() if found.kind == "view"}
    entries = [document_of(entry) for entry in case.get("entries")]
    after = case.get("after")
    return Case(
        name,
        Base(0, -1, -1, tuple(scanned), views),
        entries,
        None if after is None else _described(after),
        case.get("refused", ""),
        case.get("fuzzy", False),
        case.get("engine", False),
    )


def _described(places: Pairs) -> Described:
    found: Described = {}
    for namespace, facts in places:
        db, _, name = namespace.partition(".")
        view = facts.get("view")
        if view is not None:
            found[db, name] = Collection("view", b"", document_of(view), (), {})
            continue
        indexes = facts.get("indexes")
        specs = (id_index(None),) if indexes is None else tuple(document_of(spec) for spec in indexes)
        documents = [document_of(document) for document in facts.get("documents", [])]
        if facts.get("options", Pairs()).get("capped") is None:
            documents.sort(key=lambda document: identity(id_of(document)))
        by_id = {raw_id(document): document for document in documents}
        options = document_of(facts.get("options", Pairs()))
        kind = facts.get("kind", "collection")
        found[db, name] = Collection(kind, repeated(facts.get("uuid", ""), 16), options, specs, by_id)
    return found


def repeated(digits: str, size: int) -> bytes:
    data = bytes.fromhex(digits)
    return data * (size // len(data)) if data else b""


def document_of(pairs: Pairs) -> bytes:
    return bson.build((name.encode(), *value_of(value)) for name, value in pairs)


def value_of(found: Any) -> Value:
    if isinstance(found, Pairs):
        if len(found) == 1 and found[0][0] in _TYPES:
            return _TYPES[found[0][0]](found[0][1])
        return Value(bson.DOCUMENT, document_of(found))
    if isinstance(found, list):
        return bson.array([value_of(item) for item in found])
    if isinstance(found, str):
        return bson.string(found)
    if isinstance(found, bool):
        return bson.boolean(found)
    if isinstance(found, float):
        return bson.double(found)
    return bson.NOTHING if found is None else bson.int32(found)


_TYPES = {
    "$long": bson.int64,
    "$double": lambda text: bson.double(float(text)),
    "$decimal": lambda parts: bson.decimal(*parts),
    "$oid": lambda digits: Value(bson.OBJECT_ID, repeated(digits, 12)),
    "$uuid": lambda digits: bson.uuid(repeated(digits, 16)),
    "$ts": lambda parts: bson.timestamp(*parts),
    "$date": bson.date,
    "$bin": lambda parts: bson.binary(bytes.fromhex(parts[1]), parts[0]),
    "$type": lambda kind: Value(kind, b""),
    "$code": lambda text: bson.string(text, bson.CODE),
    "$symbol": lambda text: bson.string(text, bson.SYMBOL),
    "$regex": lambda parts: Value(bson.REGEX, parts[0].encode() + b"\0" + parts[1].encode() + b"\0"),
    "$ref": lambda parts: Value(bson.POINTER, bson.string(parts[0]).raw + repeated(parts[1], 12)),
}
