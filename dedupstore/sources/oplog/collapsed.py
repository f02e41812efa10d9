"""The outcome of a stretch of a log: changes by collection and document, to be read as often as wanted.

`Collapsed` answers what became of one document, of a collection (its changes in order of ``_id``, or for
a capped one in order of insertion), and puts a base together with what the log says (`documents`).
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Self

from dedupstore.errors import SourceError
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import Catalog, Key
from dedupstore.sources.oplog.change import (
    DELETE,
    PATCH,
    SET,
    Change,
    failed,
    folded,
    missing,
    pack_change,
    unpack_change,
)
from dedupstore.sources.oplog.compose import Patch
from dedupstore.sources.oplog.definitions import field_of, truth
from dedupstore.sources.oplog.merge import limits_of, merge, merge_natural, trimmed
from dedupstore.sources.oplog.position import Position, Ts
from dedupstore.sources.oplog.spill import Record, Runs

_OVERHEAD: Final = 400
"""Bytes that a document's state takes up beside its contents, about."""
_ORDINAL: Final = 4
_LENGTH: Final = struct.Struct(">I")
_SORTED_AT_ONCE: Final = 32 * 1024 * 1024
"""Bytes."""


class _State:
    """What is known of one document; `kind` as in `Change`, `SET` with a patch: the patch comes on top."""

    __slots__ = ("document", "id", "inserted", "kind", "order", "patch", "strict", "ts")

    def __init__(self, identity: bytes, kind: int, order: int, ts: Ts) -> None:
        self.id = identity
        self.kind = kind
        self.document = b""
        self.patch: Patch | None = None
        self.order = order
        self.inserted = False
        self.strict = False
        self.ts = ts

    def change(self, key: bytes) -> Change:
        """Return it as a change. Raises `SourceError` for updates that can not be applied."""
        patch = self.patch
        documents: tuple[bytes, ...] = ()
        if self.kind == PATCH and patch is not None:
            documents = patch.updates()
        change = Change(key, self.id, self.kind, documents, self.order, self.inserted, self.strict, self.ts)
        if self.kind == SET:
            try:
                document = self.document if patch is None else patch.apply(self.document)
            except SourceError as error:
                raise failed(change, error) from error
            return change._replace(documents=(document,))
        return change


class Table:
    """The documents of one collection that the log speaks of. Changes return how many bytes they add."""

    def __init__(self, ordinal: int, *, natural: bool) -> None:
        """``ordinal`` tells it apart from others, and from what the collection was before it was emptied."""
        self.ordinal = ordinal
        self.natural = natural
        self.used = 0
        self._states: dict[bytes, _State] = {}

    def set(self, key: bytes, identity: bytes, document: bytes, order: int, ts: Ts, *, inserted: bool) -> int:
        """Put a document there, whatever was: ``inserted``, or in the place of the one that is there."""
        state = self._states.get(key)
        added = len(document)
        if state is None:
            state = self._states[key] = _State(identity, SET, order, ts)
            added += _OVERHEAD + len(key) + len(identity)
        else:
            added -= self._strip(state)
            state.id, state.kind, state.ts = identity, SET, ts
        if inserted:
            state.inserted, state.order = True, order
        state.document = document
        self.used += added
        return added

    def delete(self, key: bytes, identity: bytes, order: int, ts: Ts) -> int:
        """Take a document away, if it was there."""
        state = self._states.get(key)
        if state is None:
            self._states[key] = _State(identity, DELETE, order, ts)
            added = _OVERHEAD + len(key) + len(identity)
        else:
            added = -self._strip(state)
            state.kind, state.inserted, state.ts = DELETE, False, ts
        self.used += added
        return added

    def patch(self, key: bytes, identity: bytes, update: bytes, order: int, ts: Ts, *, strict: bool) -> int:
        """Update a document; with ``strict`` it must be there. Raises `SourceError`."""
        state = self._states.get(key)
        added = 0
        if state is None:
            state = self._states[key] = _State(identity, PATCH, order, ts)
            added = _OVERHEAD + len(key) + len(identity)
        elif state.kind == DELETE:
            if strict:
                raise missing(state.change(key)._replace(ts=ts))
            return 0
        if state.patch is None:
            state.patch = Patch()
        before = state.patch.size
        state.patch.add(update)
        added += state.patch.size - before
        state.strict = state.strict or strict
        state.ts = ts
        self.used += added
        return added

    @staticmethod
    def _strip(state: _State) -> int:
        """Take the contents out of a state; return how many bytes they were."""
        size = len(state.document) + (state.patch.size if state.patch else 0)
        state.document, state.patch = b"", None
        return size

    def change(self, key: bytes) -> Change | None:
        """Return what became of one document."""
        state = self._states.get(key)
        return None if state is None else state.change(key)

    def changes(self, after: bytes = b"") -> Iterator[Change]:
        """Yield all changes in order of their keys; with ``after`` those behind it."""
        for key in sorted(key for key in self._states if key > after or not after):
            yield self._states[key].change(key)

    def records(self) -> Iterator[Record]:
        """Yield all changes as records of the whole."""
        prefix = self.prefix()
        for change in self.changes():
            yield prefix + change.key, pack_change(change)

    def prefix(self, following: int = 0) -> bytes:
        """Return what all keys of this table's records begin with."""
        return (self.ordinal + following).to_bytes(_ORDINAL, "big")

    def clear(self) -> None:
        """Forget everything: it was written."""
        self._states.clear()
        self.used = 0


def combine(key: bytes, payloads: Sequence[bytes]) -> bytes:
    """Put records of one document together."""
    return pack_change(folded([unpack_change(key[_ORDINAL:], payload) for payload in payloads]))


