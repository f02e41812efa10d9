"""How the compiled walk is called: what it takes and refuses, who may run meanwhile, and life without it."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.leaves import ASCENDING, BROKEN, UNDECIDED, LeafCutter, Walked, kernels, walk
from tests.unit.bson.bson_values import Value, decimal, document
from tests.unit.bson.leaf_inputs import KEY, collection, cut_whole, made, object_id

ROOT = Path(__file__).parents[3]
needs_extension = pytest.mark.skipif("c" not in kernels(), reason="the extension is not built")
DATA = collection(50, 300)
GOOD = (DATA, 0, True, KEY, 2, 1000, 4000, b"", True)


def native(*arguments: object) -> Walked | None:
    found = importlib.import_module("dedupstore.sources.bson._leaves").walk(*arguments)
    return None if found is None else Walked(*found)


@needs_extension
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_contiguous_buffer_will_do(wrap: type) -> None:
    assert native(wrap(DATA), *GOOD[1:]) == walk(*GOOD)


@needs_extension
@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (0, "text", TypeError),
        (0, memoryview(bytes(20))[::2], BufferError),
        (1, -1, ValueError),
        (1, len(DATA) + 1, ValueError),
        (1, 1 << 70, OverflowError),
        (3, bytes(15), ValueError),
        (3, "text", TypeError),
        (4, -1, ValueError),
        (4, 33, ValueError),
        (5, -1, ValueError),
        (5, 4001, ValueError),
        (6, 4, ValueError),
        (6, 1.5, TypeError),
        (7, b"\x07short", ValueError),
        (7, b"\x07" + bytes(13), ValueError),
        (7, b"\x20", ValueError),
        (7, b"\x03" + document([(b"a", (0x20, b""))]), ValueError),
        (7, None, TypeError),
    ],
)
def test_the_extension_checks_its_arguments(place: int, value: object, error: type[Exception]) -> None:
    arguments: list[object] = [*GOOD]
    arguments[place] = value
    with pytest.raises(error):
        native(*arguments)


@needs_extension
def test_the_extension_counts_its_arguments() -> None:
    for arguments in ((), GOOD[:-1], (*GOOD, None)):
        with pytest.raises(TypeError):
            native(*arguments)


@needs_extension
def test_a_walk_may_begin_anywhere() -> None:
    first = len(next(raw.documents(DATA)))
    previous = raw.id_of(DATA)
    for final in (False, True):
        arguments = (DATA, first, final, KEY, 2, 1000, 4000, previous, True)
        assert native(*arguments) == walk(*arguments)
    assert native(DATA, len(DATA), True, *GOOD[3:]) == ([], [], 0, -1, len(DATA), False, ASCENDING)


MADE: list[Value] = [
    (0x07, bytes(range(12))),
    (0x02, b"\x01\0\0\0\0"),
    (0x02, b"\x06\0\0\0a\0b\0c\0"),
    (0x0E, b"\x03\0\0\0ab\0"),
    (0x02, raw.string("x" * 119)),
    (0x02, raw.string("x" * 1023)),
    (0x05, b"\x04\0\0\0\x04abcd"),
    (0x05, b"\0\x04\0\0\0" + bytes(1024)),
    (0x10, b"\xff\xff\xff\xff"),
    (0x10, bytes(4)),
    (0x12, bytes(7) + b"\x80"),
    (0x12, b"\xff" * 7 + b"\x7f"),
    (0x01, raw.double(-0.0)),
    (0x01, raw.double(-9007199254740991.0)),
    (0x09, b"\xff" * 8),
    (0x11, bytes(range(8))),
]
LEFT: list[Value] = [
    (0x01, raw.double(0.5)),
    (0x01, raw.double(9007199254740992.0)),
    (0x01, raw.double(float("nan"))),
    (0x02, raw.string("x" * 1024)),
    (0x03, document([(b"a", (0x10, bytes(4)))])),
    (0x08, b"\1"),
    (0x13, decimal("2")),
]


@needs_extension
@pytest.mark.parametrize("value", [*MADE, *LEFT], ids=lambda value: value[1][:12].hex())
def test_labels_that_the_extension_makes_are_those_of_the_definition(value: Value) -> None:
    arguments = (b"".join(made([value, value], 100)), 0, True, KEY, 0, 0, 4000, b"", True)
    found = native(*arguments)
    assert found is not None
    assert found.labels == ([None] * 2 if value in LEFT else walk(*arguments).labels)
    assert cut_whole(LeafCutter(KEY, k=0, kernel="c"), arguments[0]) == cut_whole(
        LeafCutter(KEY, k=0, kernel="python"), arguments[0]
    )


ONE = (0x10, b"\1\0\0\0")
PAIRS: list[tuple[Value, Value, int]] = [
    (ONE, (0x12, b"\2" + bytes(7)), ASCENDING),
    ((0x12, b"\2" + bytes(7)), ONE, BROKEN),
    (ONE, (0x01, bytes.fromhex("000000000000f83f")), ASCENDING),
    ((0x01, bytes.fromhex("000000000000f83f")), ONE, BROKEN),
    ((0x01, bytes.fromhex("000000000000f87f")), (0x01, bytes(8)), ASCENDING),
    ((0x01, bytes(8)), (0x01, bytes.fromhex("000000000000f87f")), BROKEN),
    ((0x12, bytes(7) + b"\x7f"), (0x01, bytes(8)), UNDECIDED),
    (ONE, (0x13, decimal("2")), UNDECIDED),
    ((0x13, decimal("2")), (0x13, decimal("2")), ASCENDING),
    ((0x13, decimal("2")), (0x02, b"\1\0\0\0\0"), ASCENDING),
    (
        (0x03, document([(b"a", (0x13, decimal("2")))])),
        (0x03, document([(b"a", (0x13, decimal("3")))])),
        UNDECIDED,
    ),
]


@needs_extension
@pytest.mark.parametrize(("first", "second", "order"), PAIRS)
def test_what_the_extension_leaves_undecided(first: Value, second: Value, order: int) -> None:
    data = b"".join(made([first, second], 100))
    found = native(data, 0, True, KEY, 0, 0, 4000, b"", False)
    assert found is not None
    assert found.order == order
    exact = walk(data, 0, True, KEY, 0, 0, 4000, b"", False)
    assert found._replace(order=0) == exact._replace(order=0)
    assert order in {UNDECIDED, exact.order}
    cutter = LeafCutter(KEY, sorted=False, kernel="c")
    cut_whole(cutter, data)
    assert cutter.in_order == (exact.order == ASCENDING)


@needs_extension
def test_other_threads_run_meanwhile() -> None:
    """With so long a switch interval, another thread runs only if the call lets go of the GIL itself."""
    ticks, stop, pause = 0, threading.Event(), threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            pause.wait(0.001)

    data = raw.EMPTY * 6_000_000
    interval = sys.getswitchinterval()
    other = threading.Thread(target=tick)
    sys.setswitchinterval(30)
    try:
        other.start()
        before = ticks
        native(data, 0, False, KEY, 32, 1000, 1 << 30, b"", False)
        during = ticks - before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()
    assert during > 10


@needs_extension
def test_many_threads_cut_at_once() -> None:
    inputs = [collection(400, 300, f"thread {number}") for number in range(4)]
    expected = [cut_whole(LeafCutter(KEY, kernel="python"), data) for data in inputs]
    found: list[list[tuple[int, bytes]]] = [[] for _ in inputs]

    def work(number: int) -> None:
        found[number] = cut_whole(LeafCutter(KEY), inputs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


WITHOUT = """
import sys
sys.modules["dedupstore.sources.bson._leaves"] = None
from dedupstore.sources.bson.leaves import LeafCutter, kernels
data = bytes.fromhex(sys.argv[1])
print(kernels(), [end for end, _ in LeafCutter(bytes(range(16)), k=1).cuts(memoryview(data), final=True)])
"""


def test_it_works_without_a_compiler() -> None:
    data = b"".join(made(map(object_id, range(30)), 300))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, data.hex()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    expected = [end for end, _ in cut_whole(LeafCutter(KEY, k=1), data)]
    assert done.stdout.strip() == f"('python',) {expected}"
