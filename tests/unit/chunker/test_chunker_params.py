"""Parameters: what they refuse, and that the mean on random data is what was asked for."""

from math import exp

import pytest

from dedupstore.chunker.base import DEFAULT_AVERAGE, LARGEST, Params, kernel_name, make_chunker
from dedupstore.errors import UsageError
from tests.unit.chunker.chunker_inputs import KEY, random_bytes


@pytest.mark.parametrize(
    "sizes",
    [
        (52, 60, 70),
        (0, 0, 0),
        (-1, 60, 70),
        (60, 59, 70),
        (60, 70, 69),
        (60, 70, LARGEST + 1),
        (53, 1 << 31, 1 << 33),
    ],
)
def test_sizes_out_of_order_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="choose 52 < min_size"):
        Params(*sizes, strict=1, loose=1)


@pytest.mark.parametrize("threshold", [-1, 1 << 32, 1 << 64])
def test_thresholds_out_of_range_are_refused(threshold: int) -> None:
    with pytest.raises(UsageError, match="strict"):
        Params(53, 60, 70, threshold, 1)
    with pytest.raises(UsageError, match="loose"):
        Params(53, 60, 70, 1, threshold)


def test_the_edges_are_allowed() -> None:
    Params(53, 53, 53, 0, 0)
    Params(53, LARGEST, LARGEST, (1 << 32) - 1, (1 << 32) - 1)


@pytest.mark.parametrize("average", [-1, 0, 1, 52, 70, (256 << 20) + 1, 1 << 40])
def test_averages_out_of_range_are_refused(average: int) -> None:
    with pytest.raises(UsageError):
        Params.for_average(average)


def test_default_parameters_are_part_of_the_format() -> None:
    assert Params.for_average(DEFAULT_AVERAGE) == Params(196608, 262144, 1048576, strict=38019, loose=152076)


@pytest.mark.parametrize("average", [71, 1000, 4096, 65536, DEFAULT_AVERAGE, 1 << 20, 1 << 24, 1 << 28])
def test_thresholds_give_the_mean_by_calculation(average: int) -> None:
    params = Params.for_average(average)
    strict, loose = params.strict / 2**32, params.loose / 2**32
    outlive = exp(-strict * (params.normal - params.min_size))
    mean = params.min_size + (1 - outlive) / strict
    mean += outlive * (1 - exp(-loose * (params.max_size - params.normal))) / loose
    assert mean == pytest.approx(average, rel=0.02)


@pytest.mark.skipif(kernel_name() in {"numpy", "python"}, reason="too slow without the extension")
@pytest.mark.parametrize("average", [512, 4096, 65536, DEFAULT_AVERAGE])
def test_thresholds_give_the_mean_by_measurement(average: int) -> None:
    data = random_bytes(min(1024 * average, 64 << 20), "mean")
    ends = make_chunker(KEY, Params.for_average(average)).cuts(data, False)
    assert ends[-1] / len(ends) == pytest.approx(average, rel=0.05)
