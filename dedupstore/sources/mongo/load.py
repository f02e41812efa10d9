"""Loading a server: collections with their options first, documents, then indexes, what expires last.

A `Loader` is an outlet as the export operation wants one: it hears of everything that will come, takes one
collection after another, and ends with indexes, views, users and one write that a majority has. Nothing
expires while it loads, no validator is asked, and no index but that of ``_id`` is kept up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from itertools import chain, islice
from pathlib import Path

from bson.objectid import ObjectId

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import DedupstoreError, TargetError
from dedupstore.findings import Finding
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import COLLECTION, TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.mongo.catalog import PLAIN_BUCKETS
from dedupstore.sources.mongo.client import REPLICA_SET, Deployment, Node
from dedupstore.sources.mongo.creating import create, create_indexes, is_bucket, is_capped, set_expiry
from dedupstore.sources.mongo.cursor import Cursor
from dedupstore.sources.mongo.failures import NAMESPACE_NOT_FOUND, code_of
from dedupstore.sources.mongo.loadstate import LoadState
from dedupstore.sources.mongo.users import ROLES, USERS, is_of_users, load_users
from dedupstore.sources.mongo.writing import WRITERS, Place, Writer
from dedupstore.sources.oplog.namespaces import BUCKETS, followed

_MAJORITY_MS = 10 * 60 * 1000
_USERS_MAX = 100_000


class Existing(Enum):
    """What becomes of collections that are there already."""

    REFUSE = "refuse"
    """Nothing is written if one of them holds documents."""
    DROP = "drop"
    """They are dropped first."""
    REPLACE = "replace"
    """Documents of the same ``_id`` are replaced, others stay."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a server is loaded."""

    existing: Existing = Existing.REFUSE
    dry_run: bool = False
    """Only look: what is there, what would be refused. Documents are read and counted, not written."""
    writers: int = WRITERS
    indexes: bool = True
    users: bool = True
    """Whether users and roles are written; those of the server stay beside them."""
    state: Path | None = None
    """Where to keep how far it has come; a run that finds its own file there goes on with it."""
    anew: bool = False
    """Whether it begins from the start whatever an earlier run left there."""


