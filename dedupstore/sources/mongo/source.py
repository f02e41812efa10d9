"""A live server as a source: its collections, as mongodump would lay them out, and the moment they are of.

`Snapshot.position` becomes 16 bytes where the snapshot is of one moment, and 32 where it is of a stretch of
time: the left edge and the right one (`dedupstore.sources.oplog.position`). Then ``oplog.bson`` holds the
log between the two, and says so of itself under ``extra["oplog"]``, as slices of the log do. A server
without a log, and a run in which a collection could not be read, have no position.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import DedupstoreError, SourceError, SourceVanished
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.base import LAST, Item, Stream
from dedupstore.sources.bson.attempt import Attempt, Leaves, Way
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    PRELUDE,
    CollectionInfo,
    file_name,
    metadata_json,
    prelude_json,
)
from dedupstore.sources.bson.detect import OPLOG
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.mongo.catalog import Catalog, Selection, described, read_catalog
from dedupstore.sources.mongo.client import Deployment
from dedupstore.sources.mongo.consistency import Consistency, Outcome, Window
from dedupstore.sources.mongo.failures import is_transient
from dedupstore.sources.mongo.folder import Content, Large, Look, MongoFolder, Text, node_of
from dedupstore.sources.mongo.oplog import Dialect
from dedupstore.sources.mongo.ranges import NATURAL
from dedupstore.sources.mongo.scan import WORKERS, Documents, Scan
from dedupstore.sources.owners import OwnedSource

KIND = "mongo"
_LOG_VERSION = 1
_KEY_VERSION = "dstore mongo v1"


@dataclass(frozen=True, slots=True)
class MongoOptions:
    """What is backed up, and how."""

    selection: Selection = field(default_factory=Selection)
    consistency: Consistency = Consistency.AUTO
    workers: int = WORKERS
    """Ranges that are read at a time."""
    split: bool | None = None
    """Whether large collections are read in ranges; None: where the server is MongoDB's own."""
    temporary: Path | None = None
    """Folder for temporary files; None: where the system has them."""
    program: str = "dstore"
    """Name and version, for ``prelude.json``."""


