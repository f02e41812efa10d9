"""The plain Python definition against published AES vectors, and against itself said in words."""

import pytest

from dedupstore.chunker import awindow
from dedupstore.chunker.base import Params, kernels, make_chunker
from tests.unit.chunker.chunker_inputs import DENSE, KEY, low_entropy, random_bytes


def test_key_schedule_of_fips_197_appendix_a() -> None:
    schedule = awindow.expand_key(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert len(schedule) == 176
    assert schedule[16:32].hex() == "a0fafe1788542cb123a339392a6c7605"
    assert schedule[160:].hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"


@pytest.mark.parametrize(
    ("key", "plain", "sealed"),
    [
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        ),
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        ),
        (
            "00000000000000000000000000000000",
            "80000000000000000000000000000000",
            "3ad78e726c1ec02b7ebfe92b23d9ec34",
        ),
    ],
)
def test_cipher_of_fips_197(key: str, plain: str, sealed: str) -> None:
    schedule = awindow.expand_key(bytes.fromhex(key))
    assert awindow.encrypt(schedule, bytes.fromhex(plain)).hex() == sealed


@pytest.mark.parametrize("kernel", kernels())
def test_every_kernel_judges_by_fips_197(kernel: str) -> None:
    """A chunk of 53 bytes whose window folds to the standard's plaintext: its one verdict is known."""
    data = bytes(37) + bytes.fromhex("00112233445566778899aabbccddeeff")
    value = int.from_bytes(bytes.fromhex("69c4e0d8"), "little")
    for threshold, ends in ((value, []), (value + 1, [53])):
        params = Params(min_size=53, normal=53, max_size=54, strict=threshold, loose=0)
        assert make_chunker(KEY, params, kernel).cuts(data, False) == ends
        params = Params(min_size=53, normal=53, max_size=54, strict=0, loose=threshold)
        assert make_chunker(KEY, params, kernel).cuts(b"x" + data, False) == [54]


def test_a_key_of_another_length_is_refused() -> None:
    for size in (0, 15, 17, 32):
        with pytest.raises(ValueError, match="16 bytes"):
            awindow.expand_key(bytes(size))


@pytest.mark.parametrize("data", [random_bytes(4000), bytes(4000), low_entropy(4000)])
def test_cuts_are_where_the_rule_says(data: bytes) -> None:
    """The rule once more, with no walk over segments: every end is judged on its own."""
    schedule = awindow.expand_key(KEY)
    start = 0
    for end in make_chunker(KEY, DENSE, "python").cuts(data, True):
        chunk = data[start:end]
        for length in range(DENSE.min_size, len(chunk) + 1):
            threshold = DENSE.strict if length <= DENSE.normal else DENSE.loose
            ends_here = awindow.value(schedule, chunk[length - 53 : length]) < threshold
            ends_here = ends_here or length == DENSE.max_size
            assert ends_here == (length == len(chunk)) or end == len(data)
        start = end
    assert start == len(data)


def test_records_of_37_bytes_are_one_window() -> None:
    """What the lag can not see: with this period every window folds to zeros, and all chunks are as long."""
    data = random_bytes(37) * 100
    lengths = {make_chunker(KEY, DENSE).cuts(data[at:], False)[0] for at in range(37)}
    assert len(lengths) == 1