class Loader:
    """Loads one deployment. One thread, which calls `begin`, `collection` for each, `finish`, `close`.

    Closes the deployment, which must have been connected with `TargetError` as its family.
    Memory: `Writer`, and all users and roles.
    """

    resilient = True

    def __init__(
        self,
        deployment: Deployment,
        options: LoadOptions | None = None,
        *,
        job: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``job`` says what is loaded (a snapshot and a moment): see `LoadState`."""
        self._deployment = deployment
        self._options = options or LoadOptions()
        state = None if self._options.dry_run else self._options.state
        where = deployment.address.shown
        self._state = LoadState(state, f"{job} to {where}", clock, anew=self._options.anew)
        self._infos: Sequence[CollectionInfo] = ()
        self._loaded: list[CollectionInfo] = []
        self._users: dict[str, list[bytes]] = {USERS: [], ROLES: []}
        self._findings: list[Finding] = []
        self._writer: Writer | None = None

    def begin(self, infos: Sequence[CollectionInfo]) -> None:
        """Look at the target; drop what is to be dropped; make every collection, empty.

        Raises `TargetError` for a node that can not be written to, or that holds something that is not to be
        touched, before anything is changed; `AccessError`.
        """
        node = self._deployment.node()
        if not node.facts.writable:
            raise TargetError(
                f"{node.facts.host} can not be written to: give the address of the primary or of all members"
            )
        self._infos = [info for info in infos if self._is_loaded(info)]
        for info in infos:
            if not self._is_loaded(info) and not is_of_users(info.db, info.name):
                why = TargetError(f"{info.namespace} belongs to a cluster's own records: it is left out")
                self._findings.append(Finding(info.namespace, why))
        self._check_empty(node)
        if self._options.dry_run:
            return
        for info in self._infos:
            if self._options.existing is Existing.DROP and not self._state.has_begun(info.namespace):
                _drop(node, info)
        for info in self._infos:
            if info.kind != VIEW:
                create(node, info)
                self._state.began(info.namespace)
        self._state.save()

    def after(self, info: CollectionInfo) -> bytes | None:
        """Return the ``_id`` behind which documents are still wanted, of a run that goes on; None: all.

        A caller who can begin there spares reading the others; one who can not gives all of them.
        """
        if is_capped(info):
            return None
        return self._state.upto(info.namespace) or None

    def is_done(self, info: CollectionInfo) -> bool:
        """Say whether an earlier run wrote all of a collection: `collection` then takes nothing."""
        return self._state.is_done(info.namespace)

    def collection(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        """Write one collection. Raises `TargetError`, `AccessError`, and what its documents raise."""
        if is_of_users(info.db, info.name):
            if self._options.users and info.name in self._users:
                self._users[info.name] = list(islice(documents, _USERS_MAX))
            return
        if info.kind == VIEW or not self._is_loaded(info) or self.is_done(info):
            return
        if self._options.dry_run:
            for _ in documents:
                pass
            return
        self._write(info, documents)
        self._loaded.append(info)
        self._state.finished(info.namespace)

    def finish(self) -> Sequence[Finding]:
        """Make indexes, views, users and roles, and wait until a majority has all of it.

        What fails of that is a finding. Raises `TargetError` for a lost connection.
        """
        if self._options.dry_run:
            return self._findings
        node = self._deployment.node()
        whole = [info for info in self._infos if info.kind == VIEW or self._state.is_done(info.namespace)]
        for expiring in (False, True):
            for info in whole if self._options.indexes else ():
                self._findings += create_indexes(node, info, expiring=expiring)
        for info in whole:
            step = partial(create, fresh=not self._state.resumed) if info.kind == VIEW else set_expiry
            self._try(info, partial(step, node, info))
        self._findings += load_users(self._deployment, self._users[USERS], self._users[ROLES])
        self._settle(node, whole)
        if not self._findings:
            self._state.remove()
        return self._findings

    def close(self) -> None:
        """End what is under way and close the connection; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
        self._deployment.close()

    def _is_loaded(self, info: CollectionInfo) -> bool:
        return followed(info.db, info.name) and info.db != "config" and not is_of_users(info.db, info.name)

    def _check_empty(self, node: Node) -> None:
        if self._options.existing is not Existing.REFUSE:
            return
        for info in self._infos:
            if info.kind == VIEW or self._state.has_begun(info.namespace):
                continue
            if _has_something(node, info):
                resume = (
                    ", or go on with the load that broke off (--resume)" if self._state.passed_over else ""
                )
                raise TargetError(
                    f"{info.namespace} is there already and holds documents: load it under another name "
                    f"(--rename), say what becomes of it (--existing drop, --existing replace){resume}"
                )

    def _write(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        node = self._deployment.node()
        capped, upto = is_capped(info), self._state.upto(info.namespace)
        if upto and capped:  # where it broke off can not be told: once more from the start
            _drop(node, info)
            create(node, info)
            upto = b""
        elif upto:
            documents = _behind(documents, upto)
        first = next(documents, None)
        if first is None:
            return
        replaces = self._state.resumed or self._options.existing is Existing.REPLACE
        place = Place(info.db, info.name, ordered=capped, replace=replaces and not capped)
        if info.kind == TIMESERIES and is_bucket(first):
            plain = node.facts.mongod and node.facts.numbers >= PLAIN_BUCKETS
            place = replace(place, name=info.name if plain else BUCKETS + info.name, raw=plain)
        self._writer = Writer(
            self._deployment,
            place,
            writers=self._options.writers,
            progress=lambda identity: self._state.reached(info.namespace, identity),
        )
        try:
            self._writer.write(chain((first,), documents))
            self._writer.finish()
        finally:
            self._writer.close()
            self._writer = None
            self._state.save()

    def _try(self, info: CollectionInfo, step: Callable[[], object]) -> None:
        try:
            step()
        except DedupstoreError as error:
            if code_of(error) == 0:
                raise
            self._findings.append(Finding(info.namespace, error))

    def _settle(self, node: Node, infos: Sequence[CollectionInfo]) -> None:
        """Wait until a majority has what was written, by a write that changes nothing and comes last."""
        real = [info for info in infos if info.kind == COLLECTION]
        if not real or node.facts.kind != REPLICA_SET:
            return
        last = real[-1]
        body = {
            "update": last.name,
            "updates": [{"q": {"_id": ObjectId()}, "u": {"$set": {"_": 1}}}],
            "writeConcern": {"w": "majority", "wtimeout": _MAJORITY_MS},
        }
        self._try(last, partial(node.command, last.db, body, "waiting for a majority"))


def _behind(documents: Iterator[bytes], identity: bytes) -> Iterator[bytes]:
    """Leave out what was written before."""
    key = sort_key(identity)
    for doc in documents:
        if sort_key(raw.id_of(doc)) > key:
            yield doc
            yield from documents


def _has_something(node: Node, info: CollectionInfo) -> bool:
    body = {"find": info.name, "limit": 1, "projection": {"_id": 1}}
    with Cursor(node, info.db, body, f"looking at {info.namespace}") as cursor:
        return cursor.batch().number > 0


def _drop(node: Node, info: CollectionInfo) -> None:
    try:
        node.command(info.db, {"drop": info.name}, f"dropping {info.namespace}")
    except TargetError as error:
        if code_of(error) != NAMESPACE_NOT_FOUND:
            raise
