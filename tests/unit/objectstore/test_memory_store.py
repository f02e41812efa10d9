"""What `MemoryStore` has beyond the contract."""

from datetime import UTC, datetime

from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore

PACK = ObjectKey(ObjectKind.PACK, "00" * 32)


class StoppedClock:
    def now(self) -> datetime:
        return datetime(2030, 1, 2, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def random(self, size: int) -> bytes:
        return bytes(size)


def test_copies_go_their_own_ways() -> None:
    store = MemoryStore()
    store.put(PACK, [b"x"])
    twin = store.copy()
    store.delete([PACK])
    twin.put(CONFIG_KEY, [b"c"])
    assert list(store.listing(ObjectKind.PACK)) == []
    assert list(store.listing(ObjectKind.CONFIG)) == []
    assert twin.get(PACK) == b"x"


def test_time_comes_from_the_clock() -> None:
    store = MemoryStore(clock=StoppedClock())
    store.put(PACK, [b"x"])
    assert store.stat(PACK).modified == datetime(2030, 1, 2, tzinfo=UTC)
    assert store.copy().stat(PACK).modified == datetime(2030, 1, 2, tzinfo=UTC)
