"""Ids of many chunks at once: the compiled code against BLAKE3 of each alone."""

import importlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.format import chunkids
from dedupstore.format.chunkids import entries, entries_plain, kernels

KEY = bytes(range(32))
DATA = random.Random(1).randbytes(300_000)
needs_extension = pytest.mark.skipif("c" not in kernels(), reason="the extension is not built")


def native(key: object, data: object, pieces: object) -> bytes:
    found: bytes = importlib.import_module("dedupstore.format._chunkids").entries(key, data, pieces)
    return found


def test_the_definition_is_keyed_blake3_and_the_size() -> None:
    hashed = blake3(DATA[5:905], key=KEY).digest()
    assert entries_plain(KEY, DATA, [(5, 905)]) == hashed + (900).to_bytes(4, "little")


@needs_extension
@pytest.mark.parametrize("extra", [-1, 0, 1, 64])
@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 255])
def test_every_shape_of_tree(leaves: int, extra: int) -> None:
    pieces = [(3, 3 + leaves * 1024 + extra)]
    assert native(KEY, DATA, pieces) == entries_plain(KEY, DATA, pieces)


@needs_extension
@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 127, 128, 129, 960, 961, 1023])
def test_chunks_of_one_leaf(size: int) -> None:
    pieces = [(at, at + size) for at in range(0, 40 * size, size)]
    assert native(KEY, DATA, pieces) == entries_plain(KEY, DATA, pieces)


@needs_extension
@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(1, 9000)), max_size=40),
    st.binary(min_size=32, max_size=32),
)
def test_any_pieces_in_any_order(starts: list[tuple[int, int]], key: bytes) -> None:
    pieces = [(start, start + size) for start, size in starts]
    assert native(key, memoryview(DATA), pieces) == entries_plain(key, DATA, pieces)


@pytest.mark.parametrize("mean", [100, chunkids.SMALL - 1000, chunkids.SMALL + 1000])
@pytest.mark.parametrize("count", [0, 1, chunkids.LEAST - 1, chunkids.LEAST, 15])
def test_whichever_way_is_chosen_the_ids_are_the_same(mean: int, count: int) -> None:
    pieces = [(mean * n, mean * (n + 1)) for n in range(count)]
    assert entries(KEY, DATA, pieces) == entries_plain(KEY, DATA, pieces)


@needs_extension
@pytest.mark.parametrize(
    ("key", "data", "pieces", "error"),
    [
        (KEY[:31], DATA, [(0, 1)], ValueError),
        (KEY, DATA, [(0, 0)], ValueError),
        (KEY, DATA, [(2, 1)], ValueError),
        (KEY, DATA, [(-1, 1)], ValueError),
        (KEY, DATA, [(0, len(DATA) + 1)], ValueError),
        (KEY, DATA, [(0, 1), (0, 1 << 70)], OverflowError),
        (KEY, DATA, [(0,)], TypeError),
        (KEY, DATA, [5], SystemError),
        (KEY, DATA, ((0, 1),), TypeError),
        (KEY, "text", [(0, 1)], TypeError),
    ],
)
def test_the_extension_checks_its_arguments(
    key: object, data: object, pieces: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        native(key, data, pieces)


DISAGREES = """
import sys, types
module = types.ModuleType("dedupstore.format._chunkids")
module.entries = lambda key, data, pieces: bytes(36 * len(pieces))
sys.modules["dedupstore.format._chunkids"] = module
from dedupstore.format.chunkids import entries, entries_plain, kernels
pieces = [(n, n + 9) for n in range(100)]
assert kernels() == ("python",)
assert entries(bytes(32), bytes(200), pieces) == entries_plain(bytes(32), bytes(200), pieces)
"""


@pytest.mark.parametrize("instead", [DISAGREES, DISAGREES.replace("= module\n", "= None\n")])
def test_code_that_is_missing_or_wrong_is_not_used(instead: str) -> None:
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", instead], check=True, cwd=root)


GOES_WRONG_LATER = """
from dedupstore.errors import IntegrityError
from dedupstore.format import chunkids
native = chunkids._native
if native is not None:
    pieces = [(n * 90, n * 90 + 90) for n in range(100)]
    wrong = bytearray(native(bytes(32), bytes(9000), pieces))
    for at in range(4, len(wrong), 36):  # every id, but not the bytes that choose
        wrong[at] ^= 1
    chunkids._native = lambda key, data, pieces: bytes(wrong)
    try:
        chunkids.entries(bytes(32), bytes(9000), pieces)
    except IntegrityError:
        raise SystemExit(0)
    raise SystemExit("it was believed")
"""


def test_an_answer_that_is_wrong_later_ends_the_run() -> None:
    subprocess.run([sys.executable, "-c", GOES_WRONG_LATER], check=True, cwd=Path(__file__).parents[3])
