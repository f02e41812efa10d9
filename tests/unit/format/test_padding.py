from hypothesis import given
from hypothesis import strategies as st

from dedupstore.format.padding import padme


def test_known_sizes() -> None:
    # Worked by hand from the paper's algorithm.
    known = [(0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (100, 104), (1000, 1024), (1 << 20, 1 << 20)]
    assert [(size, padme(size)) for size, _ in known] == known
    assert padme((1 << 20) + 1) == (1 << 20) + (1 << 15)


@given(st.integers(0, 1 << 40))
def test_never_shorter_and_never_much_longer(size: int) -> None:
    padded = padme(size)
    assert size <= padded <= size * 1.125 + 1


@given(st.integers(0, 1 << 40))
def test_a_padded_size_stays(size: int) -> None:
    assert padme(padme(size)) == padme(size)


@given(st.integers(0, 1 << 30), st.integers(0, 1 << 30))
def test_order_is_kept(one: int, other: int) -> None:
    assert (one <= other) <= (padme(one) <= padme(other))


@given(st.integers(1 << 24, 1 << 30))
def test_packs_lose_little(size: int) -> None:
    assert padme(size) <= size * 1.03125
