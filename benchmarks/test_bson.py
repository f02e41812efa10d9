"""What walking, ordering and cutting documents costs, one thread.

Run ``python -m pytest -s benchmarks/test_bson.py``: each test prints its MB/s or microseconds (of the best
round), and leaves them in the saved results as ``extra_info``.
"""

import struct
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dedupstore.sources.bson import order, raw
from dedupstore.sources.bson.leaves import LeafCutter, kernels

KEY = bytes(range(16))
COUNTS = {"c": 32 << 20, "python": 1 << 20}
"""Bytes a round."""


def object_id(number: int) -> tuple[int, bytes]:
    return raw.OBJECT_ID, struct.pack(">IQ", 0x66000000 + number // 100, number)


def compound(number: int) -> tuple[int, bytes]:
    fields = [(b"shop", raw.STRING, raw.string("north")), (b"n", raw.INT64, raw.int64(number))]
    return raw.OBJECT, raw.document(fields)


def document(identity: tuple[int, bytes], size: int) -> bytes:
    fields = [
        (b"_id", *identity),
        (b"state", raw.STRING, raw.string("paid")),
        (b"at", raw.DATE, raw.int64(1_700_000_000_000)),
        (b"amount", raw.DOUBLE, raw.double(12.5)),
        (b"tags", raw.ARRAY, raw.array([(raw.STRING, raw.string("a")), (raw.STRING, raw.string("b"))])),
    ]
    filler = size - len(raw.document(fields)) - 14
    return raw.document([*fields, (b"filler", raw.STRING, raw.string("x" * max(filler, 0)))])


def collection(make: Callable[[int], tuple[int, bytes]], size: int, total: int) -> bytes:
    return b"".join(document(make(number), size) for number in range(total // size))


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("size", [100, 300, 1000, 10_000, 100_000])
@pytest.mark.parametrize("make", [object_id, compound])
def test_leaves(
    benchmark: BenchmarkFixture, make: Callable[[int], tuple[int, bytes]], size: int, kernel: str
) -> None:
    data = memoryview(collection(make, size, COUNTS[kernel]))

    def cut() -> int:
        return len(LeafCutter(KEY, kernel=kernel).cuts(data, final=True))

    benchmark.group = f"leaves of documents of {size} bytes, _id: {make.__name__}"
    leaves = benchmark.pedantic(cut, rounds=1 if kernel == "python" else 5, warmup_rounds=1)
    if benchmark.stats is not None:  # None where benchmarks are switched off
        speed = len(data) / benchmark.stats.stats.min / 1e6
        benchmark.extra_info["MB/s"] = round(speed, 1)
        print(f"\n{kernel}, {make.__name__}, {size} bytes: {speed:.0f} MB/s, {leaves} leaves")


def walk(doc: bytes) -> None:
    for _ in raw.elements(doc):
        pass


@pytest.mark.parametrize("work", [walk, raw.validate, raw.id_of])
def test_raw(benchmark: BenchmarkFixture, work: Callable[[bytes], object]) -> None:
    doc = document(object_id(1), 300)
    benchmark.group = "one document of 300 bytes and six fields"
    benchmark(work, doc)
    if benchmark.stats is not None:
        print(f"\n{work.__name__}: {benchmark.stats.stats.min * 1e6:.2f} us")


@pytest.mark.parametrize("make", [object_id, compound])
def test_sort_key(benchmark: BenchmarkFixture, make: Callable[[int], tuple[int, bytes]]) -> None:
    identity = raw.id_of(document(make(1), 300))
    benchmark.group = f"sort key, _id: {make.__name__}"
    benchmark(order.sort_key, identity)
    if benchmark.stats is not None:
        print(f"\n{make.__name__}: {benchmark.stats.stats.min * 1e6:.2f} us")
