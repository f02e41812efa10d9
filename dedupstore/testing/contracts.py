"""What every implementation of a protocol must do, as checks that any test runner can call.

`STORE_CONTRACT` holds the checks for `ObjectStore`. Each takes an empty store of its own and raises
`AssertionError` for a broken promise. With pytest::

    @pytest.mark.parametrize("check", STORE_CONTRACT, ids=lambda check: check.__name__)
    def test_contract(check, tmp_path):
        check(LocalStore.create(tmp_path / "store"))

What needs a crash, a full disk or a second process can not be checked from here: each store's tests do.
"""

import itertools
import mmap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from dedupstore.errors import DedupstoreError, ObjectDamaged, ObjectExists, ObjectNotFound, UsageError
from dedupstore.model import Data
from dedupstore.objectstore.base import CONFIG_KEY, MUTABLE, ObjectKey, ObjectKind, ObjectStore

T = TypeVar("T")

GEN = ObjectKey(ObjectKind.GC, "gen")
_THREADS = 8
_ROUNDS = 20


def key_of(kind: ObjectKind, number: int, *, first: int = 0) -> ObjectKey:
    """Return the ``number``-th test key of a kind; its name begins with the byte ``first``."""
    if kind is ObjectKind.CONFIG:
        return CONFIG_KEY
    return ObjectKey(kind, f"{first:02x}{number:062x}")


@contextmanager
def raises(kind: type[DedupstoreError], *, mentions: str = "") -> Iterator[None]:
    """Check that the block raises ``kind`` with ``mentions`` in its message."""
    raised: DedupstoreError | None = None
    try:
        yield
    except kind as error:
        raised = error
    assert raised is not None, f"no {kind.__name__} was raised"
    assert mentions in raised.message, f"{raised.message!r} does not mention {mentions!r}"


def names(store: ObjectStore, kind: ObjectKind, prefix: str = "") -> list[str]:
    """Return the sorted names of a listing, after checking that each is there once."""
    found = sorted(info.key.name for info in store.listing(kind, prefix))
    assert len(found) == len(set(found)), f"visited twice: {found}"
    return found


def put_then_get(store: ObjectStore) -> None:
    """Get back what was put, for every kind, however it was cut into parts."""
    for kind in ObjectKind:
        key = key_of(kind, 1)
        store.put(key, [b"one ", bytearray(b"two "), memoryview(b"--three--")[2:-2], b""])
        assert store.get(key) == b"one two three"
        assert store.stat(key).size == 13
        assert store.stat(key).key == key


def objects_may_be_empty(store: ObjectStore) -> None:
    """Put no parts, or parts without bytes: an object of no bytes is not the same as no object."""
    for number, parts in enumerate(([], [b""], [b"", b""])):
        key = key_of(ObjectKind.INDEX, number)
        store.put(key, parts)
        assert store.get(key) == b""
        assert store.get_ranges(key, [(0, 0)]) == [b""]
        assert store.stat(key).size == 0
    store.put(GEN, [b""])
    with raises(ObjectExists):
        store.replace(GEN, b"x", expect=None)
    store.replace(GEN, b"x", expect=b"")


def many_parts(store: ObjectStore) -> None:
    """Put more parts than one system call takes, some of them empty."""
    parts = [b"%d," % number if number % 7 else b"" for number in range(5000)]
    key = key_of(ObjectKind.PACK, 1)
    store.put(key, parts)
    assert store.get(key) == b"".join(parts)


