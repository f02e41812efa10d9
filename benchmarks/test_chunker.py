"""How many bytes a second each chunker kernel gets through, as used: default sizes, one thread.

Run ``python -m pytest -s benchmarks/test_chunker.py``: each test prints its MB/s (of the best round), and
leaves it in the saved results as ``extra_info["MB/s"]``.
"""

import hashlib

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dedupstore.chunker.base import DEFAULT_AVERAGE, Params, kernels, make_chunker

KEY = bytes(range(16))
PARAMS = Params.for_average(DEFAULT_AVERAGE)
SIZES = {"python": 160 << 10, "numpy": 8 << 20, "c": 8 << 20}
"""Bytes a round; 64 MiB for kernels with AES instructions."""


def random_data(size: int) -> bytes:
    return hashlib.shake_128(b"benchmark").digest(size)


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("content", ["random", "zeros"])
def test_chunker(benchmark: BenchmarkFixture, content: str, kernel: str) -> None:
    size = SIZES.get(kernel, 64 << 20)
    data = random_data(size) if content == "random" else bytes(size)
    chunker = make_chunker(KEY, PARAMS, kernel)
    benchmark.group = f"chunker, {content} data, average {DEFAULT_AVERAGE >> 10} KiB"
    ends = benchmark.pedantic(
        chunker.cuts, (data, True), rounds=1 if kernel == "python" else 5, warmup_rounds=1
    )
    assert ends[-1] == size
    if benchmark.stats is not None:  # None where benchmarks are switched off
        speed = size / benchmark.stats.stats.min / 1e6
        benchmark.extra_info["MB/s"] = round(speed, 3)
        print(f"\n{kernel}, {content}: {speed:.3g} MB/s")
