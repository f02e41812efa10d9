"""SipHash-2-4 against the vectors of its authors, in Python and in C."""

import importlib

import pytest

from dedupstore.sources.bson.leaves import kernels
from dedupstore.sources.bson.siphash import siphash
from tests.unit.bson.leaf_inputs import noise

KEY = bytes(range(16))
OFFICIAL = [
    "310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785",
    "b7877127e09427cf", "8da699cd64557618", "cee3fe586e46c9cb", "37d1018bf50002ab",
    "6224939a79f5f593", "b0e4a90bdf82009e", "f3b9dd94c5bb5d7a", "a7ad6b22462fb3f4",
    "fbe50e86bc8f1e75", "903d84c02756ea14", "eef27a8e90ca23f7", "e545be4961ca29a1",
]  # fmt: skip


@pytest.mark.parametrize("size", range(len(OFFICIAL)))
def test_official_vectors(size: int) -> None:
    expected = int.from_bytes(bytes.fromhex(OFFICIAL[size]), "little")
    assert siphash(KEY, bytes(range(size))) == expected


@pytest.mark.skipif("c" not in kernels(), reason="the extension is not built")
def test_the_extension_agrees() -> None:
    native = importlib.import_module("dedupstore.sources.bson._leaves")
    for size in [*range(80), 255, 256, 257, 1000]:
        key, data = noise(16, f"key {size}"), noise(size, f"data {size}")
        assert native.siphash(key, data) == native.siphash(key, memoryview(data)) == siphash(key, data)
    for key in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match="16 bytes"):
            native.siphash(key, b"")
