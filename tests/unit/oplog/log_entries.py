"""Documents from Python values, and entries of a log made of them, shaped as a server's."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.catalog import Catalog
from dedupstore.sources.oplog.collapse import collapse
from dedupstore.sources.oplog.collapsed import Collapsed
from dedupstore.sources.oplog.position import Ts

A, B, C = (bytes((number,)) * 16 for number in (0xA1, 0xB2, 0xC3))
"""UUIDs."""


class Typed(NamedTuple):
    """A value that Python has no word for."""

    type: int
    raw: bytes


def long(number: int) -> Typed:
    return Typed(raw.INT64, raw.int64(number))


def uuid(data: bytes) -> Typed:
    return Typed(raw.BINARY, raw.binary(data, 4))


def value(of: Any) -> tuple[int, bytes]:
    if isinstance(of, Typed):
        return of.type, of.raw
    if isinstance(of, Ts):
        return raw.TIMESTAMP, of.raw()
    if isinstance(of, bytes):
        return raw.OBJECT, of
    if isinstance(of, dict):
        return raw.OBJECT, doc(of)
    if isinstance(of, list):
        return raw.ARRAY, raw.array(value(one) for one in of)
    if isinstance(of, bool):
        return raw.BOOL, bytes((of,))
    if isinstance(of, int):
        return raw.INT32, raw.int32(of)
    if isinstance(of, float):
        return raw.DOUBLE, raw.double(of)
    if isinstance(of, str):
        return raw.STRING, raw.string(of)
    assert of is None
    return raw.NULL, b""


def doc(fields: dict[str, Any] | None = None, /, **more: Any) -> bytes:
    """A document; bytes among the values are documents already."""
    return raw.document((name.encode(), *value(of)) for name, of in {**(fields or {}), **more}.items())


def pairs(*fields: tuple[str, Any]) -> bytes:
    """A document in which a name may come twice."""
    return raw.document((name.encode(), *value(of)) for name, of in fields)


def identity(of: Any) -> bytes:
    kind, data = value(of)
    return bytes((kind,)) + data


def entry(at: int | Ts, op: str, ns: str, o: Any, *, ui: bytes | None = None, **more: Any) -> bytes:
    """An entry; ``at`` as a number is the increment within one second."""
    ts = at if isinstance(at, Ts) else Ts(1000, at)
    fields: dict[str, Any] = {"op": op, "ns": ns}
    if ui is not None:
        fields["ui"] = uuid(ui)
    fields["o"] = o
    if "o2" in more:
        fields["o2"] = more.pop("o2")
    return doc(
        fields | {"ts": ts, "t": long(1), "v": long(2), "wall": Typed(raw.DATE, raw.int64(5000))} | more
    )


def inserted(at: int | Ts, o: Any, *, ns: str = "db.c", ui: bytes | None = A, **more: Any) -> bytes:
    return entry(at, "i", ns, o, ui=ui, **more)


def updated(at: int | Ts, of: Any, o: Any, *, ns: str = "db.c", ui: bytes | None = A, **more: Any) -> bytes:
    return entry(at, "u", ns, o, ui=ui, o2={"_id": of}, **more)


def deleted(at: int | Ts, of: Any, *, ns: str = "db.c", ui: bytes | None = A, **more: Any) -> bytes:
    return entry(at, "d", ns, {"_id": of}, ui=ui, **more)


def command(at: int | Ts, o: Any, *, db: str = "db", ui: bytes | None = A, **more: Any) -> bytes:
    return entry(at, "c", f"{db}.$cmd", o, ui=ui, **more)


def inner(op: str, o: Any, *, ns: str = "db.c", ui: bytes | None = A, **more: Any) -> dict[str, Any]:
    """An operation inside an ``applyOps``."""
    return {"op": op, "ns": ns} | ({"ui": uuid(ui)} if ui else {}) | {"o": o} | more


def diff(fields: dict[str, Any]) -> dict[str, Any]:
    return {"$v": 2, "diff": fields}


def collection(name: str = "c", ui: bytes = A, db: str = "db", **options: Any) -> CollectionInfo:
    return CollectionInfo(
        db, name, "collection", ui, doc(options), (doc({"v": 2, "key": {"_id": 1}, "name": "_id_"}),)
    )


def collapsed(spill: Path, entries: Iterable[bytes], *infos: CollectionInfo, **more: Any) -> Collapsed:
    catalog = more.pop("catalog", None) or Catalog(infos, covers=more.pop("covers", None))
    return collapse(entries, catalog, spill=spill, **more)


def documents(outcome: Collapsed, base: Iterable[bytes] = (), key: bytes = A) -> list[bytes]:
    """What a collection holds at the end."""
    held = list(base)

    def again() -> Iterator[bytes]:
        return iter(held)

    return list(outcome.documents(key, again))
