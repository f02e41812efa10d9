"""The primary of an imagined replica set: what it holds, and the oplog it writes.

It knows no operation. It keeps the state, hands out documents and sessions to those who do, writes one
entry after the other with the fields and the order of its version, and remembers what each changed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Value
from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.identity import Key
from dedupstore.testing.oplog.model import VIEWS, Change, Defined, Meta, Moment, State, Written
from dedupstore.testing.oplog.values import Values

NO_OPTIME = bson.embedded({"ts": bson.timestamp(0, 0), "t": bson.int64(-1)})
"""What the first write of a session has for a previous one."""


class Operation(NamedTuple):
    """What one entry says, or one part of an ``applyOps``."""

    op: str
    ns: str
    ui: bytes | None
    o: bytes
    o2: bytes | None = None
    changes: tuple[Change, ...] = ()
    extra: tuple[tuple[str, Value], ...] = ()

    def inner(self, statement: int | None = None) -> Value:
        """Return the operation as part of an ``applyOps``."""
        fields: dict[str, Value | None] = {
            "op": bson.string(self.op),
            "ns": bson.string(self.ns),
            "ui": None if self.ui is None else bson.uuid(self.ui),
            "o": Value(bson.DOCUMENT, self.o),
            "o2": None if self.o2 is None else Value(bson.DOCUMENT, self.o2),
            "stmtId": None if statement is None else bson.int32(statement),
        }
        return bson.embedded(fields | dict(self.extra))


@dataclass
class Session:
    """A client's session: its id, the number of its transaction, and where its last write lies."""

    lsid: Value
    number: int = 0
    last: Value = NO_OPTIME
    busy: bool = False
    """A transaction of it is not finished."""

    def advance(self) -> None:
        """Begin another transaction or retryable write."""
        self.number += 1
        self.last = NO_OPTIME


@dataclass
class Traits:
    """What the makers of operations keep in mind of a collection."""

    style: str
    """What its ``_id`` are made of: see `Values.identity`."""
    shard_key: bytes | None = None
    """A field that is part of every document key."""
    limit: int = 0
    """Documents that a capped collection holds."""


class Pool:
    """The keys of a collection, one drawn at random in constant time."""

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._places: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: Key) -> None:
        """Add a key, if it is not there."""
        if key not in self._places:
            self._places[key] = len(self._keys)
            self._keys.append(key)

    def remove(self, key: Key) -> None:
        """Take a key out."""
        place = self._places.pop(key)
        last = self._keys.pop()
        if last != key:
            self._keys[place] = last
            self._places[last] = place

    def draw(self, chance: Chance) -> Key:
        """Return one of the keys."""
        return chance.pick(self._keys)


