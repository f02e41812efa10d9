"""Kernels of the write path: ids, compression, sealing with read-back, whole packs, and the way back."""

import mmap
import os

import pytest

from dedupstore.format import chunkids
from dedupstore.format import constants as c
from dedupstore.format.codec import Compression, Compressor, Expander
from dedupstore.format.crypto import chunk_id, get_cipher
from dedupstore.format.keys import derive_epoch
from dedupstore.format.pack import PackBuilder, open_header, read_directory, read_trailer
from dedupstore.ids import ChunkId, PackId
from dedupstore.model import ChunkKind, Member, Members

MIB = 1 << 20
PACK = 16 * MIB
KEYS = derive_epoch(1, bytes(32))
REPO = bytes(16)
# Half random, half repetition in pieces of 64 bytes: compresses to about half, as a system folder does.
MIXED = b"".join(
    os.urandom(64) + b"the quick brown fox jumps over the lazy dog, twice and thrice. "
    for _ in range(MIB // 127 + 1)
)[:MIB]
RANDOM = os.urandom(MIB)


def builder() -> PackBuilder:
    return PackBuilder(
        mmap.mmap(-1, PACK),
        name=PackId(bytes(32)),
        kind=ChunkKind.DATA,
        keys=KEYS,
        repo_id=REPO,
        cipher=get_cipher(c.CIPHER_AEGIS256),
        salt=bytes(32),
    )


@pytest.mark.parametrize("size", [4096, 256 * 1024, MIB])
def test_chunk_id(benchmark, size):  # type: ignore[no-untyped-def]
    benchmark.extra_info["bytes"] = size
    benchmark(chunk_id, bytes(32), RANDOM[:size])


@pytest.mark.parametrize("size", [2048, 8192, 16_384])
@pytest.mark.parametrize("work", [chunkids.entries, chunkids.entries_plain])
def test_ids_of_a_buffer(benchmark, work, size):  # type: ignore[no-untyped-def]
    pieces = [(at, at + size) for at in range(0, MIB, size)]
    benchmark.extra_info["bytes"] = MIB
    benchmark(work, bytes(32), memoryview(RANDOM), pieces)


@pytest.mark.parametrize("text", ["lz4", "zstd:-1", "zstd:1", "zstd:3"])
def test_compress(benchmark, text):  # type: ignore[no-untyped-def]
    benchmark(Compressor(Compression.parse(text)).compress, MIXED)


@pytest.mark.parametrize("text", ["lz4", "zstd:1"])
def test_expand(benchmark, text):  # type: ignore[no-untyped-def]
    codec, packed = Compressor(Compression.parse(text)).compress(MIXED)
    expander = Expander()
    assert benchmark(expander.expand, codec, packed, MIB) == MIXED


@pytest.mark.parametrize("cipher", [c.CIPHER_AEGIS256, c.CIPHER_XCHACHA20])
def test_seal_and_open(benchmark, cipher):  # type: ignore[no-untyped-def]
    suite = get_cipher(cipher)
    sealed, opened, key = bytearray(MIB + 64), bytearray(MIB), bytes(32)

    def both() -> None:
        size = suite.seal_into(sealed, 0, RANDOM, ad=b"", number=1, key=key)
        suite.open_into(opened, 0, memoryview(sealed)[:size], ad=b"", number=1, key=key)

    benchmark(both)
    assert opened == RANDOM


def test_a_whole_pack(benchmark):  # type: ignore[no-untyped-def]
    scratch = bytearray(2 * MIB)
    members = Members.of(*[Member(ChunkId(bytes(32)), MIB // 4)] * 4)

    def fill() -> PackBuilder:
        pack = builder()
        while pack.fits(MIB, 4):
            pack.seal(pack.reserve(MIB, c.CODEC_RAW, MIB, members, None), RANDOM, scratch)
        pack.finish(bytes(pack.pad_size()))
        return pack

    assert benchmark(fill).records == 15


def test_read_a_directory_of_16_000_chunks(benchmark):  # type: ignore[no-untyped-def]
    pack, scratch = builder(), bytearray(MIB)
    members = Members.of(*[Member(ChunkId(bytes(32)), 8)] * 128)
    for _ in range(125):
        pack.seal(pack.reserve(1024, c.CODEC_RAW, 1024, members, None), RANDOM[:1024], scratch)
    size = pack.finish(bytes(pack.pad_size())).size
    data = bytes(pack.buffer[:size])
    length, _ = read_trailer(pack.name, data[-c.PACK_TRAILER_SIZE :], size)
    sealed = data[-c.PACK_TRAILER_SIZE - length : -c.PACK_TRAILER_SIZE]

    def read() -> int:
        header, key = open_header(pack.name, data, KEYS, REPO)
        return len(read_directory(pack.name, size, header, key, REPO, sealed).records)

    assert benchmark(read) == 125
