"""Dumps for tests: collections of a few kinds, written as mongodump does, as a folder or an archive."""

import gzip
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.archiveout import ArchiveWriter
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import CollectionInfo, file_name, metadata_json, prelude_json
from dedupstore.sources.bson.prelude import Entry, Namespace, Prelude

SERVER, TOOL = "8.0.4", "100.16.1"
LEAVES = Leaves(b"leaf key of test", 1 << 20)
CAPPED = raw.document([(b"capped", raw.BOOL, b"\1"), (b"size", raw.INT32, raw.int32(4096))])
OPLOG = Namespace("", "oplog")


def numbered(number: int, size: int = 100) -> bytes:
    """A document whose ``_id`` is an int."""
    return raw.document(
        [
            (b"_id", raw.INT32, raw.int32(number)),
            (b"text", raw.STRING, raw.string(f"{number * 7919:030d}")),
            (b"padding", raw.BINARY, raw.binary(bytes(size))),
        ]
    )


def numbers(count: int, *, step: int = 1, size: int = 100) -> list[bytes]:
    """Documents with the ids 0 to ``count - 1``; a ``step`` that is prime to it changes their order."""
    return [numbered(number * step % count, size) for number in range(count)]


@dataclass(frozen=True)
class Made:
    """One collection of a dump."""

    info: CollectionInfo
    documents: Sequence[bytes] = ()

    @property
    def data(self) -> bytes:
        return b"".join(self.documents)


@dataclass(frozen=True)
class Dump:
    """What is in a dump."""

    collections: Sequence[Made]
    oplog: Sequence[bytes] = ()
    plain: dict[str, bytes] = field(default_factory=dict)
    """Other files by path."""


def made(db: str, name: str, documents: Iterable[bytes] = (), **info: object) -> Made:
    return Made(CollectionInfo(db, name, **info), tuple(documents))  # type: ignore[arg-type]


def small() -> Dump:
    """A collection in order, the same one out of order, a capped one, an empty one, a view, a log."""
    return Dump(
        [
            made("shop", "ordered", numbers(2000), uuid=bytes(range(16))),
            made("shop", "shuffled", numbers(2000, step=7)),
            made("shop", "capped é/%", numbers(300, step=7), options=CAPPED),
            made("shop", "empty"),
            made(
                "shop",
                "view",
                kind="view",
                options=raw.document([(b"viewOn", raw.STRING, raw.string("ordered"))]),
            ),
            made("stock", "times", numbers(50, size=9), kind="timeseries"),
        ],
        numbers(20),
    )


def write_folder(dump: Dump, root: Path, *, packed: bool = False) -> Path:
    """Write what ``mongodump --out`` (with ``--gzip`` if ``packed``) would."""
    suffix = ".gz" if packed else ""

    def write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, 1, mtime=0) if packed else data)

    write(root / f"prelude.json{suffix}", prelude_json(SERVER, TOOL))
    for each in dump.collections:
        stem = file_name(each.info.name).decode()
        folder = root / each.info.db
        write(folder / f"{stem}.metadata.json{suffix}", metadata_json(each.info))
        if each.info.kind != "view":
            write(folder / f"{stem}.bson{suffix}", each.data)
    if dump.oplog:
        write(root / "oplog.bson", b"".join(dump.oplog))
    return root


def prelude_of(dump: Dump) -> Prelude:
    entries = [
        Entry(Namespace(each.info.db, each.info.name), metadata_json(each.info), 0, each.info.kind)
        for each in dump.collections
    ]
    if dump.oplog:
        entries.append(Entry(OPLOG))
    return Prelude(tuple(entries), SERVER, TOOL, concurrent=len(entries))


def archive(dump: Dump, *, packed: bool = False, turn: int = 100) -> bytes:
    """Return what ``mongodump --archive`` would write; namespaces in turns of so many documents."""
    prelude = prelude_of(dump)
    out = io.BytesIO()
    writer = ArchiveWriter(out, prelude)
    waiting = [
        (prelude.data_of(entry), list(documents))
        for entry, documents in zip(
            prelude.entries,
            [*(each.documents for each in dump.collections), *([dump.oplog] if dump.oplog else [])],
            strict=True,
        )
    ]
    while waiting:
        for namespace, documents in waiting:
            writer.write(namespace, b"".join(documents[:turn]))
            del documents[:turn]
        for namespace, documents in list(waiting):
            if not documents:
                writer.end(namespace)
                waiting.remove((namespace, documents))
    writer.finish()
    return gzip.compress(out.getvalue(), 1, mtime=0) if packed else out.getvalue()
