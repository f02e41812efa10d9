"""A stretch of a log as what it comes to: one change a document, and the catalog at its end.

Entries are read once, in order. What is known of a document is kept by collection and `sort_key`; beyond
``memory`` bytes it goes to temporary files (`spill`), and what several of them say of one document
is put together when it is read.

A base may be fuzzy: read while the log went on, between the first entry and ``fuzzy_until``. Then every entry
up to there is applied to documents that may already show it: an insertion sets, a deletion of what is not
there is none, an update of what is not there is passed over (its deletion follows). Behind that an update of
what is not there is an error that names the document.

Two values of ``_id`` are one document where the server's comparison under the simple collation calls them
equal. A collection with another default collation is treated alike: its ids are told apart by
their bytes, which is what the log has, but lie in another order than in the server's index.

Capped collections keep the order of insertion; see `merge`.

Threads: collapsing belongs to one; a `Collapsed` may be read by any number at once.
Memory: ``memory`` and the catalog; reading, 64 KiB for each of at most some dozens of files.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import DEFINITIONS, Catalog, Key
from dedupstore.sources.oplog.collapsed import Collapsed, Table, combine
from dedupstore.sources.oplog.commands import apply_command
from dedupstore.sources.oplog.definitions import field_of, truth
from dedupstore.sources.oplog.diff import is_document
from dedupstore.sources.oplog.entry import COMMAND, DELETE, INSERT, Entry, located, parse_entry, refused
from dedupstore.sources.oplog.position import Ts
from dedupstore.sources.oplog.spill import Runs
from dedupstore.sources.oplog.transactions import Assembler

MEMORY: Final = 64 * 1024 * 1024
_NO_ID: Final = b"\xff"
"""Before the number that is the key of a document without ``_id``: no sort key begins so."""
Keep = Callable[[Key, bytes], bool]
"""Whether a document, by the key of its collection and its identity, is of interest."""


def collapse(
    entries: Iterable[bytes],
    catalog: Catalog,
    *,
    spill: Path,
    until: Ts | None = None,
    before: Ts | None = None,
    after: Ts | None = None,
    fuzzy_until: Ts | None = None,
    keep: Keep | None = None,
    memory: int = MEMORY,
) -> Collapsed:
    """Collapse raw entries, in order of the log, that follow the state that ``catalog`` (not changed) is of.

    ``until``: the last timestamp that counts, ``before``: the first that does not; the iteration ends at the
    first entry beyond. ``after``: what takes effect up to there is in the base; such entries are read only
    for transactions that are still open. ``fuzzy_until``: see above. ``keep``: documents that do not matter
    are passed over. ``spill``: folder for temporary files; ``memory``: bytes, about.

    Close the result. Raises `SourceError` for what can not be replayed, with its timestamp and namespace, and
    where base and log do not belong together; `StoreFull`.
    """
    if until is not None and fuzzy_until is not None and until < fuzzy_until:
        raise SourceError(
            f"the base was read until {fuzzy_until} and does not tell what was at {until}: choose a later "
            "time, or an earlier base"
        )
    work = _Collapsing(catalog.copy(), spill, keep, memory)
    try:
        for entry in entries:
            parsed = parse_entry(entry)
            ts = parsed.ts
            if (until is not None and ts > until) or (before is not None and ts >= before):
                break
            work.advance(parsed)
            effective = after is None or ts > after
            strict = fuzzy_until is None or ts > fuzzy_until
            for operation in work.assembler.feed(parsed, effective=effective):
                work.apply(operation, strict)
        return work.finish(fuzzy_until)
    except BaseException:
        work.runs.close()
        raise
    finally:
        work.assembler.close()


class _Collapsing:
    """What has come together so far."""

    def __init__(self, catalog: Catalog, folder: Path, keep: Keep | None, memory: int) -> None:
        self.catalog = catalog
        self.assembler = Assembler(folder)
        self.runs = Runs(folder, combine)
        self._keep = keep
        self._memory = memory
        self._tables: dict[Key, Table] = {}
        self._emptied: set[Key] = set()
        self._ordinals = 0
        self._order = 0
        self._used = 0
        self._last: Entry | None = None
        self._count = 0

    def advance(self, entry: Entry) -> None:
        """Note the next entry."""
        if self._last is not None and entry.ts < self._last.ts:
            raise refused(entry, f"comes after one of {self._last.ts}", "the log must be given in its order")
        self._last = entry
        self._count += 1

    def apply(self, entry: Entry, strict: bool) -> None:
        """Bring one operation about."""
        if entry.op == COMMAND:
            for key in apply_command(self.catalog, entry, strict=strict):
                self._empty(key)
            return
        key = self.catalog.route(entry)
        if not key:
            return
        try:
            if key == DEFINITIONS:
                self.catalog.define(entry, strict=strict)
            else:
                self._change(key, entry, strict)
        except SourceError as error:
            raise located(entry, error) from error
        if self._used > self._memory:
            self._spill()

    def _change(self, key: Key, entry: Entry, strict: bool) -> None:
        table = self._tables.get(key) or self._table(key)
        op, document = entry.op, entry.o
        identity = raw.id_of(document if op in {INSERT, DELETE} or not entry.o2 else entry.o2)
        if self._keep is not None and not self._keep(key, identity):
            return
        self._order += 1
        if op == INSERT:
            place = sort_key(identity) or self._place_without_id(table, entry)
            self._used += table.set(place, identity, document, self._order, entry.ts, inserted=True)
            return
        if not identity:
            raise refused(entry, "does not say which document it is for")
        place = sort_key(identity)
        if op == DELETE:
            self._used += table.delete(place, identity, self._order, entry.ts)
        elif is_document(document):
            self._used += table.set(place, identity, document, self._order, entry.ts, inserted=False)
        else:
            self._used += table.patch(place, identity, document, self._order, entry.ts, strict=strict)

    def _place_without_id(self, table: Table, entry: Entry) -> bytes:
        if not table.natural:
            raise refused(entry, "inserts a document without _id")
        return _NO_ID + self._order.to_bytes(8, "big")

    def _table(self, key: Key) -> Table:
        info = self.catalog.origin(key) if key not in self._emptied else None
        info = info or self.catalog.info(key)
        capped = info is not None and truth(field_of(info.options, b"capped"))
        table = self._tables[key] = Table(self._ordinals, natural=capped)
        self._ordinals += 1
        return table

    def _empty(self, key: Key) -> None:
        table = self._tables.pop(key, None)
        if table is not None:
            self._used -= table.used
        self._emptied.add(key)

    def _spill(self) -> None:
        tables = sorted(self._tables.values(), key=lambda table: table.ordinal)
        self.runs.add(record for table in tables for record in table.records())
        for table in tables:
            table.clear()
        self._used = 0

    def finish(self, fuzzy_until: Ts | None) -> Collapsed:
        """Return all of it."""
        self.catalog.followed_keys()  # two collections of one name are found out here
        last = self._last
        return Collapsed(
            catalog=self.catalog,
            tables=self._tables,
            runs=self.runs,
            emptied=frozenset(self._emptied),
            last=last.ts if last is not None else None,
            term=last.term if last is not None else -1,
            entries=self._count,
            open_since=self.assembler.open_since,
            fuzzy=fuzzy_until is not None,
        )
