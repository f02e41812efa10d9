"""What a server holds after every operation: collections, their options, indexes and documents."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.identity import Key, id_of

VIEWS = "system.views"
"""The collection whose documents are the views of its database."""


class Moment(NamedTuple):
    """The timestamp of an entry."""

    seconds: int
    increment: int


class Meta(NamedTuple):
    """A collection without its documents."""

    db: str
    name: str
    uuid: bytes
    options: bytes
    """As listCollections tells them, without the UUID."""
    indexes: tuple[bytes, ...]
    """As listIndexes tells them; only those that are built to the end."""

    @property
    def capped(self) -> bool:
        """Whether documents have a natural order that counts."""
        return bson.find(self.options, b"capped") is not None


class Written(NamedTuple):
    """A document put in or replaced (in place), or with ``None`` removed."""

    uuid: bytes
    key: Key
    document: bytes | None


class Defined(NamedTuple):
    """A collection that appeared or changed, or with ``None`` vanished with all its documents."""

    uuid: bytes
    meta: Meta | None


Change: TypeAlias = Written | Defined


class Collection(NamedTuple):
    """A collection or view, as a reader of the whole server would describe it."""

    kind: str
    """``"collection"`` or ``"view"``."""
    uuid: bytes
    """16 bytes; none for a view."""
    options: bytes
    indexes: tuple[bytes, ...]
    documents: Mapping[bytes, bytes]
    """From the raw ``_id`` (type byte and value) to the raw document; in natural order if capped."""


Described: TypeAlias = dict[tuple[str, str], Collection]


class State:
    """All of a server at one moment. Copying shares the documents. One thread."""

    def __init__(self) -> None:
        self.metas: dict[bytes, Meta] = {}
        self.documents: dict[bytes, dict[Key, bytes]] = {}

    def copy(self) -> "State":
        """Return the same state, which changes no longer with this one."""
        twin = State()
        twin.metas = dict(self.metas)
        twin.documents = {uuid: dict(documents) for uuid, documents in self.documents.items()}
        return twin

    def apply(self, changes: Sequence[Change]) -> None:
        """Bring these changes about, in order."""
        for change in changes:
            if isinstance(change, Written):
                held = self.documents[change.uuid]
                if change.document is None:
                    del held[change.key]
                else:
                    held[change.key] = change.document
            elif change.meta is None:
                del self.metas[change.uuid]
                del self.documents[change.uuid]
            else:
                self.metas[change.uuid] = change.meta
                self.documents.setdefault(change.uuid, {})

    def find(self, db: str, name: str) -> Meta | None:
        """Return the collection of that name, if there is one."""
        return next((meta for meta in self.metas.values() if (meta.db, meta.name) == (db, name)), None)

    def described(self) -> Described:
        """Return everything by name, views among it."""
        found: Described = {}
        for uuid, meta in self.metas.items():
            documents = {raw_id(document): document for document in self.documents[uuid].values()}
            place = (meta.db, meta.name)
            assert place not in found, f"two collections are called {place}"
            found[place] = Collection("collection", uuid, meta.options, meta.indexes, documents)
            if meta.name == VIEWS:
                for document in documents.values():
                    name, options = view_of(document)
                    found[meta.db, name] = Collection("view", b"", options, (), {})
        return found


def raw_id(document: bytes) -> bytes:
    """Return the type byte and the bytes of a document's ``_id``."""
    kind, raw = id_of(document)
    return bytes((kind,)) + raw


def view_of(document: bytes) -> tuple[str, bytes]:
    """Return the name and the options of the view that a document of `VIEWS` defines."""
    name = bson.text(bson.find(document, b"_id")).partition(".")[2]
    return name, bson.build(part for part in bson.elements(document) if part.name != b"_id")
