"""How the chunker is called: what it takes and refuses, who else may run meanwhile, what it falls back to."""

import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dedupstore.chunker import awindow
from dedupstore.chunker.base import Params, kernel_name, kernels, make_chunker
from dedupstore.errors import UsageError
from tests.unit.chunker.chunker_inputs import DENSE, KEY, random_bytes

ROOT = Path(__file__).parents[3]
NATIVE = [kernel for kernel in kernels() if kernel not in {"numpy", "python"}]
needs_extension = pytest.mark.skipif(not NATIVE, reason="the extension is not built")


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", kernels())
def test_any_contiguous_buffer_will_do(name: str) -> None:
    data, chunker = random_bytes(4096), make_chunker(KEY, DENSE, name)
    expected = chunker.cuts(data, True)
    with mmap.mmap(-1, 4096) as mapped:
        mapped[:] = data
        assert chunker.cuts(mapped, True) == expected  # type: ignore[arg-type]
    for view in (bytearray(data), memoryview(data), memoryview(data).cast("Q"), memoryview(b"x" + data)[1:]):
        assert chunker.cuts(view, True) == expected


@pytest.mark.parametrize("name", kernels())
def test_a_buffer_is_let_go(name: str) -> None:
    data = bytearray(random_bytes(1000))
    make_chunker(KEY, DENSE, name).cuts(data, True)
    data.clear()  # raises BufferError if somebody still looks at it


@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("data", ["text", None, 5, [1, 2], memoryview(bytes(2000))[::2]])
def test_what_is_no_buffer_is_refused(name: str, data: object) -> None:
    with pytest.raises((TypeError, BufferError)):
        make_chunker(KEY, DENSE, name).cuts(data, True)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="16 bytes"):
        make_chunker(bytes(size), DENSE)


@pytest.mark.parametrize("name", ["", "avx", "VAES512", "vaes512\0"])
def test_an_unknown_kernel_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="choose one of"):
        make_chunker(KEY, DENSE, name)


def test_the_best_kernel_is_taken() -> None:
    assert kernel_name() == kernels()[0]
    assert kernels()[-1] == "python"
    assert make_chunker(KEY, DENSE).params is DENSE


GOOD = (awindow.expand_key(KEY), b"data", True, 64, 128, 256, 1, 1)


@needs_extension
@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (0, b"short", ValueError),
        (0, bytes(177), ValueError),
        (0, "text", TypeError),
        (1, "text", TypeError),
        (3, 52, ValueError),
        (3, -1, ValueError),
        (3, 129, ValueError),
        (4, 257, ValueError),
        (5, 127, ValueError),
        (5, 1 << 31, ValueError),
        (5, 1 << 63, OverflowError),
        (5, 1.5, TypeError),
        (6, -1, ValueError),
        (6, 1 << 32, ValueError),
        (7, -1, ValueError),
        (7, 1 << 32, ValueError),
        (7, "1", TypeError),
        (8, "sse9", ValueError),
        (8, b"c", TypeError),
    ],
)
def test_the_extension_checks_its_arguments(place: int, value: object, error: type[Exception]) -> None:
    native = pytest.importorskip("dedupstore.chunker._awindow")
    arguments = [*GOOD, NATIVE[0]]
    assert native.cuts(*arguments) == [4]
    arguments[place] = value
    with pytest.raises(error):
        native.cuts(*arguments)


@needs_extension
def test_the_extension_counts_its_arguments() -> None:
    native = pytest.importorskip("dedupstore.chunker._awindow")
    for arguments in ((), GOOD[:-1], (*GOOD, None, None)):
        with pytest.raises(TypeError):
            native.cuts(*arguments)


@needs_extension
def test_other_threads_run_meanwhile() -> None:
    """With so long a switch interval, another thread runs only if the call lets go of the GIL itself."""
    ticks, stop, pause = 0, threading.Event(), threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            pause.wait(0.001)

    data = random_bytes(4 << 20)
    chunker = make_chunker(KEY, Params(53, 1 << 30, 1 << 30, 1, 1), "c")
    interval = sys.getswitchinterval()
    other = threading.Thread(target=tick)
    sys.setswitchinterval(30)
    try:
        other.start()
        before = ticks
        chunker.cuts(data, False)
        during = ticks - before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()
    assert during > 10


@pytest.mark.parametrize("name", kernels())
def test_one_chunker_serves_many_threads(name: str) -> None:
    size = 60_000 if name in NATIVE else 2000
    chunker = make_chunker(KEY, DENSE, name)
    inputs = [random_bytes(size, f"thread {i}") for i in range(4)]
    expected = [chunker.cuts(data, True) for data in inputs]
    found: list[list[int]] = [[] for _ in inputs]

    def work(i: int) -> None:
        found[i] = chunker.cuts(inputs[i], True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


FALLBACK = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from dedupstore.chunker.base import Params, kernel_name, make_chunker
chunker = make_chunker(bytes(range(16)), Params(64, 160, 640, 1 << 25, 1 << 27))
print(kernel_name(), "numpy" in sys.modules, sum(chunker.cuts(bytes(range(256)) * 12, True)))
"""


@pytest.mark.parametrize(
    ("missing", "kernel", "imports_numpy"),
    [
        ([], kernel_name(), kernel_name() == "numpy"),
        (["dedupstore.chunker._awindow"], "numpy", True),
        (["dedupstore.chunker._awindow", "numpy"], "python", True),
    ],
)
def test_it_works_without_a_compiler_and_without_numpy(
    missing: list[str], kernel: str, imports_numpy: bool
) -> None:
    result = run_python("-c", FALLBACK.format(missing=missing))
    assert result.returncode == 0, result.stderr
    cuts = make_chunker(KEY, DENSE).cuts(bytes(range(256)) * 12, True)
    assert result.stdout.split() == [kernel, str(imports_numpy), str(sum(cuts))]


@pytest.mark.parametrize("side", ["before", "after"])
def test_nothing_outside_the_buffer_is_read(side: str) -> None:
    """In a process of its own, which a byte too far ends."""
    result = run_python(str(Path(__file__).with_name("guarded_pages.py")), side)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 1000


def test_the_guard_would_notice() -> None:
    result = run_python(str(Path(__file__).with_name("guarded_pages.py")), "beyond")
    assert result.returncode < 0
