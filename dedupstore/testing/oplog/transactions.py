"""Transactions: in one entry, in chains, prepared; committed, aborted, left behind by a failover."""

from collections.abc import Sequence
from dataclasses import dataclass

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Value
from dedupstore.testing.oplog.ddl import Definitions
from dedupstore.testing.oplog.identity import Key
from dedupstore.testing.oplog.model import Change, Written
from dedupstore.testing.oplog.primary import NO_OPTIME, Operation, Primary, Session
from dedupstore.testing.oplog.writes import Staged, Writes

_TRUE = bson.boolean(True)


@dataclass
class Transaction:
    """A transaction between its first entry and its last."""

    session: Session
    pieces: list[list[Operation]]
    """What is still to be logged, an entry each."""
    ending: str
    """``"commit"``, ``"prepare"`` (commit or abort follow) or ``"failover"``."""
    keys: list[tuple[bytes, Key]]
    changes: list[Change]
    count: int
    token: int
    logged: int = 0


def without_changes(operations: Sequence[Operation]) -> Value:
    """Return operations as the array of an ``applyOps``."""
    return bson.array([operation.inner() for operation in operations])


class Transactions:
    """Begins and carries on the transactions of a `Primary`. One thread."""

    def __init__(self, primary: Primary, writes: Writes, definitions: Definitions) -> None:
        """Do so for ``primary`` with writes and definitions from these."""
        self._primary = primary
        self._chance = primary.chance
        self._writes = writes
        self._definitions = definitions
        self.unfinished: list[Transaction] = []

    def _operations(self, limit: int) -> tuple[list[Operation], Staged]:
        operations: list[Operation] = []
        staged: Staged = {}
        metas = self._primary.ordinary(capped=False)
        chosen = self._chance.shuffled(metas)[: self._chance.between(1, 3)]
        for _ in range(limit if chosen else 0):
            operation = self._writes.any_of(self._chance.pick(chosen), staged)
            if operation is not None:
                operations.append(operation)
                stage(operation, staged)
        return operations, staged

    def begin(self) -> int:
        """Begin a transaction, and end it if it is one of a single entry; return its operations."""
        operations, staged = self._operations(self._chance.pick([1, 2, 2, 3, 5, 8, 14]))
        if not operations:
            return 0
        way = self._chance.weighted([("single", 50), ("chain", 20), ("prepare", 24), ("failover", 6)])
        session = self._primary.free_session()
        if way == "single" or (way == "chain" and len(operations) < 2):
            self._single(operations, session)
            return len(operations)
        count = self._chance.between(1 if way == "prepare" else 2, 4)
        size = -(-len(operations) // count)
        pieces = [operations[at : at + size] for at in range(0, len(operations), size)]
        if way == "prepare" and self._chance.flip(0.04):
            operations, staged, pieces = [], {}, [[]]
        ending = "commit" if way == "chain" else way
        changes = [change for operation in operations for change in operation.changes]
        keys = list(staged)
        token = self._primary.count()
        transaction = Transaction(session, pieces, ending, keys, changes, len(operations), token)
        session.busy = True
        self._primary.lock(keys)
        self._primary.open[token] = len(self._primary.entries)
        self.unfinished.append(transaction)
        self.advance(transaction)
        if self._chance.flip(0.5):
            while transaction.pieces and transaction in self.unfinished:
                self.advance(transaction)
        return len(operations)

    def _single(self, operations: list[Operation], session: Session) -> None:
        if self._chance.flip(0.12):
            operations = self._with_creation() + operations
        changes = tuple(change for operation in operations for change in operation.changes)
        o = bson.document({"applyOps": without_changes(operations)})
        operation = Operation("c", "admin.$cmd", None, o, None, changes)
        self._primary.log(operation, session=session, previous=NO_OPTIME)

    def _with_creation(self) -> list[Operation]:
        """Make a collection, and perhaps an index and documents, inside a transaction."""
        found = self._definitions.fresh_creation()
        if found is None:
            return []
        creation, meta = found
        index = self._definitions.fresh_index(meta)
        operations = [creation] if index is None else [creation, index]
        staged: Staged = {}
        for _ in range(self._chance.below(3)):
            insert = self._writes.insert(meta, staged)
            if insert is not None:
                operations.append(insert)
                stage(insert, staged)
        return operations

    def carry_on(self) -> None:
        """Carry on with one of the unfinished transactions."""
        if self.unfinished:
            self.advance(self._chance.pick(self.unfinished))

    def advance(self, transaction: Transaction) -> None:
        """Write the next entry of this transaction."""
        if transaction.pieces:
            self._piece(transaction)
        elif transaction.ending == "prepare":
            self._decide(transaction, commit=self._chance.flip(0.7))
        elif transaction.ending == "failover":
            self._primary.term += 1
            self._primary.noop(bson.document({"msg": bson.string("new primary")}))
            self._decide(transaction, commit=False)

    def _piece(self, transaction: Transaction) -> None:
        piece = transaction.pieces.pop(0)
        last = not transaction.pieces
        transaction.logged += 1
        o: dict[str, Value | None] = {"applyOps": without_changes(piece)}
        changes: tuple[Change, ...] = ()
        if not last or transaction.ending == "failover":
            o["partialTxn"] = _TRUE
        elif transaction.ending == "prepare":
            o["prepare"] = _TRUE
        if last and transaction.ending in ("commit", "prepare") and transaction.logged > 1:
            o["count"] = bson.int64(transaction.count)
        if last and transaction.ending == "commit":
            changes = tuple(transaction.changes)
            self._end(transaction)
        session = transaction.session
        operation = Operation("c", "admin.$cmd", None, bson.document(o), None, changes)
        self._primary.log(operation, session=session, previous=session.last)

    def _decide(self, transaction: Transaction, *, commit: bool) -> None:
        primary = self._primary
        changes: tuple[Change, ...] = ()
        o = bson.document({"abortTransaction": bson.int32(1)})
        if commit:
            moment = bson.timestamp(*primary.moments[-1])
            o = bson.document({"commitTransaction": bson.int32(1), "commitTimestamp": moment})
            changes = tuple(transaction.changes)
        self._end(transaction)
        operation = Operation("c", "admin.$cmd", None, o, None, changes)
        primary.log(operation, session=transaction.session, previous=transaction.session.last)

    def _end(self, transaction: Transaction) -> None:
        self._primary.unlock(transaction.keys)
        del self._primary.open[transaction.token]
        self.unfinished.remove(transaction)
        transaction.session.busy = False


def stage(operation: Operation, staged: Staged) -> None:
    """Let later operations of the same entry or transaction see this one."""
    for change in operation.changes:
        if isinstance(change, Written):
            staged[change.uuid, change.key] = change.document