class MongoSource(OwnedSource):
    """Collections of a deployment; see `dedupstore.sources.base.Source`.

    Closes the deployment. Memory: `scan.AHEAD`, what the driver needs, and the catalog (about 1 KB a
    collection); disk: the log of the time of reading, in ``temporary``.
    """

    def __init__(
        self,
        deployment: Deployment,
        leaves: Leaves,
        options: MongoOptions | None = None,
        *,
        dialect: Callable[[Catalog], Dialect] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``leaves``: what of the repository decides where leaves end. Connects."""
        super().__init__()
        self._deployment = deployment
        self._leaves = leaves
        self._options = options or MongoOptions()
        self._dialect = dialect
        self._clock = clock
        self._window: Window | None = None
        self._reading: _Reading | None = None
        self.absent: Sequence[tuple[bytes, SourceError]] = ()
        said = described(deployment)
        if self._options.selection.names:
            said["only"] = "\0".join(sorted(self._options.selection.names))
        self.spec = SourceSpec(KIND, (b"/",), said)
        words = repr((_KEY_VERSION, sorted(said.items()), self._options.selection.users))
        self.key = hashlib.blake2b(words.encode(), digest_size=16).digest()

    @property
    def all_or_nothing(self) -> bool:
        """Whether reading on is for nothing: the server is lost, or its log."""
        return self._reading is not None and self._reading.lost

    def top(self) -> MongoFolder:
        """Fix the left edge, read the catalog, and return the root. Raises what connecting raises."""
        self._end()
        options = self._options
        node = self._deployment.node()
        catalog = read_catalog(node, options.selection) if self._dialect is not None else None
        dialect = self._dialect(catalog) if self._dialect is not None and catalog is not None else None
        self._window = Window(
            self._deployment, options.consistency, temporary=options.temporary, dialect=dialect
        )
        self._window.begin()
        catalog = read_catalog(node, options.selection)
        self.absent = tuple((name.encode(), error) for name, error in catalog.refused)
        began = self._window.began
        now = int(self._clock.now().timestamp()) if began is None else began.ts.seconds
        inode = int.from_bytes(self._clock.random(8), "little")
        self._reading = _Reading(self._deployment, self._window, catalog, options, self._leaves)
        contents = self._reading.contents()
        contents[PRELUDE] = Text(lambda: prelude_json(node.facts.version, options.program))
        if self._window.logged:
            contents[OPLOG] = Large(_Log(self._reading), LAST)
        return MongoFolder(b"/", contents, Look(now * 1_000_000_000, inode))

    def position(self) -> bytes | None:
        """Return where the log stood, as a packed `Span`. Raises `SourceError` if the log has a hole."""
        outcome = None if self._reading is None else self._reading.outcome()
        if outcome is None:
            return None
        return outcome.span.pack()

    def instant(self) -> datetime | None:
        """Return the moment of the last operation that is in it; None without a log."""
        outcome = None if self._reading is None else self._reading.outcome()
        return None if outcome is None else datetime.fromtimestamp(outcome.end.ts.seconds, UTC)

    def close(self) -> None:
        """Stop reading and close the connection; a second call does nothing."""
        self._deployment.stop()
        self._end()
        self._deployment.close()

    def _end(self) -> None:
        if self._reading is not None:
            self._reading.close()
        if self._window is not None:
            self._window.close()


class _Reading:
    """One walk over the server."""

    def __init__(
        self,
        deployment: Deployment,
        window: Window,
        catalog: Catalog,
        options: MongoOptions,
        leaves: Leaves,
    ) -> None:
        self._deployment = deployment
        self._options = options
        self._window = window
        self._listed = [listed for listed in catalog.collections if listed.data]
        # In the order in which they will be asked for: by bytes of database and file.
        self._listed.sort(key=lambda one: (one.info.db.encode(), file_name(one.info.name) + DATA_SUFFIX))
        self._catalog = catalog
        self._leaves = leaves
        self._scan: Scan | None = None
        self._outcome: Outcome | None = None
        self._failed: dict[str, SourceError] = {}
        self.lost = False
        """Whether there is nothing to read from any more."""

    def contents(self) -> dict[bytes, Content]:
        """Return what lies in the root, without the files about all of it."""
        root: dict[bytes, Content] = {}
        for listed in self._catalog.collections:
            folder = root.setdefault(listed.info.db.encode(), {})
            assert isinstance(folder, dict)
            folder[file_name(listed.info.name) + METADATA_SUFFIX] = Text(_Metadata(self, listed.info).content)
        for number, listed in enumerate(self._listed):
            folder = root[listed.info.db.encode()]
            assert isinstance(folder, dict)
            opener = _Collection(self, number, Attempt(listed.info.namespace, listed.info, self._leaves))
            folder[file_name(listed.info.name) + DATA_SUFFIX] = Large(opener)
        return root

    def info(self, number: int) -> CollectionInfo:
        """Return what a collection is."""
        return self._listed[number].info

    @property
    def temporary(self) -> Path | None:
        """Folder for temporary files."""
        return self._options.temporary

    def open(self, number: int) -> Documents:
        """Begin to read a collection; once more, if it was begun before."""
        if self._scan is not None and self._scan.has_passed(number):
            self._scan.close()
            self._scan = None
        if self._scan is None:
            options = self._options
            self._scan = Scan(
                self._deployment, self._window, self._listed, workers=options.workers, split=options.split
            )
        return self._scan.open(number)

    def fail(self, info: CollectionInfo, error: DedupstoreError) -> SourceError:
        """Note that a collection can not be had; return the error to raise."""
        if not isinstance(error, SourceError):
            error = SourceError(error.message, **error.data)
        self._failed[info.namespace] = error
        if is_transient(error) or self._window.failure is not None:
            self.lost = True
        return error

    def failed(self, info: CollectionInfo) -> SourceError | None:
        """Return why a collection could not be had, if it could not."""
        return self._failed.get(info.namespace)

    def outcome(self) -> Outcome | None:
        """Return what was read, once it was; None if there is no log, or something is missing."""
        missing = any(not isinstance(error, SourceVanished) for error in self._failed.values())
        if self._outcome is None and not missing:
            self._outcome = self._window.finish()
        return None if missing else self._outcome

    def read_log(self, offset: int, view: memoryview) -> int:
        """Read what is kept of the log."""
        return self._window.read_log(offset, view)

    def close(self) -> None:
        """Stop reading."""
        if self._scan is not None:
            self._scan.close()


class _Metadata:
    """What is known of a collection beside its documents: stored only if they are."""

    def __init__(self, reading: _Reading, info: CollectionInfo) -> None:
        self._reading = reading
        self._info = info

    def content(self) -> bytes:
        error = self._reading.failed(self._info)
        if error is not None:
            raise type(error)(error.message)
        return metadata_json(self._info)


class _Collection:
    """The documents of a collection, to be opened."""

    def __init__(self, reading: _Reading, number: int, attempt: Attempt) -> None:
        self._reading = reading
        self._number = number
        self._attempt = attempt
        self._begun = False

    def open(self, item: Item) -> Stream:
        info = self._reading.info(self._number)
        try:
            documents = self._reading.open(self._number)
            plan = documents.plan()
        except DedupstoreError as error:
            raise self._reading.fail(info, error) from error
        if not self._begun:
            self._begun = True
            if plan.order == NATURAL:
                self._attempt.way = Way.NATURAL
            elif not plan.by_bytes:
                self._attempt.way = Way.SORTED
        origin = _Origin(self._reading, info, item, documents)
        return DocumentStream(
            origin, self._attempt, packed=False, name=item.name, folder=self._reading.temporary
        )


class _Origin:
    """The bytes of a collection as they come; see `dedupstore.sources.bson.stream.Origin`."""

    changed = False

    def __init__(self, reading: _Reading, info: CollectionInfo, item: Item, documents: Documents) -> None:
        self._reading = reading
        self._info = info
        self._item = item
        self._documents = documents

    def read_next(self, view: memoryview) -> int:
        try:
            return self._documents.fill(view)
        except DedupstoreError as error:
            raise self._reading.fail(self._info, error) from error

    def finish(self) -> Node:
        return node_of(self._item, NodeKind.STREAM)

    def close(self) -> None:
        self._documents.close()


class _Log:
    """The log of the time of reading, to be opened when everything else was read."""

    def __init__(self, reading: _Reading) -> None:
        self._reading = reading

    def open(self, item: Item) -> Stream:
        return _LogStream(self._reading, item, self._reading.outcome())


class _LogStream:
    """The entries that are kept, one behind the other."""

    changed = False
    cutter = None

    def __init__(self, reading: _Reading, item: Item, outcome: Outcome | None) -> None:
        self._reading = reading
        self._item = item
        self._outcome = outcome
        self._at = 0

    def read_next(self, view: memoryview) -> int:
        size = 0 if self._outcome is None else self._outcome.log.size - self._at
        if size <= 0:
            return 0
        read = self._reading.read_log(self._at, view[: min(size, len(view))])
        self._at += read
        return read

    def finish(self) -> Node:
        extra = None
        if self._outcome is not None and self._outcome.log.entries:
            extra = {"oplog": log_facts(self._outcome)}
        return node_of(self._item, NodeKind.STREAM, self._at, extra)

    def close(self) -> None:
        pass


def log_facts(outcome: Outcome) -> bytes:
    """Return what ``oplog.bson`` says of itself; laid out as for slices of the log."""
    log = outcome.log
    why = "read beside the collections"
    fields = (
        _LOG_VERSION, log.start.pack(), log.end.pack(), log.entries, False, why, log.wall
    )  # fmt: skip
    return msgspec.msgpack.encode(fields)
