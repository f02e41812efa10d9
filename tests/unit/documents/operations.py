"""Log entries of a small shop, and repositories with a snapshot of it and its log."""

from collections.abc import Sequence

from dedupstore.documents.timeline import Timeline
from dedupstore.model import Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.oplog.definitions import ID_INDEX
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.span import Span
from tests.support.repos import run
from tests.unit.documents.dump_samples import ServerSource, Tables
from tests.unit.documents.log_samples import cut, store

ORDERS, USERS = b"o" * 16, b"u" * 16
INFO = CollectionInfo("shop", "orders", uuid=ORDERS, indexes=(ID_INDEX,))
OTHER = CollectionInfo("shop", "users", uuid=USERS, indexes=(ID_INDEX,))


def ts(number: int) -> Ts:
    return Ts(1000 + number, 1)


def order(number: int, mark: int = 0, size: int = 60) -> bytes:
    return raw.document(
        [
            (b"_id", raw.INT32, raw.int32(number)),
            (b"mark", raw.INT32, raw.int32(mark)),
            (b"x", raw.BINARY, raw.binary(number.to_bytes(4, "big") * (size // 4))),
        ]
    )


def key(number: int) -> bytes:
    return b"\x10" + raw.int32(number)


def operation(number: int, op: str, ns: str, ui: bytes | None, o: bytes, o2: bytes | None = None) -> bytes:
    fields: list[tuple[bytes, int, bytes]] = [
        (b"op", raw.STRING, raw.string(op)),
        (b"ns", raw.STRING, raw.string(ns)),
        (b"o", raw.OBJECT, o),
        (b"ts", raw.TIMESTAMP, ts(number).raw()),
        (b"t", raw.INT64, raw.int64(1)),
        (b"v", raw.INT64, raw.int64(2)),
        (b"wall", raw.DATE, raw.int64(ts(number).seconds * 1000 + 5)),
    ]
    if ui is not None:
        fields.insert(2, (b"ui", raw.BINARY, raw.binary(ui, 4)))
    if o2 is not None:
        fields.insert(4, (b"o2", raw.OBJECT, o2))
    return raw.document(fields)


def only_id(number: int) -> bytes:
    return raw.document([(b"_id", raw.INT32, raw.int32(number))])


def inserted(at: int, document: bytes, ui: bytes = ORDERS, ns: str = "shop.orders") -> bytes:
    return operation(at, "i", ns, ui, document)


def deleted(at: int, number: int, ui: bytes = ORDERS, ns: str = "shop.orders") -> bytes:
    return operation(at, "d", ns, ui, only_id(number))


def marked(at: int, number: int, mark: int, ui: bytes = ORDERS, ns: str = "shop.orders") -> bytes:
    """An update of one field, as a difference."""
    changed = raw.document([(b"mark", raw.INT32, raw.int32(mark))])
    diff = raw.document([(b"u", raw.OBJECT, changed)])
    o = raw.document([(b"$v", raw.INT32, raw.int32(2)), (b"diff", raw.OBJECT, diff)])
    return operation(at, "u", ns, ui, o, only_id(number))


def command(
    at: int, name: str, value: str, ui: bytes | None, more: Sequence[tuple[bytes, int, bytes]] = ()
) -> bytes:
    o = raw.document([(name.encode(), raw.STRING, raw.string(value)), *more])
    return operation(at, "c", "shop.$cmd", ui, o)


def renamed(at: int, old: str, new: str, ui: bytes = ORDERS) -> bytes:
    return command(
        at, "renameCollection", f"shop.{old}", ui, [(b"to", raw.STRING, raw.string(f"shop.{new}"))]
    )


def noop(at: int) -> bytes:
    return operation(at, "n", "", None, raw.EMPTY)


def span(start: int, end: int | None = None, begun: int | None = None) -> Span:
    places = [
        None if n is None else Position(ts(n), 1) for n in (start, start if end is None else end, begun)
    ]
    first, last, early = places
    assert first is not None
    assert last is not None
    return Span(first, last, early)


def put_shop(repo: Repository, tables: Tables, where: Span, *, last: Snapshot | None = None) -> Snapshot:
    result = run(repo, ServerSource(repo, tables, where, last=last))
    assert not result.findings
    return result.snapshot


def put_log(repo: Repository, entries: Sequence[bytes]) -> None:
    store(repo, cut(entries, None))


def timeline(repo: Repository) -> Timeline:
    return Timeline(repo, repo.snapshots())
