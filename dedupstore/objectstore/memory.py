"""`MemoryStore`: objects in a dictionary, for tests and examples.

Keeps the whole contract of `dedupstore.objectstore.base` but for durability: all is gone with the
process. One lock guards everything and is never held while the caller's code runs. Memory: all objects.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import ObjectDamaged, ObjectExists, ObjectNotFound, UsageError
from dedupstore.model import Data
from dedupstore.objectstore.base import ObjectInfo, ObjectKey, ObjectKind, require_mutable


class MemoryStore:
    """An `ObjectStore` that lives in this process."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[ObjectKey, tuple[bytes, datetime]] = {}

    def copy(self) -> "MemoryStore":
        """Return a store with the same objects that changes on its own from now on."""
        twin = MemoryStore(clock=self._clock)
        with self._lock:
            twin._objects = dict(self._objects)
        return twin

    def get(self, key: ObjectKey) -> bytes:
        """Return a whole object. See `ObjectReader.get`."""
        return self._found(key)[0]

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one object. See `ObjectReader.get_ranges`."""
        data = self._found(key)[0]
        for offset, length in ranges:
            if offset < 0 or length < 0:
                raise UsageError(f"range {offset}+{length} of {key} is negative", key=key)
            if offset + length > len(data):
                raise ObjectDamaged(
                    f"{key} is {len(data)} bytes long, but bytes {offset}+{length} of it are needed: "
                    "run verify to learn what is affected",
                    key=key,
                )
        return [data[offset : offset + length] for offset, length in ranges]

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Return size and time of an object. See `ObjectReader.stat`."""
        data, modified = self._found(key)
        return ObjectInfo(key, len(data), modified)

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        """Visit the objects of a kind, as they were at the first step. See `ObjectReader.listing`."""
        with self._lock:
            found = [
                (key, len(data), modified)
                for key, (data, modified) in self._objects.items()
                if key.kind is kind and key.name.startswith(prefix)
            ]
        for key, size, modified in found:
            yield ObjectInfo(key, size, modified)

    def close(self) -> None:
        """Do nothing: the objects stay, so that a test can open the same store again."""

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        """Create an object. See `ObjectWriter.put`."""
        data = b"".join(parts)
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"{key} is already in the store: choose a new name", key=key)
            self._objects[key] = (data, self._clock.now())

    def replace(self, key: ObjectKey, data: bytes | None, *, expect: bytes | None) -> None:
        """Compare and swap a mutable object. See `ObjectWriter.replace`."""
        require_mutable(key, data, expect)
        with self._lock:
            present = self._objects.get(key)
            if (None if present is None else present[0]) != expect:
                raise ObjectExists(f"{key} is not what was expected there: read it again", key=key)
            if data is None:
                del self._objects[key]
            else:
                self._objects[key] = (bytes(data), self._clock.now())

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove objects. See `ObjectStore.delete`."""
        for key in keys:
            with self._lock:
                self._objects.pop(key, None)

    def _found(self, key: ObjectKey) -> tuple[bytes, datetime]:
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise ObjectNotFound(f"{key} is not in the store: run verify to learn what needs it", key=key)
        return found
