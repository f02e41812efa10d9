"""Live servers into repositories and back: what tests of the MongoDB source have in common."""

from collections.abc import Callable, Iterator

import bson
import pymongo
from bson.raw_bson import RawBSONDocument

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.view import View
from dedupstore.model import Node, Snapshot
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.mongo.catalog import Catalog
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.oplog import Dialect
from dedupstore.sources.mongo.source import MongoOptions, MongoSource
from tests.support import repos

RAW: bson.CodecOptions[RawBSONDocument] = bson.CodecOptions(document_class=RawBSONDocument)


def source(
    repo: Repository,
    uri: str,
    options: MongoOptions | None = None,
    *,
    dialect: Callable[[Catalog], Dialect] | None = ChangeStreamDialect,
) -> MongoSource:
    """A server as a source for a repository; in the words of SecantusDB unless said otherwise."""
    leaves = Leaves(repo.keychain.current.names[:16], repo.config.chunker.max_size)
    return MongoSource(connect(uri), leaves, options, dialect=dialect, clock=SYSTEM_CLOCK)


def snapshot(repo: Repository, uri: str, options: MongoOptions | None = None) -> BackupResult:
    """Back a server up."""
    return repos.run(repo, source(repo, uri, options))


def on_server(uri: str, db: str, name: str) -> list[bytes]:
    """Documents of a collection on the server, in order of ``_id``."""
    with pymongo.MongoClient(uri) as client:
        found = client[db].get_collection(name, codec_options=RAW).find().hint([("_id", 1)])
        return [document.raw for document in found]


def in_view(view: View, db: str, name: str) -> list[bytes]:
    """Documents of a collection in a snapshot."""
    collection = view.find(db, name)
    assert collection is not None, f"{db}.{name} is not there"
    return list(collection.documents())


def dump(repo: Repository, result: BackupResult) -> StoredDump:
    """What a snapshot holds."""
    return StoredDump(repo, result.snapshot)


def log_of(repo: Repository, snapshot: Snapshot) -> tuple[Node, Iterator[bytes]]:
    """The log that a snapshot has of its own time."""
    for path, node in repos.walk(repo, snapshot.root):
        if path == b"/oplog.bson":
            return node, raw.documents(repos.content(repo, node))
    raise AssertionError("the snapshot has no log")
