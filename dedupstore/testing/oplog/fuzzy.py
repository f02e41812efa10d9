"""What a reader sees who scans a server while operations go on.

It asks for the collections first, then for the indexes of each, then reads the documents in ``_id`` order
(capped collections in natural order), some ranges at once, each document at another moment. Together with
the oplog from before to after this is a base for every timestamp from its end on.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.identity import Key, id_of, identity
from dedupstore.testing.oplog.model import VIEWS, Meta, State, Written, view_of


class Scanned(NamedTuple):
    """A collection as the reader has it."""

    meta: Meta
    """As listed; the indexes are of a later moment."""
    documents: list[bytes]
    """In ``_id`` order, a capped collection's in natural order: one may be there twice then."""


class Base(NamedTuple):
    """What a reader has at the end. All numbers are indexes of entries."""

    replay: int
    """The first entry that has to be applied."""
    start: int
    """What is before or at this one is in the base, whole transactions apart (see `replay`)."""
    end: int
    """From this one on the base and the oplog make a state of the server."""
    collections: tuple[Scanned, ...]
    """In order of database and name; without those of views."""
    views: dict[tuple[str, str], bytes]
    """From the names of views to their options."""

    def state(self) -> State:
        """Return the base as if it were the state of a server."""
        state = State()
        for meta, documents in self.collections:
            state.metas[meta.uuid] = meta
            held = state.documents[meta.uuid] = {}
            for document in documents:
                key = identity(id_of(document))
                held.pop(key, None)
                held[key] = document
        return state


@dataclass
class _Scan:
    """One range of one collection, being read."""

    meta: Meta
    low: Key | None
    high: Key | None
    turns: list[int]
    """When it reads a batch; at the last turn all that is left."""
    position: Key | None = None
    found: list[bytes] = field(default_factory=list)

    def read(self, held: dict[Key, bytes], order: dict[Key, int] | None, size: int | None) -> None:
        """Read ``size`` documents more (``None``: all); ``order`` is that of a capped collection."""
        if order is not None:
            keys = [key for key in held if self.position is None or (order[key],) > self.position]
        else:
            low = self.position
            keys = sorted(
                key
                for key in held
                if (low is None or key > low)
                and (self.low is None or key >= self.low)
                and (self.high is None or key < self.high)
            )
        for key in keys[:size]:
            self.found.append(held[key])
            self.position = key if order is None else (order[key],)


class Reader:
    """Scans a `History` between two entries; a seed decides when it reads what."""

    def __init__(self, history: History, seed: int) -> None:
        """Scan ``history``."""
        self._history = history
        self._chance = Chance(seed)
        self._orders: dict[bytes, dict[Key, int]] = {}
        self._numbers = 0

    def scan(self, start: int, end: int) -> Base:
        """Begin behind entry ``start``, be done behind ``end``."""
        chance = self._chance
        listed = start if chance.flip(0.3) else chance.between(start, start + (end - start) // 2)
        state = self._history.state(listed)
        described = {place: found for place, found in state.described().items() if found.kind == "view"}
        metas = sorted(state.metas.values())
        moments = {meta.uuid: chance.between(listed, end) for meta in metas}
        scans: list[_Scan] = []
        indexed: dict[bytes, Meta] = {}
        for meta in metas:
            if meta.capped:
                self._orders[meta.uuid] = {key: self._next() for key in state.documents[meta.uuid]}
        for index in range(listed, end + 1):
            for meta in metas:
                if moments[meta.uuid] == index and meta.uuid in state.metas:
                    indexed[meta.uuid] = meta._replace(indexes=state.metas[meta.uuid].indexes)
                    scans += self._ranges(indexed[meta.uuid], state, index, end)
            for scan in scans:
                if index in scan.turns and scan.meta.uuid in state.documents:
                    size = None if index == scan.turns[-1] else chance.below(30)
                    scan.read(state.documents[scan.meta.uuid], self._orders.get(scan.meta.uuid), size)
            if index < end:
                self._number(state, index + 1)
                self._history.advance(state, index + 1)
        found = [
            Scanned(meta, [document for scan in scans if scan.meta.uuid == uuid for document in scan.found])
            for uuid, meta in indexed.items()
        ]
        views = {place: view.options for place, view in described.items()}
        return Base(self._history.replay_start(start), start, end, tuple(sorted(found)), views)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _number(self, state: State, index: int) -> None:
        """Give the documents that entry ``index`` adds to capped collections their place."""
        for change in self._history.changes(index):
            if isinstance(change, Written) and change.uuid in self._orders:
                held = state.documents[change.uuid]
                if change.document is not None and change.key not in held:
                    self._orders[change.uuid][change.key] = self._next()

    def _ranges(self, meta: Meta, state: State, index: int, end: int) -> list[_Scan]:
        chance = self._chance
        keys = sorted(state.documents[meta.uuid])
        fences: list[Key] = []
        if len(keys) > 5 and not meta.capped:
            fences = sorted({chance.pick(keys) for _ in range(chance.below(3))})
        lows: list[Key | None] = [None, *fences]
        highs: list[Key | None] = [*fences, None]
        scans = []
        for low, high in zip(lows, highs, strict=True):
            turns = sorted({chance.between(index, end) for _ in range(chance.between(1, 5))})
            scans.append(_Scan(meta, low, high, turns))
        return scans


def exact(history: History, index: int) -> Base:
    """Return the base that a snapshot read of exactly what was behind entry ``index`` gives."""
    state = history.state(index)
    found = []
    for meta in state.metas.values():
        documents = state.documents[meta.uuid]
        keys = list(documents) if meta.capped else sorted(documents)
        found.append(Scanned(meta, [documents[key] for key in keys]))
    views = {
        (meta.db, name): options
        for meta in state.metas.values()
        if meta.name == VIEWS
        for name, options in map(view_of, state.documents[meta.uuid].values())
    }
    return Base(history.replay_start(index), index, index, tuple(sorted(found)), views)