class Primary:
    """See the module. One thread; memory: the whole oplog and the state."""

    def __init__(self, chance: Chance, version: tuple[int, int]) -> None:
        """Begin with an empty server."""
        self.chance = chance
        self.version = version
        self.values = Values(chance, dollars=version >= (5, 0))
        self.state = State()
        self.entries: list[bytes] = []
        self.moments: list[Moment] = []
        self.changes: list[tuple[Change, ...]] = []
        self.starts: list[int] = []
        """For each entry, the first one that a reader who begins behind it has to see again."""
        self.term = 1
        self.traits: dict[bytes, Traits] = {}
        self.pools: dict[bytes, Pool] = {}
        self.builds: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {}
        """Index builds under way: from their UUID to the collection's and the specifications."""
        self.locks: set[tuple[bytes, Key]] = set()
        self.locked: Counter[bytes] = Counter()
        """How many documents of a collection unfinished transactions hold."""
        self.open: dict[int, int] = {}
        """Unfinished transactions: from a token of theirs to their first entry."""
        self.sessions = [self._session() for _ in range(4)]
        self._seconds = 1_760_000_000
        self._increment = 0
        self._milliseconds = 0
        self._counter = 0

    def _session(self) -> Session:
        user = bson.binary(self.chance.bytes(32))
        return Session(bson.embedded({"id": bson.uuid(self.chance.bytes(16)), "uid": user}))

    def free_session(self) -> Session:
        """Return a session without unfinished transaction, moved on to its next number."""
        free = [session for session in self.sessions if not session.busy]
        if not free:
            free = [self._session()]
            self.sessions += free
        session = self.chance.pick(free)
        session.advance()
        return session

    def new_uuid(self) -> bytes:
        """Return a UUID that nothing has yet."""
        return self.chance.bytes(16)

    def count(self) -> int:
        """Return 1, 2, 3 …: for names that must be new."""
        self._counter += 1
        return self._counter

    def _tick(self) -> Moment:
        chance = self.chance
        if chance.flip(0.03):
            self._seconds += chance.pick([1, 1, 1, 2, 10, 600])
            self._increment, self._milliseconds = 1, chance.below(300)
        else:
            self._increment += 1 if chance.flip(0.95) else chance.between(2, 5)
            self._milliseconds = min(999, self._milliseconds + chance.below(3))
        return Moment(self._seconds, self._increment)

    def log(
        self,
        operation: Operation,
        *,
        session: Session | None = None,
        statement: Value | None = None,
        previous: Value | None = None,
        more: Mapping[str, Value] | None = None,
    ) -> Value:
        """Write one entry and bring its changes about; return its optime."""
        moment = self._tick()
        stamp = {"ts": bson.timestamp(*moment), "t": bson.int64(self.term)}
        wall = bson.date(moment.seconds * 1000 + self._milliseconds)
        head: dict[str, Value | None] = {}
        if session is not None:
            head = {"lsid": session.lsid, "txnNumber": bson.int64(session.number)}
        fields: dict[str, Value | None] = {
            "op": bson.string(operation.op),
            "ns": bson.string(operation.ns),
            "ui": None if operation.ui is None else bson.uuid(operation.ui),
            "o": Value(bson.DOCUMENT, operation.o),
            "o2": None if operation.o2 is None else Value(bson.DOCUMENT, operation.o2),
        }
        tail = {"stmtId": statement, **dict(operation.extra)}
        version = {"v": bson.int32(2) if self.version < (5, 0) else bson.int64(2)}
        last = {"prevOpTime": previous, **(more or {})}
        if self.version >= (5, 0):
            entry = head | fields | tail | stamp | version | {"wall": wall} | last
        else:
            payload = {name: fields.pop(name) for name in ("o2", "o")}
            entry = stamp | version | fields | tail | {"wall": wall} | head | last | payload
        self.state.apply(operation.changes)
        self._follow(operation.changes)
        self.entries.append(bson.document(entry))
        self.moments.append(moment)
        self.changes.append(operation.changes)
        self.starts.append(min(self.open.values(), default=len(self.entries)))
        optime = bson.embedded(stamp)
        if session is not None:
            session.last = optime
        return optime

    def _follow(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Defined):
                if change.meta is None:
                    self.pools.pop(change.uuid)
                else:
                    self.pools.setdefault(change.uuid, Pool())
            elif change.document is None:
                self.pools[change.uuid].remove(change.key)
            else:
                self.pools[change.uuid].add(change.key)

    def command(
        self, db: str, o: bytes, ui: bytes | None, changes: Sequence[Change] = (), o2: bytes | None = None
    ) -> Value:
        """Write the entry of a command; return its optime."""
        extra: tuple[tuple[str, Value], ...] = ()
        if self.chance.flip(0.02):
            extra = (("fromMigrate", bson.boolean(True)),)
        return self.log(Operation("c", f"{db}.$cmd", ui, o, o2, tuple(changes), extra))

    def noop(self, o: bytes, ns: str = "", ui: bytes | None = None) -> Value:
        """Write an entry that changes nothing; return its optime."""
        return self.log(Operation("n", ns, ui, o))

    def lock(self, keys: Sequence[tuple[bytes, Key]]) -> None:
        """Keep everybody else from these documents, and from DDL on their collections."""
        self.locks.update(keys)
        self.locked.update(uuid for uuid, _ in keys)

    def unlock(self, keys: Sequence[tuple[bytes, Key]]) -> None:
        """Undo `lock`."""
        self.locks.difference_update(keys)
        self.locked.subtract(uuid for uuid, _ in keys)

    def idle(self, uuid: bytes) -> bool:
        """Whether DDL may touch a collection: no transaction holds documents of it."""
        return self.locked[uuid] <= 0

    def ordinary(self, *, capped: bool | None = None) -> list[Meta]:
        """Return the collections that applications write to."""
        return [
            meta
            for meta in self.state.metas.values()
            if meta.name != VIEWS and (capped is None or bool(self.traits[meta.uuid].limit) == capped)
        ]

    def building(self, uuid: bytes) -> list[bytes]:
        """Return the builds under way on a collection."""
        return [build for build, (collection, _) in self.builds.items() if collection == uuid]


def written(uuid: bytes, key: Key, document: bytes | None) -> tuple[Change, ...]:
    """Return the change of one document."""
    return (Written(uuid, key, document),)


def defined(meta: Meta) -> tuple[Change, ...]:
    """Return the change of one collection's description."""
    return (Defined(meta.uuid, meta),)
