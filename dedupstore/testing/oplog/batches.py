"""Many operations to an entry without a transaction: vectored inserts, batched deletes, ``applyOps``."""

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Value
from dedupstore.testing.oplog.model import Meta
from dedupstore.testing.oplog.primary import NO_OPTIME, Operation, Primary
from dedupstore.testing.oplog.transactions import stage, without_changes
from dedupstore.testing.oplog.writes import Staged, Writes

_SEPARATELY = {"multiOpType": bson.int32(1)}


class Batches:
    """Makes such entries for a `Primary`. One thread."""

    def __init__(self, primary: Primary, writes: Writes) -> None:
        """Make them for ``primary`` with writes from there."""
        self._primary = primary
        self._chance = primary.chance
        self._writes = writes

    def _meta(self) -> Meta | None:
        metas = self._primary.ordinary(capped=False)
        return self._chance.pick(metas) if metas else None

    def _inserts(self, meta: Meta, count: int) -> list[Operation]:
        staged: Staged = {}
        operations = []
        for _ in range(count):
            operation = self._writes.insert(meta, staged)
            if operation is not None:
                operations.append(operation)
                stage(operation, staged)
        return operations

    def _entry(self, ns: str, operations: list[Operation], o: dict[str, Value | None]) -> Operation:
        changes = tuple(change for operation in operations for change in operation.changes)
        return Operation("c", ns, None, bson.document(o), None, changes)

    def vectored_inserts(self) -> int:
        """Insert many documents: a chain of entries, each of which counts at once; return how many."""
        meta = self._meta()
        if meta is None:
            return 0
        session = self._primary.free_session()
        statement = total = 0
        for _ in range(self._chance.pick([1, 1, 2, 3])):
            operations = self._inserts(meta, self._chance.between(1, 6))
            parts = [operation.inner(statement + index) for index, operation in enumerate(operations)]
            statement += len(parts)
            total += len(parts)
            if parts:
                entry = self._entry("admin.$cmd", operations, {"applyOps": bson.array(parts)})
                self._primary.log(entry, session=session, previous=session.last, more=_SEPARATELY)
        return total

    def batched_deletes(self) -> int:
        """Delete many documents, as servers do for expired ones: no session; return how many."""
        meta = self._meta()
        if meta is None:
            return 0
        operations: list[Operation] = []
        staged: Staged = {}
        for _ in range(self._chance.between(1, 5)):
            operation = self._writes.delete(meta, staged)
            if operation is not None and operation.changes[0] not in [o.changes[0] for o in operations]:
                operations.append(operation)
                stage(operation, staged)
        if not operations:
            return 0
        if len(operations) > 2 and self._primary.version >= (7, 0) and self._chance.flip(0.5):
            self._chain_of_deletes(operations)
        else:
            o: dict[str, Value | None] = {"applyOps": without_changes(operations)}
            self._primary.log(self._entry("admin.$cmd", operations, o))
        return len(operations)

    def _chain_of_deletes(self, operations: list[Operation]) -> None:
        primary = self._primary
        token = primary.count()
        primary.open[token] = len(primary.entries)
        o: dict[str, Value | None] = {
            "applyOps": without_changes(operations[:2]),
            "partialTxn": bson.boolean(True),
        }
        last = primary.log(self._entry("admin.$cmd", [], o), previous=NO_OPTIME)
        del primary.open[token]
        rest = without_changes(operations[2:])
        o = {"applyOps": rest, "count": bson.int64(len(operations))}
        primary.log(self._entry("admin.$cmd", operations, o), previous=last)

    def user_apply_ops(self) -> int:
        """Apply operations by the command of that name; return how many."""
        staged: Staged = {}
        operations = []
        for _ in range(self._chance.between(1, 4)):
            meta = self._meta()
            operation = None if meta is None else self._writes.any_of(meta, staged)
            if operation is not None:
                operations.append(operation)
                stage(operation, staged)
        if operations:
            o: dict[str, Value | None] = {"applyOps": without_changes(operations)}
            if self._primary.version < (5, 0):
                o |= {"lsid": self._primary.sessions[0].lsid, "$db": bson.string("admin")}
            self._primary.log(self._entry(self._chance.pick(["admin.$cmd", "shop.$cmd"]), operations, o))
        return len(operations)
