"""Stores that fail on purpose: one that returns errors, one whose machine dies.

Both wrap a real store, number its operations from 1, and go wrong at the number they are told, so that
a test can go through all of them: run a scenario with operation 1 failing, then 2, until it runs
through untouched; `each_failure` and `each_crash` are these loops. Nothing is random: what failed at a
number fails there again.

Every method call of the store is one operation, a listing at its first step. Thread-safe; with several
threads the numbers go to whoever comes first.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import TypeVar

from dedupstore.errors import DedupstoreError, StoreError
from dedupstore.model import Data
from dedupstore.objectstore.base import ObjectInfo, ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore

T = TypeVar("T")

READS = frozenset({"get", "get_ranges", "stat", "listing"})
WRITES = frozenset({"put", "replace", "delete"})


class InjectedFault(StoreError):
    """What a `FaultyStore` raises unless told otherwise."""

    code = "injected-fault"


class Crashed(BaseException):
    """The simulated machine is dead. Not an `Exception`: nothing may handle it and go on."""


class _CountingStore(ABC):
    """Hands every operation to `_perform`, which decides whether and when it takes effect."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        """The store behind; what it holds after a failure is what the tests look at."""
        self.operations = 0
        """How many operations of the kinds that count have begun."""
        self.counts: Counter[str] = Counter()
        """How many operations of each name have begun, whether they count or not."""
        self._lock = threading.Lock()

    @abstractmethod
    def _perform(self, operation: str, effect: Callable[[], T]) -> T: ...

    def get(self, key: ObjectKey) -> bytes:
        """Return a whole object. See `ObjectReader.get`."""
        return self._perform("get", lambda: self.inner.get(key))

    def get_ranges(self, key: ObjectKey, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of one object. See `ObjectReader.get_ranges`."""
        return self._perform("get_ranges", lambda: self.inner.get_ranges(key, ranges))

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Return size and time of an object. See `ObjectReader.stat`."""
        return self._perform("stat", lambda: self.inner.stat(key))

    def listing(self, kind: ObjectKind, prefix: str = "") -> Iterator[ObjectInfo]:
        """Visit the objects of a kind. See `ObjectReader.listing`."""
        yield from self._perform("listing", lambda: list(self.inner.listing(kind, prefix)))

    def close(self) -> None:
        """Close the store behind; never fails and is not counted."""
        self.inner.close()

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        """Create an object. See `ObjectWriter.put`."""
        self._perform("put", lambda: self.inner.put(key, parts))

    def replace(self, key: ObjectKey, data: bytes | None, *, expect: bytes | None) -> None:
        """Compare and swap a mutable object. See `ObjectWriter.replace`."""
        self._perform("replace", lambda: self.inner.replace(key, data, expect=expect))

    def delete(self, keys: Iterable[ObjectKey]) -> None:
        """Remove objects. See `ObjectStore.delete`."""
        doomed = list(keys)
        self._perform("delete", lambda: self.inner.delete(doomed))


class FaultyStore(_CountingStore):
    """A store whose Nth operation raises, before it had its effect or after."""

    def __init__(
        self,
        inner: ObjectStore,
        *,
        fail_at: int | None = None,
        after_effect: bool = False,
        persistent: bool = False,
        only: frozenset[str] = READS | WRITES,
        error: Callable[[str], DedupstoreError] = InjectedFault,
    ) -> None:
        """Wrap ``inner``.

        ``fail_at``: number of the operation that fails; None: only count. ``after_effect``: the operation
        is done and its success not told, as when an answer is lost on its way. ``persistent``: all
        later ones fail too, without effect. ``only``: names of the operations that count and fail.
        ``error``: makes the error from a message.
        """
        super().__init__(inner)
        self.failures = 0
        """How many operations have been made to fail."""
        self._fail_at = fail_at
        self._after_effect = after_effect
        self._persistent = persistent
        self._only = only
        self._error = error

    def _perform(self, operation: str, effect: Callable[[], T]) -> T:
        with self._lock:
            self.counts[operation] += 1
            number = 0
            if operation in self._only:
                self.operations += 1
                number = self.operations
            first = number == self._fail_at
            later = self._persistent and self._fail_at is not None and number > self._fail_at
            self.failures += first or later
        if first and self._after_effect:
            effect()
        if first or later:
            raise self._error(f"operation {number} ({operation}) was made to fail: this is a test")
        return effect()


class Fate(Enum):
    """What a crash makes of the write that was under way."""

    LOST = "lost"
    KEPT = "kept"
    """Done on disk, though the caller never heard of it."""
    TORN = "torn"
    """A new object holds the first half of its bytes. No store that keeps the contract does it; disks do."""


class CrashStore(_CountingStore):
    """A store on a machine that dies during the Nth write, or one whose disk lies about flushing.

    After the crash every operation raises `Crashed`, in all threads, until the test goes on with
    `survivor`, the store as it is found after the restart.
    """

    def __init__(
        self,
        inner: MemoryStore,
        *,
        crash_at: int | None = None,
        crash_in: ObjectKind | None = None,
        fate: Fate = Fate.LOST,
        unflushed: int = 0,
    ) -> None:
        """Wrap ``inner``.

        ``crash_at``: number of the write (put, replace or delete; reads do not count) during which the
        machine dies; None: only count. ``crash_in``: it dies during the first put of this kind, whatever
        its number. ``fate``: what becomes of that write. ``unflushed``: if not 0, that write is lost, and
        so are as many before it, though they were reported durable.
        """
        super().__init__(inner)
        self._crash_at = crash_at
        self._crash_in = crash_in
        self._fate = fate
        self._unflushed = unflushed
        self._memory = inner
        self._history = [inner.copy()]
        self._survivor: MemoryStore | None = None

    @property
    def crashed(self) -> bool:
        """Whether it has come to the crash."""
        return self._survivor is not None

    def survivor(self) -> MemoryStore:
        """Return what is there after the restart: a store of its own, without faults."""
        return (self._survivor or self._memory).copy()

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        """Create an object. See `ObjectWriter.put`."""

        def torn() -> None:
            whole = b"".join(parts)
            self.inner.put(key, [whole[: len(whole) // 2]])

        self._write("put", lambda: self.inner.put(key, parts), torn, last=key.kind is self._crash_in)

    def _perform(self, operation: str, effect: Callable[[], T]) -> T:
        if operation in WRITES:
            # Swaps and deletions move no bulk: whatever the disk, they are done or they are not.
            return self._write(operation, effect, lambda: None)
        with self._lock:
            self._require_alive()
            self.counts[operation] += 1
        return effect()

    def _write(
        self, operation: str, effect: Callable[[], T], torn: Callable[[], None], *, last: bool = False
    ) -> T:
        # Writes go one by one, so that "the last few" has a meaning.
        with self._lock:
            self._require_alive()
            self.counts[operation] += 1
            self.operations += 1
            if last or self.operations == self._crash_at:
                self._survivor = self._after_crash(effect, torn)
                self._require_alive()
            result = effect()
            if self._unflushed:
                self._history.append(self._memory.copy())
                del self._history[: -1 - self._unflushed]
            return result

    def _after_crash(self, effect: Callable[[], object], torn: Callable[[], None]) -> MemoryStore:
        if self._unflushed:
            return self._history[0]
        # A write that would have been refused changes nothing, and the machine dies all the same.
        with contextlib.suppress(DedupstoreError):
            if self._fate is Fate.KEPT:
                effect()
            elif self._fate is Fate.TORN:
                torn()
        return self._memory.copy()

    def _require_alive(self) -> None:
        if self._survivor is not None:
            raise Crashed


def each_failure(
    scenario: Callable[[FaultyStore], object],
    check: Callable[[ObjectStore], object],
    *,
    make: Callable[[], ObjectStore] = MemoryStore,
    after_effect: bool = False,
    persistent: bool = False,
    only: frozenset[str] = READS | WRITES,
    limit: int = 10_000,
) -> int:
    """Run ``scenario`` with operation 1 failing, then 2, until it runs untouched; return how many there were.

    The scenario may raise `DedupstoreError` or get over the fault. After each run ``check`` gets the store
    behind, without faults, and raises if what is there breaks a promise. ``make`` gives a fresh
    store, ready for the scenario, each time.
    """
    for number in range(1, limit + 1):
        inner = make()
        store = FaultyStore(
            inner, fail_at=number, after_effect=after_effect, persistent=persistent, only=only
        )
        try:
            scenario(store)
        except DedupstoreError:
            if not store.failures:
                raise
        check(inner)
        if not store.failures:
            return number - 1
    raise AssertionError(f"still failing after {limit} operations: the scenario does not end")


def each_crash(
    scenario: Callable[[CrashStore], object],
    check: Callable[[MemoryStore], object],
    *,
    make: Callable[[], MemoryStore] = MemoryStore,
    fates: Sequence[Fate] = (Fate.LOST, Fate.KEPT),
    unflushed: int = 0,
    limit: int = 10_000,
) -> int:
    """Run ``scenario`` with a crash in write 1, then 2, until it runs through; return how many writes it has.

    After each run ``check`` gets what a restart would find.
    """
    for number in range(1, limit + 1):
        for fate in fates:
            store = CrashStore(make(), crash_at=number, fate=fate, unflushed=unflushed)
            with contextlib.suppress(Crashed):
                scenario(store)
            check(store.survivor())
            if not store.crashed:
                return number - 1
    raise AssertionError(f"still crashing after {limit} writes: the scenario does not end")
