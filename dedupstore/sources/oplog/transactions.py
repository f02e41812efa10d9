"""Operations that belong together, put together: transactions, and lists of operations in one entry.

An ``applyOps`` without a chain counts at once: a user's command, a vectored insert (``multiOpType: 1``), a
small transaction. A transaction of several entries is a chain: each names the one before (``prevOpTime``),
all but the last are ``partialTxn``. It takes effect with its last entry, or if that is a ``prepare`` with the
``commitTransaction`` that follows; an ``abortTransaction`` undoes it. All its operations have the time of the
entry that makes them count. A chain that is still open when the log ends has no effect.

A chain that began before the first entry seen can not be completed. That matters only if it commits: then
it is an error. `Assembler.open_since` tells from where on the log must be read.

Threads: one. Memory: entries of open transactions are kept in temporary files beyond `MEMORY` bytes each.
"""

import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.definitions import field_of, truth
from dedupstore.sources.oplog.entry import (
    COMMAND,
    NOOP,
    Entry,
    command_of,
    parse_inner,
    refused,
)
from dedupstore.sources.oplog.position import ZERO, Ts

MEMORY = 4 * 1024 * 1024
_DEPTH_MAX: Final = 10
_SEPARATE: Final = 1
_SIZE = struct.Struct("<i")


class _Chain:
    """The operations of a transaction that is not decided yet."""

    def __init__(self, entry: Entry, folder: Path | None) -> None:
        self.number = entry.number
        self.first = entry.ts
        self.last = entry.ts
        self.missing: Ts | None = None
        """An entry that belongs to it and was not seen."""
        self.total: int | None = None
        self._file = tempfile.SpooledTemporaryFile(MEMORY, dir=str(folder) if folder else None)  # noqa: SIM115

    def add(self, entry: Entry) -> None:
        self._file.write(entry.o)
        self.last = entry.ts

    def operations(self, commit: Entry) -> Iterator[Entry]:
        """Yield all operations as of the entry that commits them; to be called once. Closes it."""
        with self._file as file:
            file.seek(0)
            seen = 0
            while head := file.read(_SIZE.size):
                command = head + file.read(_SIZE.unpack(head)[0] - _SIZE.size)
                for operation in _listed(command, commit, 1):
                    seen += 1
                    yield operation
        if self.total not in {None, seen}:
            raise refused(commit, f"commits {self.total} operations of which {seen} are there")

    def close(self) -> None:
        self._file.close()


