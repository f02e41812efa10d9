"""The stores that fail on purpose do so where they are told, and the loops over them end."""

import threading

import pytest

from dedupstore.errors import ObjectNotFound, StoreError, StoreFull
from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.testing.stores import (
    WRITES,
    Crashed,
    CrashStore,
    Fate,
    FaultyStore,
    InjectedFault,
    each_crash,
    each_failure,
)

GEN = ObjectKey(ObjectKind.GC, "gen")


def pack(number: int) -> ObjectKey:
    return ObjectKey(ObjectKind.PACK, f"{number:064x}")


def held(store: ObjectStore) -> list[int]:
    return sorted(int(info.key.name, 16) for info in store.listing(ObjectKind.PACK))


def commit(store: ObjectStore) -> None:
    """The order that every write in this package keeps: two packs, then the object that counts on them."""
    store.put(pack(1), [b"first half, ", b"second half"])
    store.put(pack(2), [b"x" * 10])
    generation = store.get(GEN)
    store.replace(GEN, generation + b"+", expect=generation)


def fresh() -> MemoryStore:
    store = MemoryStore()
    store.put(GEN, [b"0"])
    return store


def committed_means_complete(store: ObjectStore) -> None:
    assert store.get(GEN) in {b"0", b"0+"}
    if store.get(GEN) == b"0+":
        assert held(store) == [1, 2]
        assert store.get(pack(1)) == b"first half, second half"


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_fail_at_every_operation(after_effect: bool, persistent: bool) -> None:
    """The example to copy: a scenario, a promise, and the loop."""
    count = each_failure(
        commit, committed_means_complete, make=fresh, after_effect=after_effect, persistent=persistent
    )
    assert count == 4


def test_the_loop_finds_a_wrong_order() -> None:
    def careless(store: ObjectStore) -> None:
        store.replace(GEN, b"0+", expect=b"0")
        store.put(pack(1), [b"first half, second half"])
        store.put(pack(2), [b"x"])

    with pytest.raises(AssertionError):
        each_failure(careless, committed_means_complete, make=fresh)
    with pytest.raises(AssertionError):
        each_crash(careless, committed_means_complete, make=fresh)


def test_the_loop_passes_on_an_error_that_was_not_injected() -> None:
    with pytest.raises(ObjectNotFound):
        each_failure(lambda store: store.get(pack(9)), lambda store: None)


def test_the_loop_gives_up_on_what_never_ends() -> None:
    def endless(store: ObjectStore) -> None:
        while True:
            store.get(GEN)

    with pytest.raises(AssertionError, match="does not end"):
        each_failure(endless, lambda store: None, make=fresh, limit=5)


def test_before_after_and_persistent() -> None:
    before = FaultyStore(MemoryStore(), fail_at=2)
    before.put(pack(1), [b"x"])
    with pytest.raises(InjectedFault, match=r"operation 2 \(put\)"):
        before.put(pack(2), [b"x"])
    before.put(pack(3), [b"x"])
    assert held(before) == [1, 3]
    assert (before.operations, before.failures) == (4, 1)
    assert before.counts == {"put": 3, "listing": 1}

    after = FaultyStore(MemoryStore(), fail_at=2, after_effect=True, persistent=True)
    after.put(pack(1), [b"x"])
    for number in (2, 3):
        with pytest.raises(InjectedFault):
            after.put(pack(number), [b"x"])
    with pytest.raises(InjectedFault):
        held(after)
    assert held(after.inner) == [1, 2]
    assert after.failures == 3


def test_only_some_operations_and_another_error() -> None:
    store = FaultyStore(fresh(), fail_at=1, only=WRITES, error=StoreFull)
    assert store.get(GEN) == b"0"
    with pytest.raises(StoreFull):
        store.put(pack(1), [b"x"])
    assert issubclass(InjectedFault, StoreError)
    assert InjectedFault.retryable


def test_every_operation_counts() -> None:
    store = FaultyStore(fresh())
    store.get(GEN)
    store.get_ranges(GEN, [(0, 1)])
    store.stat(GEN)
    list(store.listing(ObjectKind.GC))
    store.put(pack(1), [b"x"])
    store.replace(GEN, b"1", expect=b"0")
    store.delete(iter([pack(1)]))
    store.close()
    assert store.operations == 7
    assert held(store.inner) == []


@pytest.mark.parametrize("fates", [(Fate.LOST,), (Fate.KEPT,), (Fate.LOST, Fate.KEPT)])
def test_crash_in_every_write(fates: tuple[Fate, ...]) -> None:
    assert each_crash(commit, committed_means_complete, make=fresh, fates=fates) == 3


@pytest.mark.parametrize("fate", Fate)
def test_fates(fate: Fate) -> None:
    store = CrashStore(MemoryStore(), crash_at=2, fate=fate)
    store.put(pack(1), [b"whole"])
    with pytest.raises(Crashed):
        store.put(pack(2), [b"0123", b"4567"])
    for operation in (lambda: store.get(pack(1)), lambda: held(store), lambda: store.delete([pack(1)])):
        with pytest.raises(Crashed):
            operation()
    found = store.survivor()
    assert found.get(pack(1)) == b"whole"
    if fate is Fate.LOST:
        assert held(found) == [1]
    else:
        assert found.get(pack(2)) == {Fate.KEPT: b"01234567", Fate.TORN: b"0123"}[fate]


def test_a_crash_in_a_write_that_would_be_refused() -> None:
    store = CrashStore(fresh(), crash_at=1, fate=Fate.KEPT)
    with pytest.raises(Crashed):
        store.replace(GEN, b"1", expect=b"wrong")
    assert store.survivor().get(GEN) == b"0"


def test_a_disk_that_lies_about_flushing() -> None:
    store = CrashStore(fresh(), crash_at=5, unflushed=2)
    for number in (1, 2, 3, 4):
        store.put(pack(number), [b"x"])
    with pytest.raises(Crashed):
        store.delete([pack(1)])
    assert held(store.survivor()) == [1, 2]
    early = CrashStore(fresh(), crash_at=2, unflushed=9)
    early.put(pack(1), [b"x"])
    with pytest.raises(Crashed):
        early.put(pack(2), [b"x"])
    assert held(early.survivor()) == []


def test_survivors_are_apart_and_counting_goes_without_a_crash() -> None:
    store = CrashStore(fresh())
    commit(store)
    assert (store.operations, store.crashed) == (3, False)
    store.survivor().delete([GEN])
    assert store.get(GEN) == b"0+"


def test_a_crash_stops_all_threads() -> None:
    store = CrashStore(MemoryStore(), crash_at=20)
    ends: list[str] = []

    def work(base: int) -> None:
        try:
            for number in range(100):
                store.put(pack(base + number), [b"x"])
        except Crashed:
            ends.append("crashed")

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == ["crashed"] * 4
    assert len(held(store.survivor())) == 19


def test_a_config_in_a_crash_store() -> None:
    store = CrashStore(MemoryStore(), crash_at=1, fate=Fate.TORN)
    with pytest.raises(Crashed):
        store.put(CONFIG_KEY, [b"ab"])
    assert store.survivor().get(CONFIG_KEY) == b"a"
