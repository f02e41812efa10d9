"""The collections that a log tells of: which one an entry means, and what became of each.

An entry means its collection by UUID; the name in it may be an old one. Entries without a UUID (old or odd
servers) go by name. Inside, a collection has a *key*, which stays the same through renames: its UUID, or
bytes made of its first name where it has none.

A collection that nobody created (servers exist that do not log it) comes into being with its first
document, without options. Where a base holds only a part of a server, ``covers`` says which names belong
to it: what lies elsewhere is followed by name alone, since it may be renamed.

Views are the documents of ``system.views``; such a document makes one, changes it or removes it.

A catalog may be newer than the first entries that are applied to it (a base that was read while the log went
on): then two collections can have one name for a while, and commands find nothing to change. With ``strict``
the latter is an error.

Memory: a few hundred bytes beside each `CollectionInfo`. One thread.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import COLLECTION, TIMESERIES, VIEW, CollectionInfo
from dedupstore.sources.oplog.definitions import ID_INDEX, text_field, without
from dedupstore.sources.oplog.diff import apply_update
from dedupstore.sources.oplog.entry import DELETE, Entry, refused
from dedupstore.sources.oplog.namespaces import BUCKETS, VIEWS, followed, split

Key: TypeAlias = bytes
Covers: TypeAlias = Callable[[str, str], bool]
"""Whether a base holds the collection of that database and name."""

ELSEWHERE: Final = b""
"""Key of everything whose documents do not count."""
DEFINITIONS: Final = b"\0views"
"""Key of all collections whose documents are definitions of views."""


class Catalog:
    """The collections of a server at one moment of its log."""

    def __init__(self, collections: Iterable[CollectionInfo] = (), *, covers: Covers | None = None) -> None:
        """Begin with the collections of a base, views and time series as dumps have them.

        The UUID of a time series is that of its buckets.
        """
        self._covers = covers
        self._infos: dict[Key, CollectionInfo] = {}
        self._by_name: dict[tuple[str, str], list[Key]] = {}
        self._views: dict[tuple[str, str], CollectionInfo] = {}
        self._keys: dict[bytes, Key] = {}
        self._routes: dict[bytes, Key] = {}
        self._foreign: set[Key] = set()
        for info in collections:
            if info.kind == VIEW:
                self._views[info.db, info.name] = info
            elif followed(info.db, info.name) and info.name != VIEWS:
                self.add(info)
        self._origins: Mapping[Key, CollectionInfo] = dict(self._infos)

    def copy(self) -> "Catalog":
        """Return the same catalog, which changes no longer with this one; keys and origins are the same."""
        twin = Catalog(covers=self._covers)
        twin._infos = dict(self._infos)
        twin._by_name = {name: list(keys) for name, keys in self._by_name.items()}
        twin._views = dict(self._views)
        twin._keys = dict(self._keys)
        twin._routes = dict(self._routes)
        twin._foreign = set(self._foreign)
        twin._origins = self._origins
        return twin

    def collections(self) -> tuple[CollectionInfo, ...]:
        """Return everything, views too, in order of database and name. Raises as `followed_keys` does."""
        covered = [self._infos[key] for key in self.followed_keys()]
        views = [view for view in self._views.values() if self.covers(view.db, view.name)]
        return tuple(sorted(covered + views, key=lambda info: (info.db, info.name)))

    def followed_keys(self) -> tuple[Key, ...]:
        """Return the keys of all collections with documents, in order of database and name.

        Raises `SourceError` if two have one name: base and log do not belong together.
        """
        ordered = sorted(
            (info.db, info.name, key) for key, info in self._infos.items() if key not in self._foreign
        )
        found: dict[tuple[str, str], Key] = {}
        for db, name, key in ordered:
            if not self.covers(db, name):
                continue
            if (db, name) in found or (db, name) in self._views:
                raise SourceError(
                    f"after the log two collections are called {db}.{name}: the base is not of this log, or "
                    "its beginning is missing; take a new snapshot",
                    ns=f"{db}.{name}",
                )
            found[db, name] = key
        return tuple(found.values())

    def find(self, db: str, name: str) -> Key | None:
        """Return the key of the collection or time series of that name; not of a view."""
        keys = self._by_name.get((db, name))
        return keys[-1] if keys else None

    def info(self, key: Key) -> CollectionInfo | None:
        """Return what is known of a collection; None if it is gone."""
        return self._infos.get(key)

    def origin(self, key: Key) -> CollectionInfo | None:
        """Return what a collection was when the catalog began; None if it came later."""
        return self._origins.get(key)

    def key_of(self, info: CollectionInfo) -> Key | None:
        """Return the key of one of the collections that the catalog began with."""
        if info.uuid:
            return self._keys.get(info.uuid)
        same = (key for key, other in self._origins.items() if (other.db, other.name) == (info.db, info.name))
        return next(same, None)

    def key_of_uuid(self, uuid: bytes) -> Key | None:
        """Return the key of the collection that has a UUID now."""
        return self._keys.get(uuid)

    def covers(self, db: str, name: str) -> bool:
        """Say whether a name lies in the base."""
        return self._covers is None or self._covers(db, name)

    def view(self, db: str, name: str) -> CollectionInfo | None:
        """Return the view of that name."""
        return self._views.get((db, name))

    def route(self, entry: Entry) -> Key:
        """Return the key of the collection that an operation on a document means.

        `ELSEWHERE`: it does not count. `DEFINITIONS`: hand it to `define`. What is not known is added.
        """
        if entry.ui:
            key = self._routes.get(entry.ui)
            if key is not None:
                return key
        db, name = split(entry.ns)
        if not followed(db, name):
            return self._routed(entry.ui, ELSEWHERE)
        if name == VIEWS:
            return self._routed(entry.ui, DEFINITIONS)
        if not name:
            raise refused(entry, "does not say which collection it is for")
        key = self.known(entry.ui, db, name)
        if key is None:
            key = self.add_unknown(entry.ui, db, name)
        return self._routed(entry.ui, ELSEWHERE if key in self._foreign else key)

    def _routed(self, ui: bytes, key: Key) -> Key:
        if ui:
            self._routes[ui] = key
        return key

    def known(self, ui: bytes, db: str, name: str) -> Key | None:
        """Return the key that a UUID, or without one a name as the log has it, stands for.

        A collection without UUID gets the one that the first entry on its name has.
        """
        key = self._keys.get(ui) if ui else None
        if key is not None:
            return key
        key = self.find(db, name)
        if key is None and name.startswith(BUCKETS):
            key = self.find(db, name.removeprefix(BUCKETS))
            if key is not None and self._infos[key].kind != TIMESERIES:
                key = None
        if key is None or not ui:
            return key
        if self._infos[key].uuid:
            return None
        self._infos[key] = replace(self._infos[key], uuid=ui)
        self._keys[ui] = key
        return key

    def add_unknown(self, ui: bytes, db: str, name: str) -> Key:
        """Add a collection of which nothing is known but that it is there."""
        key = self.add(CollectionInfo(db, name, COLLECTION, ui, raw.EMPTY, (ID_INDEX,)))
        if not self.covers(db, name):
            self._foreign.add(key)
        return key

    def is_foreign(self, key: Key) -> bool:
        """Say whether a collection was there before the log, outside of the base."""
        return key in self._foreign

    def add(self, info: CollectionInfo) -> Key:
        """Add a collection, or put another in the place of the one with its UUID; return its key."""
        key = self._keys.get(info.uuid) if info.uuid else None
        if key is not None and key in self._infos:
            self.change(key, info)
            return key
        key = info.uuid or b"name\0" + info.namespace.encode("utf-8", "surrogateescape")
        while key in self._infos:
            key += b"'"
        self._infos[key] = info
        self._by_name.setdefault((info.db, info.name), []).append(key)
        if info.uuid:
            self._keys[info.uuid] = key
            self._routes.pop(info.uuid, None)
        return key

    def change(self, key: Key, info: CollectionInfo) -> None:
        """Put other words in the place of what is known of a collection; its name may be a new one."""
        before = self._infos[key]
        self._infos[key] = info
        if (before.db, before.name) != (info.db, info.name):
            self._forget_name(key, before)
            self._by_name.setdefault((info.db, info.name), []).append(key)

    def remove(self, key: Key) -> None:
        """Take a collection out."""
        info = self._infos.pop(key)
        self._forget_name(key, info)
        self._foreign.discard(key)
        if info.uuid:
            del self._keys[info.uuid]
            self._routes.pop(info.uuid, None)

    def _forget_name(self, key: Key, info: CollectionInfo) -> None:
        keys = self._by_name[info.db, info.name]
        keys.remove(key)
        if not keys:
            del self._by_name[info.db, info.name]

    def keys_in(self, db: str) -> list[Key]:
        """Return the keys of all collections of a database."""
        return [key for key, info in self._infos.items() if info.db == db]

    def set_view(self, db: str, name: str, options: bytes) -> None:
        """Add or change a view."""
        self._views[db, name] = CollectionInfo(db, name, VIEW, b"", options)

    def remove_view(self, db: str, name: str | None = None) -> None:
        """Remove a view if it is there; without a name all of a database."""
        for place in [place for place in self._views if place[0] == db and name in {None, place[1]}]:
            del self._views[place]

    def define(self, entry: Entry, *, strict: bool) -> None:
        """Take over an operation on a document that defines a view.

        Raises `SourceError` for what can not be applied, with ``strict`` for a change of what is not there.
        """
        document = entry.o
        identity = text_field(entry.o2 or document, b"_id")
        if identity is None:
            raise refused(entry, "defines a view without a name")
        db, name = split(identity)
        if entry.op == DELETE:
            self.remove_view(db, name)
            return
        if text_field(document, b"_id") is None:
            view = self._views.get((db, name))
            if view is None:
                if strict and self.covers(db, name) and not self._is_series(db, name):
                    raise refused(entry, f"changes the view {identity}, which is not there")
                return
            named = raw.element(b"_id", raw.STRING, raw.string(identity.encode("utf-8", "surrogateescape")))
            document = apply_update(raw.framed(named + view.options[4:-1]), document)
        options = without(document, {b"_id"})
        source = text_field(options, b"viewOn")
        if source is not None and source.startswith(BUCKETS):
            self.remove_view(db, name)  # how a time series shows its buckets
        else:
            self.set_view(db, name, options)

    def _is_series(self, db: str, name: str) -> bool:
        key = self.find(db, name)
        return key is not None and self._infos[key].kind == TIMESERIES