class Collapsed:
    """What a stretch of a log comes to. Close it: temporary files may be behind it.

    Collections go by their keys in `catalog`: the UUID, where there is one. A UUID that the base did not know
    of a collection is taken as well.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        tables: Mapping[Key, Table],
        runs: Runs,
        emptied: frozenset[Key],
        last: Ts | None,
        term: int,
        entries: int,
        open_since: Ts | None,
        fuzzy: bool,
    ) -> None:
        self.catalog = catalog
        """As of the end."""
        self.last = last
        """The last entry; None if there was none."""
        self.position = None if last is None else Position(last, term)
        """The same with its term."""
        self.entries = entries
        """How many there were."""
        self.open_since = open_since
        """Where the oldest transaction began that was undecided at the end; None: there was none."""
        self.fuzzy = fuzzy
        """Whether the base was read while the log went on."""
        self._tables = tables
        self._runs = runs
        self._emptied = emptied

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the temporary files back; a second call does nothing."""
        self._runs.close()

    def dropped(self, key: Key) -> bool:
        """Say whether a collection is gone at the end."""
        return self.catalog.info(self._key(key)) is None

    def discards(self, key: Key) -> bool:
        """Say whether the base's documents do not count: it had none, or the log took all of them away."""
        key = self._key(key)
        return key in self._emptied or self.catalog.origin(key) is None

    def natural(self, key: Key) -> bool:
        """Say whether the documents are in order of insertion (capped)."""
        key = self._key(key)
        table = self._tables.get(key)
        if table is not None:
            return table.natural
        info = (None if key in self._emptied else self.catalog.origin(key)) or self.catalog.info(key)
        return info is not None and truth(field_of(info.options, b"capped"))

    def touched(self, key: Key) -> bool:
        """Say whether there may be a change of a document, or the base's are to be left out."""
        key = self._key(key)
        return key in self._tables or self.discards(key)

    def changes(self, key: Key, after: bytes | None = None) -> Iterator[Change]:
        """Yield the changes of a collection: one a document, in order of their keys.

        ``after``: only what lies behind that identity. Of a capped collection they come in the order in
        which documents were inserted, and there must be no ``after``. Raises `SourceError` where the log
        contradicts itself.
        """
        table = self._tables.get(self._key(key))
        if table is None:
            return iter(())
        found = self._by_key(table, b"" if after is None else sort_key(after))
        return self._by_order(found) if table.natural else found

    def change(self, key: Key, identity: bytes) -> Change | None:
        """Return what became of one document; None: what the base says. Reads one block of each file."""
        table = self._tables.get(self._key(key))
        if table is None:
            return None
        place = sort_key(identity)
        low = table.prefix() + place
        spilled = [
            unpack_change(place, payload)
            for _, payloads in self._runs.scan(low, low + b"\0")
            for payload in payloads
        ]
        held = table.change(place)
        found = [*spilled, held] if held is not None else spilled
        return folded(found) if found else None

    def documents(self, key: Key, base: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """Yield the documents of a collection at the end.

        ``base`` gives those of the base, in order of ``_id`` or, of a capped collection, as they were
        inserted; it may be called several times, or not at all. A capped collection is cut at the front to
        what its options allow, since servers do that without a word in the log. Raises `SourceError` where
        base and log do not belong together.
        """
        info = self.catalog.info(self._key(key))
        if info is None:
            return iter(())
        where = info.namespace
        begin: Callable[[], Iterator[bytes]] = (lambda: iter(())) if self.discards(key) else base
        if not self.natural(key):
            return merge(begin(), self.changes(key), fuzzy=self.fuzzy, where=where)
        return trimmed(
            lambda: merge_natural(begin(), lambda: self.changes(key), where=where),
            *limits_of(info.options),
        )

    def _key(self, key: Key) -> Key:
        if key in self._tables:
            return key
        return self.catalog.key_of_uuid(key) or key

    def _by_key(self, table: Table, after: bytes) -> Iterator[Change]:
        """Yield the changes of a table, those in files and those in memory put together."""
        prefix = table.prefix()
        low = prefix + after + b"\0" if after else prefix
        spilled = self._runs.scan(low, table.prefix(1))
        held = table.changes(after)
        waiting = next(held, None)
        for long_key, payloads in spilled:
            key = long_key[_ORDINAL:]
            found = [unpack_change(key, payload) for payload in payloads]
            while waiting is not None and waiting.key < key:
                yield waiting
                waiting = next(held, None)
            if waiting is not None and waiting.key == key:
                found.append(waiting)
                waiting = next(held, None)
            yield folded(found)
        if waiting is not None:
            yield waiting
            yield from held

    def _by_order(self, changes: Iterator[Change]) -> Iterator[Change]:
        """Yield changes in the order of insertion; many are sorted in temporary files."""
        runs = Runs(self._runs.folder, combine)
        try:
            batch: list[Record] = []
            size = 0
            for change in changes:
                packed = pack_change(change)
                head = _LENGTH.pack(len(change.key)) + change.key
                batch.append((change.order.to_bytes(8, "big"), head + packed))
                size += len(packed) + _OVERHEAD
                if size > _SORTED_AT_ONCE:
                    runs.add(sorted(batch))
                    batch, size = [], 0
            if len(runs):
                runs.add(sorted(batch))
                batch = []
            spilled = (payload for _, payloads in runs.scan(b"", b"\xff" * 9) for payload in payloads)
            for payload in spilled if len(runs) else (payload for _, payload in sorted(batch)):
                end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
                yield unpack_change(payload[_LENGTH.size : end], payload[end:])
        finally:
            runs.close()
