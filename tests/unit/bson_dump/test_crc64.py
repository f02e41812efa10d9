import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.sources.bson.crc64 import crc64, crc64_plain


@pytest.mark.parametrize("function", [crc64, crc64_plain])
def test_the_published_check_value(function) -> None:  # type: ignore[no-untyped-def]
    assert function(b"123456789") == 0x995DC9BBDF1939FA
    assert function(b"") == 0


@given(st.binary(max_size=100), st.integers(0, 20), st.integers(0, 2**64 - 1))
def test_the_native_code_agrees_with_the_definition(data: bytes, times: int, before: int) -> None:
    assert crc64(data * times, before) == crc64_plain(data * times, before)


def test_at_every_length() -> None:
    data = random.Random(1).randbytes(700)
    for size in range(len(data)):
        assert crc64(data[:size]) == crc64_plain(data[:size])


@given(st.binary(max_size=200), st.integers(0, 200))
def test_a_checksum_can_be_gone_on_with(data: bytes, cut: int) -> None:
    view = memoryview(data)
    assert crc64(view[cut:], crc64(view[:cut])) == crc64(data)
