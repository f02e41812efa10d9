"""Histories of a replica set: the oplog that a server would have written, and what it held all along.

`History` makes a random sequence of operations over several databases and collections, from a seed: the
same seed, options and version of this module give the same bytes. `History.entries` has the shapes of
real servers (4.4 to 8.0); `History.state` tells what the server held behind every entry;
`dedupstore.testing.oplog.fuzzy` tells what a reader would have seen that scanned it meanwhile.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.batches import Batches
from dedupstore.testing.oplog.bson import Value
from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.ddl import Definitions
from dedupstore.testing.oplog.model import Change, Meta, Moment, State
from dedupstore.testing.oplog.primary import NO_OPTIME, Operation, Primary
from dedupstore.testing.oplog.transactions import Transactions
from dedupstore.testing.oplog.writes import Writes

CHECKPOINTS = 48
"""States that a history keeps whole; the others are made from the one before."""


@dataclass(frozen=True)
class HistoryOptions:
    """How a history is made."""

    version: tuple[int, int] | None = None
    """Of the server, from (4, 4) to (8, 0); ``None``: the seed chooses one from (5, 0) on."""
    databases: tuple[str, ...] = ("shop", "Crm", "über")
    definitions: float = 0.05
    """How often an operation is data definition."""
    transactions: float = 0.08
    """How often an operation is a transaction."""
    capped: float = 0.12
    """Share of the collections that are capped."""
    documents: int = 1000
    """With so many a collection grows no more: with few each one is changed often."""
    v1_updates: float | None = None
    """Share of updates by operators that are logged as ``$v: 1``; ``None``: all up to 4.4, none later."""


class History:
    """See the module. Made whole at once; one thread; memory: all entries and the last state."""

    def __init__(self, seed: int, operations: int, *, options: HistoryOptions | None = None) -> None:
        """Make a history of at least so many operations; every part of a transaction counts."""
        self.options = options or HistoryOptions()
        chance = Chance(seed)
        drawn = chance.pick([(5, 0), (6, 0), (7, 0), (8, 0)])
        self.version = self.options.version or drawn
        self._primary = Primary(chance, self.version)
        self._author = _Author(self._primary, self.options)
        self._author.write(operations)
        self._checkpoints: list[tuple[int, State]] = [(-1, State())]

    @property
    def entries(self) -> list[bytes]:
        """The oplog: one raw document an entry."""
        return self._primary.entries

    @property
    def moments(self) -> list[Moment]:
        """The timestamp of each entry; they rise strictly."""
        return self._primary.moments

    def state(self, index: int) -> State:
        """Return what the server held behind entry ``index``; -1: before the first. Not to be changed."""
        step = max(1, len(self.entries) // CHECKPOINTS)
        while self._checkpoints[-1][0] + step <= index:
            last, state = self._checkpoints[-1]
            self._checkpoints.append((last + step, self._moved(state, last, last + step)))
        at, state = self._checkpoints[(index + 1) // step]
        return self._moved(state, at, index)

    def _moved(self, state: State, last: int, index: int) -> State:
        state = state.copy()
        for changes in self._primary.changes[last + 1 : index + 1]:
            state.apply(changes)
        return state

    def changes(self, index: int) -> tuple[Change, ...]:
        """Return what entry ``index`` changed."""
        return self._primary.changes[index]

    def advance(self, state: State, index: int) -> None:
        """Change what was held behind the entry before ``index`` to what was held behind it."""
        state.apply(self._primary.changes[index])

    def index(self, moment: Moment) -> int:
        """Return the index of the last entry at or before a timestamp; -1: there is none."""
        found = bisect_left(self.moments, moment)
        return found if found < len(self.moments) and self.moments[found] == moment else found - 1

    def replay_start(self, index: int) -> int:
        """Return the first entry needed behind ``index``: earlier if a transaction was unfinished there."""
        return self._primary.starts[index] if index >= 0 else 0


class _Author:
    """Decides what happens next."""

    def __init__(self, primary: Primary, options: HistoryOptions) -> None:
        self._primary = primary
        self._chance = primary.chance
        self._options = options
        share = options.v1_updates
        if share is None:
            share = 1.0 if primary.version < (5, 0) else 0.0
        self._writes = Writes(primary, share, options.documents)
        self._definitions = Definitions(primary, options.databases, options.capped)
        self._transactions = Transactions(primary, self._writes, self._definitions)
        self._batches = Batches(primary, self._writes)
        made = self._definitions
        self._ddl: list[tuple[Callable[[], object], int]] = [
            *[(made.create, 12), (made.drop, 4), (made.drop_database, 1), (made.rename, 9)],
            *[(made.rename_across, 3), (made.convert_to_capped, 2), (made.empty_capped, 2), (made.modify, 9)],
            *[(made.create_view, 6), (made.change_view, 6), (made.create_index, 12), (made.start_build, 8)],
            *[(made.finish_build, 10), (made.drop_indexes, 5), (made.modify_index, 7)],
        ]

    def write(self, operations: int) -> None:
        """Write the entries of so many operations."""
        self._message("initiating set")
        while len(self._primary.ordinary()) < 3:
            self._definitions.create()
        done = 0
        while done < operations:
            done += self._next()
            while len(self._primary.ordinary()) < 2:
                self._definitions.create()

    def _next(self) -> int:
        chance, options = self._chance, self._options
        if chance.flip(0.3):
            self._transactions.carry_on()
        if chance.flip(0.02):
            self._noop()
        if chance.flip(options.definitions):
            chance.weighted(self._ddl)()
            return 1
        if chance.flip(options.transactions):
            return self._transactions.begin()
        if chance.flip(0.04):
            return self._many()
        return self._one()

    def _many(self) -> int:
        ways: list[tuple[Callable[[], int], int]] = [(self._batches.user_apply_ops, 2)]
        if self._primary.version >= (6, 0):
            ways.append((self._batches.batched_deletes, 3))
        if self._primary.version >= (8, 0):
            ways.append((self._batches.vectored_inserts, 6))
        return self._chance.weighted(ways)()

    def _message(self, words: str) -> None:
        self._primary.noop(bson.document({"msg": bson.string(words)}))

    def _noop(self) -> None:
        kind = self._chance.below(4)
        if kind == 0:
            self._primary.term += 1
            self._message("new primary")
        elif kind == 1:
            self._primary.noop(bson.document({"note": bson.embedded({"by": self._primary.values.scalar()})}))
        else:
            self._message("periodic noop")

    def _one(self) -> int:
        meta = self._chance.pick(self._primary.ordinary())
        if self._primary.traits[meta.uuid].limit:
            return self._capped(meta)
        operation = self._writes.any_of(meta)
        if operation is None:
            return 1
        if operation.op in "ud" and self._chance.flip(0.04):
            self._find_and_modify(operation, meta)
        elif self._chance.flip(0.25):
            session = self._primary.free_session()
            statement = bson.int32(self._chance.below(3))
            self._primary.log(operation, session=session, statement=statement, previous=NO_OPTIME)
        else:
            self._primary.log(operation)
        return 1

    def _find_and_modify(self, operation: Operation, meta: Meta) -> None:
        primary = self._primary
        session = primary.free_session()
        more: dict[str, Value]
        if primary.version >= (5, 0):
            more = {"needsRetryImage": bson.string(self._chance.pick(["preImage", "postImage"]))}
            if operation.op == "d":
                more = {"needsRetryImage": bson.string("preImage")}
        else:
            image = next(iter(primary.state.documents[meta.uuid].values()))
            more = {"preImageOpTime": primary.noop(image, f"{meta.db}.{meta.name}", meta.uuid)}
        extra = (*operation.extra, *more.items())
        operation = operation._replace(extra=extra)
        primary.log(operation, session=session, statement=bson.int32(0), previous=NO_OPTIME)

    def _capped(self, meta: Meta) -> int:
        primary = self._primary
        held = primary.state.documents[meta.uuid]
        limit = primary.traits[meta.uuid].limit
        trimming = primary.version >= (5, 0)
        if held and self._chance.flip(0.2):
            operation = self._writes.update(meta)
        else:
            operation = self._writes.insert(meta) if trimming or len(held) < limit else None
        if operation is None:
            return 1
        while operation.op == "i" and len(held) >= limit:
            key, document = next(iter(held.items()))
            primary.log(self._writes.deletion(meta, key, document))
        primary.log(operation)
        return 1
