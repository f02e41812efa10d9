"""Object stores: named, whole, mostly immutable byte strings, and who may do what to them.

This module owns the contract. It knows no chunk, no key and no encoding; what an object means is
decided above. A store is a flat set of objects, each named by an `ObjectKey`. Three protocols widen
in power, so that what a component may do is visible in its type:

* `ObjectReader` reads and lists;
* `ObjectWriter` also adds, and swaps the few mutable objects, but can not remove or overwrite;
* `ObjectStore` also deletes. Only maintenance is handed one.

What every store promises, and `dedupstore.testing.contracts` checks:

* *Whole or absent.* No reader, in any process, ever sees part of an object, whatever is killed when.
* *Durable on return.* After `put`, `replace` or `delete` returns, a power failure does not undo it.
* *An error leaves the outcome open.* When a write raises `StoreError` (a time-out, a failed flush),
  the object may be absent or whole and may survive or not; it is never partial. Only `ObjectExists`
  and `ReadOnlyError` promise that nothing changed. A caller that tries again uses a new name, or
  reads back what is there.
* *Threads.* Every method may be called from any thread at any time.
* *Errors* are those of `dedupstore.errors`: `ObjectNotFound`, `ObjectExists`, `ObjectDamaged`,
  `ReadOnlyError` (writes refused), `AccessError` (reads refused), `StoreFull`, `StoreError` for the
  rest. Each carries ``key`` in its data where one object is concerned. `UsageError` means that the
  caller is wrong, not the store.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from dedupstore.errors import UsageError
from dedupstore.model import Data


class ObjectKind(Enum):
    """What objects there are. The value is the folder or name prefix they lie under."""

    CONFIG = "config"
    """The one object that makes a place a repository; its only name is ``config``."""
    KEY = "keys"
    PACK = "packs"
    INDEX = "index"
    SESSION = "sessions"
    SNAPSHOT = "snapshots"
    GC = "gc"


MUTABLE = frozenset({ObjectKind.CONFIG, ObjectKind.SESSION, ObjectKind.GC})
"""Kinds that `ObjectWriter.replace` may touch. Everything else never changes once written."""

_FIXED_NAMES: dict[ObjectKind, frozenset[str]] = {
    ObjectKind.CONFIG: frozenset({"config"}),
    ObjectKind.GC: frozenset({"gen"}),
}
# Lower case only: some file systems do not tell cases apart. Eight digits at least, so that stores
# may spread objects by the first digits; 128 at most, so that a name fits any store with room.
_HEX_NAME = re.compile(r"[0-9a-f]{8,128}").fullmatch


def is_valid_name(kind: ObjectKind, name: str) -> bool:
    """Tell whether ``name`` may name an object of ``kind``; the only place that decides it.

    A name is 8 to 128 lower-case hex digits, or one of the few fixed words of its kind. So no name
    holds a separator, a dot or a space, and foreign files in a store's folder are not taken for objects.
    """
    if name in _FIXED_NAMES.get(kind, ()):
        return True
    return kind is not ObjectKind.CONFIG and _HEX_NAME(name) is not None


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """The full name of an object. Can not be made with a bad name: raises `UsageError`."""

    kind: ObjectKind
    name: str

    def __post_init__(self) -> None:
        if not is_valid_name(self.kind, self.name):
            raise UsageError(
                f"{self.name!r} can not name an object of kind {self.kind.name}: "
                "use 8 to 128 lower-case hex digits",
                kind=self.kind,
                name=self.name,
            )

    def __str__(self) -> str:
        if self.kind is ObjectKind.CONFIG:
            return self.name
        return f"{self.kind.value}/{self.name}"


CONFIG_KEY = ObjectKey(ObjectKind.CONFIG, "config")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store tells of an object without reading it."""

    key: ObjectKey
    size: int
    """Bytes."""
    modified: datetime
    """When it was written, by the store's clock, in UTC. For people: nothing may rely on it for safety."""


def require_mutable(key: ObjectKey, data: bytes | None, expect: bytes | None) -> None:
    """Check the arguments of `ObjectWriter.replace`; raises `UsageError`."""
    if key.kind not in MUTABLE:
        raise UsageError(f"{key} is never changed once written: put it under a new name", key=key)
    if data is None and expect is None:
        raise UsageError(f"deleting {key} needs the bytes that are expected there", key=key)


class ObjectReader(Protocol):
    """May look at a store."""

    def get(self, key: ObjectKey) -> bytes:
        """Return a whole object.

        Memory: the object's size. Packs may be read so, though `get_ranges` is meant for them.
        Raises `ObjectNotFound`; `ObjectDamaged` if it ends before the size the store gives for it.
        """
        ...

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one object, each given as ``(offset, length)`` in bytes, in the order asked.

        Ranges may overlap, repeat and be empty. They are read as given: joining neighbours is the
        caller's business, who knows what a gap costs. No memory is taken for a range before it is known
        to lie inside the object, so lengths from an untrusted index are safe to pass.
        Raises `ObjectNotFound`; `ObjectDamaged` if a range reaches beyond the object's end;
        `UsageError` for a negative number.
        """
        ...

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Return size and time of an object. Raises `ObjectNotFound`."""
        ...

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        """Visit every object of ``kind`` whose name starts with ``prefix``, each exactly once, in any order.

        An object that is there from the first step of the iteration to the last is visited; one that is
        added or removed meanwhile may or may not be. Unfinished writes and foreign files are not
        visited. A longer prefix costs no more than a shorter one. Memory: bounded by one folder's
        or one answer's entries, not by the store. Errors are raised where the iteration meets them; an
        unreachable store raises `StoreError` and is never an empty listing.
        """
        ...

    def close(self) -> None:
        """Let go of connections and descriptors. May be called twice; nothing else may follow it."""
        ...


class ObjectWriter(ObjectReader, Protocol):
    """May add to a store. Has no way to delete or to overwrite what is immutable."""

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        """Create an object from the concatenation of ``parts``; whole and durable on return.

        Create-only: raises `ObjectExists` if the name is taken, and of several racing writers of one
        name exactly one succeeds. ``parts`` must not change until this returns and are not kept
        after. Memory: no copy of large parts where the store can avoid it. Where all of the bulk is
        the first part and lies page-aligned (an ``mmap``), a store may be able to write it faster.
        Raises `StoreFull`, `ReadOnlyError`, `StoreError`.
        """
        ...

    def replace(self, key: ObjectKey, data: bytes | None, *, expect: bytes | None) -> None:
        """Swap a mutable object's bytes for ``data`` if they are now ``expect``; durable on return.

        One atomic step against every `put`, `replace` and `delete` of that key, in all processes that
        share the store. ``expect=None`` means that the object must not exist, ``data=None``
        deletes it. Readers see the old bytes or the new. Bytes are compared, not versions: a caller for
        whom going from A to B and back to A matters puts a counter inside. Meant for objects of a
        few kilobytes. Raises `ObjectExists` if something else is there (or nothing, where something was
        expected), and nothing has changed then; `UsageError` for a kind not in `MUTABLE`; and as `put`.
        """
        ...


class ObjectStore(ObjectWriter, Protocol):
    """May also delete. For maintenance and for creating a repository only."""

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove objects; durable on return. A key that is not there is passed over in silence.

        Not atomic over several keys: after an error any of them may be gone.
        Raises `ReadOnlyError`, `StoreError`.
        """
        ...
