"""The one door to a MongoDB server: connections, what is known of the node behind one, commands and replies.

A `Deployment` is what the user's URI names; a `Node` is the one member of it that is read, or the router
that is asked, over a direct connection: a cursor lives on one node, and the driver would send its second half
wherever the read preference points at that moment. Replies are raw BSON, never inflated.

Threads: both may be used from any thread. Memory: a reply at a time for each caller, 16 MiB at most (the
driver holds about two copies of it while it arrives).
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, errors, monitoring
from pymongo.client_session import ClientSession

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import DedupstoreError, SourceError, TargetError, UsageError
from dedupstore.model import Data
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.address import Address, host_text
from dedupstore.sources.mongo.failures import failure, interrupted, is_transient

SELECT_SECONDS = 15
"""How long a server is looked for, unless the URI says otherwise."""
SOCKET_SECONDS = 300
"""How long an answer may take, unless the URI says otherwise: a silent network would block for ever."""
PATIENCE = 180
"""Seconds for which a lost server is looked for again: elections take 10 to 30."""
_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)

REPLICA_SET, STANDALONE, ROUTER = "replica set", "standalone", "router"
WIRE_5_0 = 13

Session: TypeAlias = ClientSession | None
Body: TypeAlias = Mapping[str, Any]
Family: TypeAlias = type[SourceError] | type[TargetError]

_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a server says of itself."""

    host: str
    """``host:port`` as it was reached."""
    kind: str
    """`REPLICA_SET`, `STANDALONE` or `ROUTER` (of a sharded cluster)."""
    set_name: str
    version: str
    wire: int
    """Highest version of the wire protocol that it speaks."""
    mongod: bool
    """Whether it is MongoDB's own server. Others accept reads at a cluster time and do not obey."""
    sessions: bool
    writable: bool

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparison."""
        return tuple(int(part) for part in self.version.split("-")[0].split(".") if part.isdecimal())


class Node:
    """One server. Close it; a second call does nothing."""

    def __init__(self, client: "MongoClient[dict[str, Any]]", host: str, family: Family) -> None:
        self._client = client
        self._family = family
        self._host = host
        hello = self.ask("admin", {"hello": 1}, "asking it what it is")
        build = self.ask("admin", {"buildInfo": 1}, "asking for its version")
        engines = build.get("storageEngines")
        kind = REPLICA_SET if hello.get("setName") else STANDALONE
        self.facts = NodeFacts(
            host=host,
            kind=ROUTER if hello.get("msg") == "isdbgrid" else kind,
            set_name=str(hello.get("setName") or ""),
            version=str(build.get("version") or ""),
            wire=int(hello.get("maxWireVersion") or 0),
            mongod=isinstance(engines, list) and "wiredTiger" in engines,
            sessions=hello.get("logicalSessionTimeoutMinutes") is not None,
            writable=bool(hello.get("isWritablePrimary", hello.get("ismaster"))),
        )

    def command(self, db: str, body: Body, doing: str, session: Session = None) -> bytes:
        """Run a command and return the raw reply.

        ``doing`` is for messages: "reading shop.orders". Raises `AccessError`, `SourceError` and its kin (or
        `TargetError`, for a node that is written to), with the data that `failures` describes.
        """
        try:
            reply: RawBSONDocument = self._client[db].command(dict(body), codec_options=_RAW, session=session)
        except errors.PyMongoError as error:
            raise failure(error, doing, self._host, self._family) from error
        except (bson.errors.InvalidBSON, bson.errors.InvalidDocument, OverflowError) as error:
            raise self._family(f"{doing} at {self._host}: the server answered with damaged BSON") from error
        return bytes(reply.raw)

    def ask(self, db: str, body: Body, doing: str) -> dict[str, Any]:
        """Run a command with a small reply and return that as Python values."""
        try:
            return dict(bson.decode(self.command(db, body, doing)))
        except bson.errors.InvalidBSON as error:
            raise self._family(f"{doing} at {self._host}: the server answered with damaged BSON") from error

    def insert_alone(self, db: str, name: str, data: Data, doing: str, *, replace: bool) -> bool:
        """Insert one document of any size that the server takes, or replace the one that is there.

        Returns whether one was there and was left alone. Raises as `command` does.
        """
        doc = document(data)
        collection = self._client[db].get_collection(name, codec_options=_RAW)
        try:
            if replace:
                collection.replace_one({"_id": doc["_id"]}, doc, upsert=True, bypass_document_validation=True)
            else:
                collection.insert_one(doc, bypass_document_validation=True)
        except errors.DuplicateKeyError:
            return True
        except errors.PyMongoError as error:
            raise failure(error, doing, self._host, self._family) from error
        return False

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A session for one cursor, where the server knows sessions: all its commands must carry it."""
        if not self.facts.sessions:
            yield None
            return
        with self._client.start_session(causal_consistency=False) as session:
            yield session

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class Deployment:
    """What a URI names, and the node of it that is in use. Close it; a second call does nothing."""

    def __init__(
        self,
        address: Address,
        *,
        family: Family = SourceError,
        clock: Clock = SYSTEM_CLOCK,
        patience: float = PATIENCE,
    ) -> None:
        """``family``: what errors are raised as. ``patience``: seconds for which a lost server is looked for.

        Nothing is connected yet.
        """
        self.address = address
        self._family = family
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._node: Node | None = None

    def node(self) -> Node:
        """Return the node in use; connect if there is none.

        Raises `AccessError`, `UsageError`, and the error of its family; `Interrupted` after `stop`.
        """
        with self._lock:
            if self._node is None:
                if self._stopped.is_set():
                    raise interrupted(f"the work at {self.address.shown}")
                self._node = self._connect()
            return self._node

    def replace(self, lost: Node) -> Node:
        """Return a node to go on with after ``lost`` failed: the same one again, or another of its set.

        Tries for ``patience`` seconds. Raises what the last attempt raised, `Interrupted` after `stop`.
        """
        with self._lock:
            if self._node is not None and self._node is not lost:
                return self._node
            self._node = None
            # The driver says goodbye to the server first, and waits for one that does not answer.
            threading.Thread(target=lost.close, name="goodbye", daemon=True).start()
            until = self._clock.monotonic() + self._patience
            for attempt in range(1_000_000):
                try:
                    node = self._connect()
                except DedupstoreError as error:
                    if not is_transient(error) or self._clock.monotonic() > until:
                        raise
                    self.pause(attempt)
                    continue
                self._check_same(node, lost.facts)
                self._node = node
                return node
            raise interrupted(f"reading from {self.address.shown}")

    def pause(self, attempt: int) -> None:
        """Wait before the next attempt, longer each time; raises `Interrupted` if `stop` was called."""
        if self._stopped.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)]):
            raise interrupted(f"the work at {self.address.shown}")

    def stop(self) -> None:
        """Make whoever waits for a server give up; from any thread."""
        self._stopped.set()

    def close(self) -> None:
        """Stop, and close what is open."""
        self._stopped.set()
        with self._lock:
            if self._node is not None:
                self._node.close()
            self._node = None

    def _check_same(self, node: Node, before: NodeFacts) -> None:
        if node.facts.set_name != before.set_name or node.facts.kind != before.kind:
            node.close()
            raise self._family(
                f"{self.address.shown} is now {node.facts.kind} {node.facts.set_name} and was {before.kind} "
                f"{before.set_name}: check what that address leads to and run it again"
            )

    def _connect(self) -> Node:
        if self.address.load_balanced:
            client = self._client(self.address.uri)
            return self._as_node(client, self.address.shown)
        address = self.address
        host = address.hosts[0] if address.single else self._choose()
        return self._as_node(self._client(self.address.of_node(host)), host)

    def _as_node(self, client: "MongoClient[dict[str, Any]]", host: str) -> Node:
        try:
            node = Node(client, host, self._family)
            self._check_asked_for(node.facts)
        except BaseException:
            client.close()
            raise
        return node

    def _check_asked_for(self, facts: NodeFacts) -> None:
        """A direct connection does not ask for a set's name: raise `UsageError` if it is another one."""
        wanted = self.address.set_name
        if wanted and facts.kind != ROUTER and facts.set_name != wanted:
            is_of = f"of the replica set {facts.set_name}" if facts.set_name else f"a {facts.kind}"
            raise UsageError(f"{facts.host} is {is_of} and not of {wanted}: correct replicaSet in the URI")

    def _choose(self) -> str:
        """Return the node that the URI's read preference picks now."""
        seen = _Seen()
        client = self._client(self.address.uri, listener=seen)
        try:
            client.admin.command("buildInfo", read_preference=client.read_preference)
        except errors.PyMongoError as error:
            raise failure(error, "connecting", self.address.shown, self._family) from error
        finally:
            client.close()
        if seen.host is None:
            raise self._family(f"no server answered at {self.address.shown}: check the address")
        return seen.host

    def _client(self, uri: str, listener: "_Seen | None" = None) -> "MongoClient[dict[str, Any]]":
        options: dict[str, Any] = {"appname": "dstore", "event_listeners": [listener] if listener else []}
        if not self.address.has("serverSelectionTimeoutMS"):
            options["serverSelectionTimeoutMS"] = SELECT_SECONDS * 1000
        if not self.address.has("socketTimeoutMS"):
            options["socketTimeoutMS"] = SOCKET_SECONDS * 1000
        if self.address.has("appname"):
            del options["appname"]
        try:
            return MongoClient(uri, **options)
        except errors.PyMongoError:
            # What the driver says here may quote the URI.
            raise UsageError(
                f"the options for {self.address.shown} do not fit together: check the URI's options"
            ) from None


class _Seen(monitoring.CommandListener):
    """Notes which server a command went to."""

    host: str | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.host = host_text(*event.connection_id)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


def connect(
    uri: str, *, family: Family = SourceError, clock: Clock = SYSTEM_CLOCK, patience: float = PATIENCE
) -> Deployment:
    """Return the deployment that ``uri`` names, connected; ``patience``: see `Deployment.replace`.

    Raises `UsageError` for the URI, `AccessError` for the user, and ``family`` where nobody answers.
    """
    deployment = Deployment(Address(uri), family=family, clock=clock, patience=patience)
    try:
        deployment.node()
    except BaseException:
        deployment.close()
        raise
    return deployment


def document(data: Data) -> RawBSONDocument:
    """Return raw BSON as something that a command may contain."""
    return RawBSONDocument(bytes(data))


def value_of(reply: Data, *path: bytes) -> tuple[int, bytes] | None:
    """Return type and raw value of a field in nested documents, or None."""
    data = bytes(reply)
    kind = raw.OBJECT
    for name in path:
        if kind not in {raw.OBJECT, raw.ARRAY}:
            return None
        found = raw.field(data, name)
        if found is None:
            return None
        kind, data = found.type, data[found.start : found.end]
    return kind, data
