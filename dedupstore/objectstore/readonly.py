"""`ReadOnlyStore`: a store that can be looked at and not touched."""

from collections.abc import Iterable, Iterator, Sequence

from dedupstore.errors import ReadOnlyError
from dedupstore.model import Data
from dedupstore.objectstore.base import ObjectInfo, ObjectKey, ObjectKind, ObjectReader


class ReadOnlyStore:
    """An `ObjectStore` that passes reads on to ``reader`` and refuses every write with `ReadOnlyError`.

    For a command that must not change a repository but is built to take a full store, and for users
    who ask for it. As thread-safe as the reader, which is closed with it.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader

    def __repr__(self) -> str:
        return f"ReadOnlyStore({self._reader!r})"

    def get(self, key: ObjectKey) -> bytes:
        """Return a whole object. See `ObjectReader.get`."""
        return self._reader.get(key)

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one object. See `ObjectReader.get_ranges`."""
        return self._reader.get_ranges(key, ranges)

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Return size and time of an object. See `ObjectReader.stat`."""
        return self._reader.stat(key)

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        """Visit the objects of a kind. See `ObjectReader.listing`."""
        return self._reader.listing(kind, prefix)

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:  # noqa: ARG002
        """Raise `ReadOnlyError`."""
        raise _refusal("write", key)

    def replace(self, key: ObjectKey, data: bytes | None, *, expect: bytes | None) -> None:  # noqa: ARG002
        """Raise `ReadOnlyError`."""
        raise _refusal("change", key)

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Raise `ReadOnlyError` if there is a key at all."""
        for key in keys:
            raise _refusal("delete", key)


def _refusal(verb: str, key: ObjectKey) -> ReadOnlyError:
    return ReadOnlyError(f"cannot {verb} {key}, the store was opened read-only: open it for writing", key=key)
