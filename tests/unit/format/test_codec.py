import random
import struct
from contextlib import suppress

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.format.codec import Compression, Compressor, Expander, expand
from dedupstore.format.constants import CODEC_LZ4, CODEC_RAW, CODEC_ZSTD, MIB, RECORD_PLAIN_MAX

TEXTS = ["none", "lz4:1", "lz4:4", "zstd:-7", "zstd:-1", "zstd:1", "zstd:2", "zstd:3", "zstd:19"]
NOISE = random.Random(7).randbytes(20_000)


@pytest.mark.parametrize("text", TEXTS)
def test_text_forms_round_trip(text: str) -> None:
    assert str(Compression.parse(text)) == text


def test_short_forms() -> None:
    assert Compression.parse("lz4") == Compression(CODEC_LZ4, 1)
    assert Compression.parse("zstd") == Compression(CODEC_ZSTD, 1)
    assert Compression.parse("none") == Compression(CODEC_RAW, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gzip",
        "zstd:",
        "zstd:0",
        "zstd:23",
        "zstd:-8",
        "zstd:3.5",
        "zstd:+3",
        "zstd:3 ",
        "ZSTD",
        "lz4:0",
        "lz4:-1",
        "lz4:65538",
        "lz4:999999",
        "none:1",
        "zstd:3\n",
        "zstd:٣",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"compression|lz4|zstd"):
        Compression.parse(text)


@pytest.mark.parametrize("text", TEXTS)
@given(data=st.binary(max_size=400).map(lambda seed: seed * 9))
def test_round_trip(text: str, data: bytes) -> None:
    codec, packed = Compressor(Compression.parse(text)).compress(data)
    assert expand(codec, packed, len(data)) == data


@pytest.mark.parametrize("text", TEXTS)
def test_any_buffer_and_a_kept_context(text: str) -> None:
    data = b"compress me, I repeat: " * 500
    compressor, expander = Compressor(Compression.parse(text)), Expander()
    results = {bytes(compressor.compress(x)[1]) for x in (data, bytearray(data), memoryview(data))}
    assert len(results) == 1
    (packed,) = results
    codec = Compression.parse(text).codec
    for source in (packed, bytearray(packed), memoryview(packed)):
        assert expander.expand(codec, source, len(data)) == data


def test_levels_have_an_effect() -> None:
    source = random.Random(9)
    data = b" ".join(source.choice([b"alpha", b"beta", b"gamma", b"delta", b"%d" % n]) for n in range(9000))
    for texts in (["lz4:1", "lz4:8", "lz4:99"], ["zstd:9", "zstd:1", "zstd:-7"]):
        sizes = [len(Compressor(Compression.parse(text)).compress(data)[1]) for text in texts]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("text", TEXTS)
def test_what_does_not_pay_is_kept_as_it_is(text: str) -> None:
    compressor = Compressor(Compression.parse(text))
    for data in (b"", b"a", NOISE, bytearray(NOISE), memoryview(NOISE)):
        codec, packed = compressor.compress(data)
        assert codec == CODEC_RAW
        assert packed is data


def test_the_line_is_at_three_per_cent() -> None:
    compressor = Compressor(Compression.parse("zstd:1"))
    for zeros in range(0, 1200, 50):
        data = NOISE[: 20_000 - zeros] + bytes(zeros)
        codec, packed = compressor.compress(data)
        assert (codec == CODEC_ZSTD) == (len(packed) <= 0.97 * len(data))
        raw = zstandard.ZstdCompressor(level=1, write_dict_id=False).compress(data)
        assert (codec == CODEC_ZSTD) == (len(raw) <= 0.97 * len(data))


def test_a_zstd_bomb_is_refused_before_it_is_expanded() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(300 * MIB))
    assert len(bomb) < 20_000
    with pytest.raises(ObjectDamaged, match="instead of 1000"):
        expand(CODEC_ZSTD, bomb, 1000)
    with pytest.raises(ObjectDamaged, match="the limit"):
        expand(CODEC_ZSTD, bomb, 300 * MIB)


def test_a_zstd_bomb_that_lies_about_its_size_is_refused() -> None:
    bomb = bytearray(zstandard.ZstdCompressor().compress(bytes(300 * MIB)))
    assert zstandard.frame_content_size(bomb) == 300 * MIB
    place = bomb.index(struct.pack("<I", 300 * MIB))
    bomb[place : place + 4] = struct.pack("<I", 1000)
    assert zstandard.frame_content_size(bomb) == 1000
    with pytest.raises(ObjectDamaged):
        expand(CODEC_ZSTD, bomb, 1000)


def test_a_zstd_frame_must_state_its_size() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(ObjectDamaged):
        expand(CODEC_ZSTD, silent, 1000)


def test_an_lz4_bomb_is_refused() -> None:
    bomb = lz4.block.compress(bytes(100 * MIB), store_size=False)
    with pytest.raises(ObjectDamaged, match="does not expand"):
        expand(CODEC_LZ4, bomb, 1000)
    with pytest.raises(ObjectDamaged, match="the limit"):
        expand(CODEC_LZ4, bomb, RECORD_PLAIN_MAX + 1)


@pytest.mark.parametrize("codec", [CODEC_RAW, CODEC_LZ4, CODEC_ZSTD])
def test_a_wrong_length_is_refused(codec: int) -> None:
    data = b"abcabcabc" * 100
    packed = {
        CODEC_RAW: data,
        CODEC_LZ4: lz4.block.compress(data, store_size=False),
        CODEC_ZSTD: zstandard.compress(data),
    }[codec]
    assert expand(codec, packed, len(data)) == data
    for length in (-1, 0, 1, len(data) - 1, len(data) + 1, 1 << 40):
        with pytest.raises(ObjectDamaged):
            expand(codec, packed, length)


def test_unknown_codec_is_named() -> None:
    with pytest.raises(FormatError, match="codec number 9"):
        expand(9, b"x", 1)


def test_a_delta_needs_its_base() -> None:
    base = random.Random(8).randbytes(50_000)
    data = base[:20_000] + b"an edit" + base[20_010:]
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    delta = zstandard.ZstdCompressor(level=3, dict_data=dictionary, write_dict_id=False).compress(data)
    assert len(delta) < 1000
    assert expand(CODEC_ZSTD, delta, len(data), base) == data
    for wrong in (None, base[:100]):
        with pytest.raises(ObjectDamaged):
            expand(CODEC_ZSTD, delta, len(data), wrong)
    # Another base of the same size gives other bytes; the chunk's id is what tells.
    assert expand(CODEC_ZSTD, delta, len(data), base[::-1]) != data
    with pytest.raises(ObjectDamaged, match="only zstd"):
        expand(CODEC_LZ4, delta, len(data), base)


@given(st.integers(0, 3), st.binary(max_size=200), st.integers(-5, 500), st.none() | st.binary(max_size=50))
def test_noise_only_ever_fails_in_our_way(codec: int, data: bytes, length: int, base: bytes | None) -> None:
    with suppress(ObjectDamaged, FormatError):
        assert len(expand(codec, data, length, base)) == length
