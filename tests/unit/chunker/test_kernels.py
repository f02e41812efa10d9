"""All kernels give the same cuts, however the input is split."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.chunker.base import Params, kernel_name, kernels, make_chunker
from tests.unit.chunker.chunker_inputs import DENSE, KEY, cuts_in_pieces, low_entropy, periodic, random_bytes

FAST = [kernel for kernel in kernels() if kernel not in {"python", "numpy"}]
OTHERS = [kernel for kernel in kernels() if kernel != kernel_name()]
SIZES = [0, 1, 52, 53, 63, 64, 65, 159, 160, 161, 639, 640, 641, 704, 1281]
BUFFERS = {
    "random": random_bytes(200_000),
    "zeros": bytes(100_000),
    "ones": b"\xff" * 50_000,
    "low entropy": low_entropy(100_000),
    "period 37": periodic(50_000, 37),
    "period 48": periodic(50_000, 48),
    "period 4096": periodic(100_000, 4096),
    "zeros in random": random_bytes(40_000) + bytes(30_000) + random_bytes(40_000, "more"),
}
SHAPES = {
    "dense": DENSE,
    "average 1 KiB": Params.for_average(1024),
    "average 64 KiB": Params.for_average(65536),
    "smallest": Params(53, 53, 54, 1 << 31, 1 << 31),
    "normal is minimum": Params(100, 100, 5000, 0, 1 << 24),
    "normal is maximum": Params(100, 5000, 5000, 1 << 24, 0),
    "never": Params(100, 1000, 30_000, 0, 0),
    "always": Params(100, 1000, 30_000, (1 << 32) - 1, (1 << 32) - 1),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("buffer", BUFFERS)
def test_fast_kernels_agree(buffer: str, shape: str) -> None:
    data, params = BUFFERS[buffer], SHAPES[shape]
    expected = make_chunker(KEY, params).cuts(data, True)
    assert expected[-1] == len(data)
    lengths = [end - start for start, end in zip([0, *expected], expected, strict=False)]
    assert all(params.min_size <= length <= params.max_size for length in lengths[:-1])
    assert lengths[-1] <= params.max_size
    unsettled = make_chunker(KEY, params).cuts(data, False)
    assert unsettled in (expected, expected[:-1])
    for name in FAST:
        chunker = make_chunker(KEY, params, name)
        assert chunker.cuts(data, True) == expected, name
        assert chunker.cuts(data, False) == unsettled, name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize(("name", "size"), [("numpy", 6000), ("python", 1000)])
def test_slow_kernels_agree(name: str, size: int, buffer: str, shape: str) -> None:
    if name not in kernels():
        pytest.skip(f"{name} does not work here")
    data, params = BUFFERS[buffer][-size:], SHAPES[shape]
    for final in (False, True):
        expected = make_chunker(KEY, params).cuts(data, final)
        assert make_chunker(KEY, params, name).cuts(data, final) == expected


def test_numpy_agrees_over_full_blocks() -> None:
    data, params = random_bytes(300_000, "blocks"), Params(20_000, 60_000, 90_000, 1 << 16, 1 << 18)
    for name in kernels():
        if name != "python":
            assert make_chunker(KEY, params, name).cuts(data, True) == make_chunker(KEY, params).cuts(
                data, True
            )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", kernels())
def test_small_sizes_agree(name: str, size: int) -> None:
    for data in (random_bytes(size), bytes(size), low_entropy(size)):
        for final in (False, True):
            chunker = make_chunker(KEY, DENSE, name)
            assert chunker.cuts(data, final) == make_chunker(KEY, DENSE, "python").cuts(data, final)


@pytest.mark.parametrize("name", kernels())
def test_the_least_and_the_most_a_chunk_can_be(name: str) -> None:
    """A threshold of all ones lets every position end a chunk but one in 2**32; 0 lets none."""
    always = make_chunker(KEY, Params(100, 200, 300, (1 << 32) - 1, 0), name)
    never = make_chunker(KEY, Params(100, 200, 300, 0, 0), name)
    data = random_bytes(301)
    assert always.cuts(b"", False) == always.cuts(b"", True) == []
    assert always.cuts(data[:99], False) == []
    assert always.cuts(data[:99], True) == [99]
    assert always.cuts(data[:100], False) == always.cuts(data[:100], True) == [100]
    assert always.cuts(data[:101], False) == [100]
    assert always.cuts(data[:101], True) == [100, 101]
    assert never.cuts(data[:299], False) == []
    assert never.cuts(data[:299], True) == [299]
    assert never.cuts(data[:300], False) == never.cuts(data[:300], True) == [300]
    assert never.cuts(data, False) == [300]
    assert never.cuts(data, True) == [300, 301]


@pytest.mark.parametrize("name", kernels())
def test_every_split_in_two_gives_the_same_cuts(name: str) -> None:
    size, step = {"python": (700, 101), "numpy": (1400, 11)}.get(name, (1400, 1))
    data, chunker = random_bytes(size, "split"), make_chunker(KEY, DENSE, name)
    whole = chunker.cuts(data, True)
    for at in range(0, size + 1, step):
        assert cuts_in_pieces(chunker, data, [at]) == whole


@given(
    splits=st.lists(st.integers(0, 6000), max_size=12),
    data=st.sampled_from([random_bytes(6000), low_entropy(6000), bytes(6000), periodic(6000, 100)]),
    name=st.sampled_from([kernel for kernel in kernels() if kernel != "python"] or ["python"]),
)
@settings(deadline=None, max_examples=150)
def test_splits_do_not_matter(splits: list[int], data: bytes, name: str) -> None:
    chunker = make_chunker(KEY, DENSE, name)
    assert cuts_in_pieces(chunker, data, splits) == make_chunker(KEY, DENSE).cuts(data, True)


@given(
    key=st.binary(min_size=16, max_size=16),
    piece=st.binary(max_size=300),
    repeat=st.integers(1, 12),
    sizes=st.lists(st.integers(53, 700), min_size=3, max_size=3).map(sorted),
    bits=st.tuples(st.integers(0, 32), st.integers(0, 32)),
    final=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_any_key_any_parameters_any_data(
    key: bytes, piece: bytes, repeat: int, sizes: list[int], bits: tuple[int, int], final: bool
) -> None:
    params = Params(*sizes, *((1 << bit) - 1 for bit in bits))
    data = piece * repeat
    found = {name: make_chunker(key, params, name).cuts(data, final) for name in kernels()}
    assert len({tuple(ends) for ends in found.values()}) == 1, found


@pytest.mark.parametrize("name", kernels())
def test_a_hit_is_found_at_every_position(name: str) -> None:
    """A known hit is moved over every offset that lanes, blocks and their tails can have."""
    one_window = make_chunker(KEY, Params(53, 53, 54, 1 << 22, 0))
    tails = (random_bytes(53, f"hit {seed}") for seed in range(10_000))
    hit = next(tail for tail in tails if one_window.cuts(tail, False))
    chunker = make_chunker(KEY, Params(53, 2000, 2000, 1 << 22, 0), name)
    reference = make_chunker(KEY, Params(53, 2000, 2000, 1 << 22, 0))
    for before in range(0, 300, 61 if name == "python" else 1):
        data = bytes(before) + hit + bytes(70)
        ends = chunker.cuts(data, False)
        assert ends == reference.cuts(data, False)
        assert before + 53 in ends or ends[0] < before + 53


@pytest.mark.parametrize("name", kernels())
def test_the_key_decides(name: str) -> None:
    data = random_bytes(2000)
    other = make_chunker(bytes(16), DENSE, name).cuts(data, True)
    assert make_chunker(KEY, DENSE, name).cuts(data, True) != other


@pytest.mark.parametrize("name", OTHERS)
def test_an_insertion_is_forgotten_after_a_few_chunks(name: str) -> None:
    data = random_bytes(4000, "insertion")
    chunker = make_chunker(KEY, DENSE, name)
    before, after = chunker.cuts(data, True), chunker.cuts(b"a few bytes" + data, True)
    assert len({end + 11 for end in before} - set(after)) < 15