def large_parts(store: ObjectStore) -> None:
    """Put a page-aligned buffer, whole, cut at odd places, and with more behind it."""
    size = 3 << 20
    pattern = bytes(range(251)) * (size // 251 + 1)
    buffer = mmap.mmap(-1, size)
    buffer[:] = pattern[:size]
    whole = memoryview(buffer)
    cases: list[list[Data]] = [
        [whole],
        [whole[: size - 1]],
        [whole[:-4096], b"tail", whole[5:99]],
        [whole[1:]],
        [whole[8192:], whole[:4097], b"x" * (2 << 20)],
        [b"head", whole],
    ]
    for number, parts in enumerate(cases):
        key = key_of(ObjectKind.PACK, number, first=number)
        store.put(key, parts)
        assert store.get(key) == b"".join(parts), f"case {number}"
        assert store.stat(key).size == sum(map(len, parts))


def put_keeps_nothing(store: ObjectStore) -> None:
    """Use a buffer again once put has returned."""
    buffer = bytearray(b"first")
    store.put(key_of(ObjectKind.PACK, 1), [buffer])
    buffer[:] = b"other"
    assert store.get(key_of(ObjectKind.PACK, 1)) == b"first"


def put_is_create_only(store: ObjectStore) -> None:
    """Put a name twice: the second is refused and changes nothing, also for mutable kinds."""
    for kind in ObjectKind:
        key = key_of(kind, 1)
        store.put(key, [b"first"])
        with raises(ObjectExists, mentions=str(key)):
            store.put(key, [b"second"])
        assert store.get(key) == b"first"


def missing_objects(store: ObjectStore) -> None:
    """Read what is not there: ObjectNotFound names it."""
    store.put(key_of(ObjectKind.PACK, 1), [b"a neighbour"])
    for kind in ObjectKind:
        key = key_of(kind, 2)
        for read in (store.get, store.stat, lambda key: store.get_ranges(key, [(0, 1)])):
            with raises(ObjectNotFound, mentions=str(key)):
                read(key)


def ranges(store: ObjectStore) -> None:
    """Get ranges in the order asked; they may overlap, repeat, be empty or be none."""
    key = key_of(ObjectKind.PACK, 1)
    store.put(key, [b"0123456789"])
    found = store.get_ranges(key, [(7, 3), (0, 4), (2, 4), (0, 4), (10, 0), (0, 10)])
    assert found == [b"789", b"0123", b"2345", b"0123", b"", b"0123456789"]
    assert store.get_ranges(key, []) == []


def ranges_outside(store: ObjectStore) -> None:
    """Reach beyond the end: that is damage, whatever the size; a negative range is the caller's mistake."""
    key = key_of(ObjectKind.PACK, 1)
    store.put(key, [b"0123456789"])
    for bad in ((0, 11), (10, 1), (11, 0), (9, 2), (1 << 62, 1), (0, 1 << 62), (1 << 40, 1 << 40)):
        with raises(ObjectDamaged, mentions=str(key)):
            store.get_ranges(key, [(0, 1), bad])
    for bad in ((-1, 1), (0, -1), (-5, 3)):
        with raises(UsageError):
            store.get_ranges(key, [bad])


def listings(store: ObjectStore) -> None:
    """List each kind: its objects, each once, with the right size, and no other kind's."""
    for kind in ObjectKind:
        assert names(store, kind) == [], "the store under test must be empty"
    several = {kind: 1 if kind is ObjectKind.CONFIG else 20 for kind in ObjectKind}
    for kind, count in several.items():
        for number in range(count):
            store.put(key_of(kind, number, first=number % 5), [b"x" * number])
    for kind, count in several.items():
        expected = {key_of(kind, number, first=number % 5): number for number in range(count)}
        assert {info.key: info.size for info in store.listing(kind)} == expected
        names(store, kind)


def listings_by_prefix(store: ObjectStore) -> None:
    """Narrow a listing by prefixes of any length."""
    for kind in (ObjectKind.PACK, ObjectKind.SNAPSHOT):
        keys = [key_of(kind, number, first=first) for first in (0x00, 0x0A, 0xA0, 0xAB) for number in (1, 2)]
        for key in keys:
            store.put(key, [b"x"])
        for prefix in (
            "",
            "0",
            "a",
            "0a",
            "ab",
            "ab0",
            keys[0].name,
            keys[-1].name[:63],
            "b",
            "abc",
            "zz",
            "..",
        ):
            expected = sorted(key.name for key in keys if key.name.startswith(prefix))
            assert names(store, kind, prefix) == expected, prefix
    store.put(CONFIG_KEY, [b"c"])
    assert names(store, ObjectKind.CONFIG, "con") == ["config"]
    assert names(store, ObjectKind.CONFIG, "a") == []


def listing_while_changing(store: ObjectStore) -> None:
    """Visit what is there throughout an iteration once, though others come and go meanwhile."""
    kind = ObjectKind.PACK
    steady = [key_of(kind, number, first=number % 3) for number in range(60)]
    passing = [key_of(kind, 1000 + number, first=number % 3) for number in range(60)]
    for key in itertools.chain(steady, passing[:30]):
        store.put(key, [b"x"])
    seen = []
    for step, info in enumerate(store.listing(kind)):
        seen.append(info.key)
        if step < 30:
            store.delete([passing[step]])
            store.put(passing[30 + step], [b"y"])
    assert len(seen) == len(set(seen))
    assert set(steady) <= set(seen) <= {*steady, *passing}


def times_are_utc(store: ObjectStore) -> None:
    """Get times that are aware, in UTC, and not years off."""
    store.put(CONFIG_KEY, [b"x"])
    modified = store.stat(CONFIG_KEY).modified
    assert modified.tzinfo is UTC
    assert modified == next(store.listing(ObjectKind.CONFIG)).modified
    assert modified > datetime(2020, 1, 1, tzinfo=UTC), "a store's clock may be off, but not by years"
    assert modified.utcoffset() == timedelta(0)


def swaps(store: ObjectStore) -> None:
    """Create, change and delete by compare-and-swap, for each mutable kind."""
    for kind in sorted(MUTABLE, key=lambda kind: kind.value):
        key = key_of(kind, 1)
        store.replace(key, b"one", expect=None)
        assert store.get(key) == b"one"
        store.replace(key, b"longer than one", expect=b"one")
        store.replace(key, b"", expect=b"longer than one")
        store.replace(key, b"two", expect=b"")
        assert store.get(key) == b"two"
        assert store.stat(key).size == 3
        assert names(store, kind) == [key.name]
        store.replace(key, None, expect=b"two")
        assert names(store, kind) == []
        with raises(ObjectNotFound):
            store.get(key)
        store.replace(key, b"again", expect=None)
        store.delete([key])


def failed_swaps(store: ObjectStore) -> None:
    """Swap with a wrong expectation: ObjectExists, and nothing changes."""
    for data in (b"new", None):
        with raises(ObjectExists, mentions=str(GEN)):
            store.replace(GEN, data, expect=b"old")
    assert names(store, ObjectKind.GC) == []
    store.put(GEN, [b"old"])
    for data, expect in (
        (b"new", None),
        (b"new", b"ol"),
        (b"new", b"older"),
        (None, b"other"),
        (b"new", b""),
    ):
        with raises(ObjectExists, mentions=str(GEN)):
            store.replace(GEN, data, expect=expect)
        assert store.get(GEN) == b"old"


def swaps_not_allowed(store: ObjectStore) -> None:
    """Refuse to swap immutable kinds, or nothing for nothing."""
    for kind in set(ObjectKind) - MUTABLE:
        key = key_of(kind, 1)
        store.put(key, [b"x"])
        for data, expect in ((b"y", b"x"), (None, b"x"), (b"y", None)):
            with raises(UsageError, mentions=str(key)):
                store.replace(key, data, expect=expect)
        assert store.get(key) == b"x"
    with raises(UsageError):
        store.replace(GEN, None, expect=None)


def deletes(store: ObjectStore) -> None:
    """Delete: those are gone, others stay, missing ones are passed over, names can be used again."""
    keys = [key_of(ObjectKind.PACK, number, first=number) for number in range(6)]
    for key in [*keys, GEN]:
        store.put(key, [b"x"])
    store.delete(iter([keys[0], keys[1], keys[0], GEN, key_of(ObjectKind.INDEX, 9)]))
    store.delete([keys[0]])
    store.delete([])
    assert names(store, ObjectKind.PACK) == sorted(key.name for key in keys[2:])
    assert names(store, ObjectKind.GC) == []
    store.put(keys[0], [b"new"])
    assert store.get(keys[0]) == b"new"


def racing_puts(store: ObjectStore) -> None:
    """Let several threads put one name: one wins, and its bytes are the object."""
    for number in range(_ROUNDS):
        key = key_of(ObjectKind.PACK, number, first=number)

        def attempt(content: bytes, key: ObjectKey = key) -> bytes | None:
            try:
                store.put(key, [content])
            except ObjectExists:
                return None
            return content

        winners = [content for content in _at_once(attempt) if content is not None]
        assert len(winners) == 1, f"{len(winners)} winners"
        assert store.get(key) == winners[0]


def racing_swaps(store: ObjectStore) -> None:
    """Count from several threads without losing an increment; puts race for the counter's creation."""
    each = 10

    def count(content: bytes) -> None:
        for _ in range(each):
            _increment(store, create=store.put if content[0] % 2 else None)

    _at_once(count)
    assert store.get(GEN) == b"%d" % (_THREADS * each)


def racing_deletes(store: ObjectStore) -> None:
    """Let a swap race with a deletion and a new put: the swap must not go over what was put."""
    for _ in range(_ROUNDS):
        store.put(GEN, [b"old"])

        def work(content: bytes) -> None:
            with suppress(ObjectExists):
                if content[0] == 0:
                    store.delete([GEN])
                    store.put(GEN, [b"new"])
                elif content[0] == 1:
                    store.replace(GEN, b"swapped", expect=b"old")

        _at_once(work)
        assert store.get(GEN) == b"new"
        store.delete([GEN])


def _increment(store: ObjectStore, create: Callable[[ObjectKey, list[bytes]], None] | None) -> None:
    while True:
        try:
            present = store.get(GEN)
        except ObjectNotFound:
            present = None
        try:
            if present is None and create is not None:
                return create(GEN, [b"1"])
            return store.replace(GEN, b"%d" % (int(present or b"0") + 1), expect=present)
        except ObjectExists:
            continue


def _at_once(work: Callable[[bytes], T]) -> list[T]:
    """Call ``work`` with distinct contents from several threads that start together."""
    gate = threading.Barrier(_THREADS)

    def run(number: int) -> T:
        gate.wait()
        return work(bytes([number]) * 1000)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(run, range(_THREADS)))


STORE_CONTRACT: tuple[Callable[[ObjectStore], None], ...] = (
    put_then_get,
    objects_may_be_empty,
    many_parts,
    large_parts,
    put_keeps_nothing,
    put_is_create_only,
    missing_objects,
    ranges,
    ranges_outside,
    listings,
    listings_by_prefix,
    listing_while_changing,
    times_are_utc,
    swaps,
    failed_swaps,
    swaps_not_allowed,
    deletes,
    racing_puts,
    racing_swaps,
    racing_deletes,
)
"""Every check that an `ObjectStore` must pass; each wants an empty store of its own and may leave it full."""
