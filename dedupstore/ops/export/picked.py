"""Some documents of one collection as a view of their own: for what is asked for by ``_id``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dedupstore.documents.view import CollectionView, View
from dedupstore.errors import NotFoundError, UsageError
from dedupstore.ops.export.names import Selection
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.extjson import shown_value
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.position import Ts


@dataclass(frozen=True)
class PickedCollection:
    """What was picked of a collection; see `dedupstore.documents.view.CollectionView`."""

    info: CollectionInfo
    held: Sequence[bytes]
    """In order of ``_id``."""
    natural = False

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.held)

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return sum(map(len, self.held))

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        """Yield them; all of them."""
        if after is not None:
            raise UsageError("documents that were picked are read from the first on: leave the place out")
        return iter(self.held)

    def get(self, id: bytes) -> bytes | None:  # noqa: A002, ARG002 - see `CollectionView.get`
        """Look nothing up: what is there was looked up already."""
        raise UsageError("documents that were picked are not looked up again: read all of them")


class PickedView:
    """One collection with what was picked of it; see `dedupstore.documents.view.View`."""

    def __init__(self, view: View, picked: PickedCollection) -> None:
        self.at: Ts | None = view.at
        self._picked = picked

    def collections(self) -> Sequence[CollectionView]:
        """Return it."""
        return [self._picked]

    def find(self, db: str, name: str) -> CollectionView | None:
        """Return it, if these are its names."""
        info = self._picked.info
        return self._picked if (info.db, info.name) == (db, name) else None

    def close(self) -> None:
        """Nothing is held; the view that it comes from stays open."""


def picked(view: View, selection: Selection, identities: Sequence[bytes]) -> PickedView:
    """Return a view of the documents with these ``_id`` in the one collection that is selected.

    Reads one leaf for each. Raises `UsageError` if not exactly one collection fits, `NotFoundError` naming
    the first document that is not there. Memory: the documents.
    """
    fitting = [one for one in view.collections() if selection.wants(one.info.db, one.info.name)]
    if len(fitting) != 1:
        raise UsageError(
            f"--id is of one collection and {len(fitting)} fit: name one by --include database.collection"
        )
    collection = fitting[0]
    found: dict[bytes, bytes] = {}
    for identity in identities:
        document = collection.get(identity)
        if document is None:
            raise NotFoundError(
                f"{collection.info.namespace} has no document with the _id {shown_value(identity)} then: "
                f"`dstore mongo log {collection.info.namespace} --id …` shows when it had"
            )
        found[sort_key(identity)] = document
    return PickedView(view, PickedCollection(collection.info, [found[key] for key in sorted(found)]))