class Assembler:
    """Turns entries into operations, in the order in which they take effect. Close it in every case."""

    def __init__(self, folder: Path | None = None) -> None:
        """``folder`` is for temporary files (``None``: where the system puts them)."""
        self._folder = folder
        self._sessions: dict[bytes, _Chain] = {}
        self._nameless: dict[Ts, _Chain] = {}  # by the last entry: chains of no session

    @property
    def open_since(self) -> Ts | None:
        """The first entry of the oldest transaction that is not decided; None: there is none.

        A base taken now must be completed by a log that is read from there. Where the beginning was not seen
        it is an entry of the transaction before which there are more.
        """
        chains = (*self._sessions.values(), *self._nameless.values())
        return min((min(chain.first, chain.missing or chain.first) for chain in chains), default=None)

    def feed(self, entry: Entry, *, effective: bool = True) -> Iterable[Entry]:
        """Take the next entry; return the operations that take effect with it: kinds i, u, d and c.

        They must be gone through before the next call. Not ``effective``: the base has what takes effect
        here, so nothing is returned. Raises `SourceError` for a transaction that commits and is not complete.
        """
        if entry.op != COMMAND:
            return (entry,) if effective and entry.op != NOOP else ()
        name = command_of(entry)
        if name == "applyOps":
            return self._listed(entry, effective)
        if name == "commitTransaction":
            return self._committed(entry, self._decided(entry), effective)
        if name == "abortTransaction":
            chain = self._decided(entry)
            if chain is not None:
                chain.close()
            return ()
        return (entry,) if effective else ()

    def close(self) -> None:
        """Forget all open transactions; a second call does nothing."""
        for chain in (*self._sessions.values(), *self._nameless.values()):
            chain.close()
        self._sessions.clear()
        self._nameless.clear()

    def _listed(self, entry: Entry, effective: bool) -> Iterable[Entry]:
        if entry.multi not in {0, _SEPARATE}:
            raise refused(entry, f"has the multiOpType {entry.multi}, which this version does not know")
        partial, prepared = truth(field_of(entry.o, b"partialTxn")), truth(field_of(entry.o, b"prepare"))
        linked = entry.previous is not None and entry.multi != _SEPARATE
        if not (partial or prepared or (linked and entry.previous != ZERO)):
            self._forget_older(entry)
            return _listed(entry.o, entry, 1) if effective else ()
        chain = self._chain_of(entry)
        chain.add(entry)
        count = field_of(entry.o, b"count")
        if count is not None:
            chain.total = raw.int_of(*count)
        if partial or prepared:
            if entry.session:
                self._sessions[entry.session] = chain
            else:
                self._nameless[entry.ts] = chain
            return ()
        return self._committed(entry, chain, effective)

    def _decided(self, entry: Entry) -> _Chain | None:
        """Take the transaction that an entry commits or aborts out of the open ones."""
        self._forget_older(entry)
        chain = self._sessions.get(entry.session)
        return (
            self._sessions.pop(entry.session) if chain is not None and chain.number == entry.number else None
        )

    def _chain_of(self, entry: Entry) -> _Chain:
        """Take the chain that an entry goes on with out of the open ones, or begin one."""
        self._forget_older(entry)
        previous = entry.previous or ZERO
        if entry.session:
            chain = self._sessions.pop(entry.session, None)
        else:
            chain = self._nameless.pop(previous, None)
        if chain is not None and previous == ZERO:  # begun anew: what was there never came to an end
            chain.close()
            chain = None
        if chain is None:
            chain = _Chain(entry, self._folder)
            chain.missing = None if previous == ZERO else previous
        elif chain.last != previous:
            chain.missing = previous
        return chain

    def _forget_older(self, entry: Entry) -> None:
        """Drop the earlier transaction of a session that has begun another one."""
        chain = self._sessions.get(entry.session)
        if chain is not None and chain.number < entry.number:
            del self._sessions[entry.session]
            chain.close()

    def _committed(self, entry: Entry, chain: _Chain | None, effective: bool) -> Iterable[Entry]:
        if not effective:
            if chain is not None:
                chain.close()
            return ()
        if chain is None or chain.missing is not None:
            since = "" if chain is None or chain.missing is None else f" {chain.missing}"
            if chain is not None:
                chain.close()
            raise refused(
                entry,
                f"commits a transaction of which an earlier entry{since} is missing",
                "the log must be read from its first entry on; choose a base or a range that begins earlier",
            )
        return chain.operations(entry)


def _listed(command: bytes, around: Entry, depth: int) -> Iterator[Entry]:
    """Yield the operations in an ``applyOps``, those of nested ones too."""
    if depth > _DEPTH_MAX:
        raise refused(around, "nests applyOps too deep")
    found = field_of(command, b"applyOps")
    if found is None or found[0] != raw.ARRAY:
        raise refused(around, "is an applyOps without operations")
    operations = found[1]
    for _, kind, start, end in raw.elements(operations):
        if kind != raw.OBJECT:
            raise refused(around, f"has a {raw.TYPE_NAMES[kind]} among its operations")
        operation = parse_inner(operations[start:end], around)
        if operation.op == NOOP:
            continue
        if operation.op == COMMAND and command_of(operation) == "applyOps":
            yield from _listed(operation.o, around, depth + 1)
        else:
            yield operation
