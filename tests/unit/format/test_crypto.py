import mmap
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import FormatError, IntegrityError
from dedupstore.format import constants as c
from dedupstore.format.crypto import (
    _SHAPES,
    Buffer,
    Cipher,
    DirectCipher,
    PublicCipher,
    Source,
    _agree,
    _best,
    chunk_id,
    derive,
    fastest_cipher,
    get_cipher,
    keyed_hash,
    plain_hash,
)

KEY = bytes(range(32))
CIPHERS: list[Cipher] = [kind(shape) for shape in _SHAPES for kind in (DirectCipher, PublicCipher)]
every_cipher = pytest.mark.parametrize("cipher", CIPHERS, ids=lambda x: f"{x.name} {type(x).__name__}")


def test_the_fast_path_is_taken_here() -> None:
    assert isinstance(get_cipher(1), DirectCipher)
    assert isinstance(get_cipher(2), DirectCipher)


def test_without_the_private_interface_the_public_one_serves() -> None:
    assert isinstance(_best(replace(_SHAPES[0], sodium_name="crypto_aead_gone")), PublicCipher)


@pytest.mark.parametrize("other", ["crypto_aead_chacha20poly1305_ietf", "crypto_aead_aegis128l"])
def test_a_private_interface_of_other_sizes_is_not_even_tried(other: str) -> None:
    assert isinstance(_best(replace(_SHAPES[0], sodium_name=other)), PublicCipher)


def test_a_private_interface_that_disagrees_is_given_up() -> None:
    class SealsOtherwise(DirectCipher):
        def seal(self, plain: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
            return super().seal(plain, ad=ad + b"x", number=number, key=key)

    class OpensAnything(DirectCipher):
        def open(self, sealed: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
            return bytes(77)

    class OpensNothing(DirectCipher):
        def open_into(
            self, out: Buffer, offset: int, sealed: Source, *, ad: bytes, number: int, key: bytes
        ) -> int:
            return super().open_into(out, offset, sealed, ad=ad, number=number + 1, key=key)

    for shape in _SHAPES:
        public = PublicCipher(shape)
        assert _agree(DirectCipher(shape), public)
        assert not any(
            _agree(wrong(shape), public) for wrong in (SealsOtherwise, OpensAnything, OpensNothing)
        )


def test_sizes_are_the_formats() -> None:
    assert [(x.number, x.key_size, x.nonce_size, x.tag_size) for x in map(get_cipher, (1, 2))] == [
        (1, 32, 32, 32),
        (2, 32, 24, 16),
    ]


def test_unknown_cipher_is_named() -> None:
    with pytest.raises(FormatError, match="cipher number 7"):
        get_cipher(7)


def test_fastest_cipher_is_one_of_ours() -> None:
    assert fastest_cipher() in {1, 2}


def test_fastest_cipher_ends_under_a_clock_that_stands_still() -> None:
    class Standing:
        now = SYSTEM_CLOCK.now
        random = SYSTEM_CLOCK.random

        def monotonic(self) -> float:
            return 0.0

    assert fastest_cipher(Standing()) in {1, 2}


@pytest.mark.parametrize("shape", _SHAPES, ids=lambda shape: shape.name)
@given(plain=st.binary(max_size=300), ad=st.binary(max_size=70), number=st.integers(0, 2**64 - 1))
def test_both_ways_agree(shape: object, plain: bytes, ad: bytes, number: int) -> None:
    direct, public = DirectCipher(shape), PublicCipher(shape)  # type: ignore[arg-type]
    sealed = direct.seal(plain, ad=ad, number=number, key=KEY)
    assert sealed == public.seal(plain, ad=ad, number=number, key=KEY)
    assert len(sealed) == len(plain) + direct.tag_size
    assert direct.open(sealed, ad=ad, number=number, key=KEY) == plain
    assert public.open(sealed, ad=ad, number=number, key=KEY) == plain


@every_cipher
def test_any_buffer_will_do(cipher: Cipher) -> None:
    plain = b"some plaintext, not very long"
    expected = cipher.seal(plain, ad=b"ad", number=5, key=KEY)
    outs = [bytearray(200), memoryview(bytearray(200)), mmap.mmap(-1, 4096)]
    mapped = mmap.mmap(-1, len(plain))
    mapped[:] = plain
    wide = memoryview(plain.ljust(32, b"."))[: len(plain)]
    for out in outs:
        for source in (plain, bytearray(plain), memoryview(plain), wide, mapped):
            assert cipher.seal_into(out, 33, source, ad=b"ad", number=5, key=KEY) == len(expected)
            assert bytes(out[33 : 33 + len(expected)]) == expected
            back = bytearray(len(plain) + 3)
            with memoryview(out)[33 : 33 + len(expected)] as sealed:
                assert cipher.open_into(back, 3, sealed, ad=b"ad", number=5, key=KEY) == len(plain)
            assert back[3:] == plain


@every_cipher
def test_items_wider_than_a_byte_are_counted_in_bytes(cipher: Cipher) -> None:
    wide = memoryview(bytes(range(64))).cast("Q")
    sealed = cipher.seal(wide, ad=b"", number=0, key=KEY)
    assert cipher.open(sealed, ad=b"", number=0, key=KEY) == bytes(range(64))


@every_cipher
def test_nothing_is_written_outside_the_buffer(cipher: Cipher) -> None:
    need = 10 + cipher.tag_size
    for size, offset in [(need, 1), (need - 1, 0), (need, -1), (0, 0), (need, need), (need, 1 << 62)]:
        out = bytearray(b"\xaa" * size)
        with pytest.raises(ValueError, match="do not fit"):
            cipher.seal_into(out, offset, bytes(10), ad=b"", number=0, key=KEY)
        assert out == b"\xaa" * size
    sealed = cipher.seal(bytes(10), ad=b"", number=0, key=KEY)
    for size, offset in [(9, 0), (10, 1), (10, -1), (0, 0)]:
        with pytest.raises(ValueError, match="do not fit"):
            cipher.open_into(bytearray(size), offset, sealed, ad=b"", number=0, key=KEY)


@every_cipher
@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), bytearray(32)], ids=["0", "31", "33", "type"])
def test_a_key_of_another_size_never_reaches_c(cipher: Cipher, key: bytes) -> None:
    with pytest.raises(ValueError, match="key is 32 bytes"):
        cipher.seal(b"x", ad=b"", number=0, key=key)
    with pytest.raises(ValueError, match="key is 32 bytes"):
        cipher.open(bytes(100), ad=b"", number=0, key=key)


@every_cipher
def test_a_buffer_that_can_not_be_written_is_refused(cipher: Cipher) -> None:
    fixed = bytes(100)
    with pytest.raises((BufferError, TypeError)):
        cipher.seal_into(memoryview(fixed), 0, b"x", ad=b"", number=0, key=KEY)
    assert fixed == bytes(100)


@every_cipher
def test_every_alteration_is_refused(cipher: Cipher) -> None:
    sealed = cipher.seal(b"plaintext", ad=b"ad", number=3, key=KEY)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(IntegrityError):
            cipher.open(altered, ad=b"ad", number=3, key=KEY)
    for end in range(len(sealed)):
        with pytest.raises(IntegrityError):
            cipher.open(sealed[:end], ad=b"ad", number=3, key=KEY)
    for ad, number, key in [(b"aD", 3, KEY), (b"", 3, KEY), (b"ad", 4, KEY), (b"ad", 3, KEY[::-1])]:
        with pytest.raises(IntegrityError):
            cipher.open(sealed, ad=ad, number=number, key=key)


def test_the_number_is_the_nonce_little_endian() -> None:
    for number in (0, 1, 0x01020304, c.DIRECTORY_NUMBER):
        nonce = number.to_bytes(4, "little") + bytes(28)
        assert get_cipher(1).seal(b"x", ad=b"a", number=number, key=KEY) == (
            bindings.crypto_aead_aegis256_encrypt(b"x", b"a", nonce, KEY)
        )
        assert get_cipher(2).seal(b"x", ad=b"a", number=number, key=KEY) == (
            bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(b"x", b"a", nonce[:24], KEY)
        )


def test_hashes_take_any_buffer_and_are_apart() -> None:
    data = b"the same bytes"
    mapped = mmap.mmap(-1, len(data))
    mapped[:] = data
    for source in (data, bytearray(data), memoryview(data), mapped):
        assert chunk_id(KEY, source) == keyed_hash(KEY, data)
        assert plain_hash(source) == plain_hash(data)
    results = {
        plain_hash(data),
        keyed_hash(KEY, data),
        keyed_hash(KEY[::-1], data),
        derive("a", data),
        derive("b", data),
    }
    assert len(results) == 5


def test_contexts_and_labels_are_apart() -> None:
    contexts = [value for name, value in vars(c).items() if name.startswith("CONTEXT_")]
    labels = [value for name, value in vars(c).items() if name.startswith("LABEL_")]
    assert len(set(contexts)) == len(contexts) == 10
    assert len(set(labels)) == len(labels)
    assert not any(
        one.startswith(other) for one, other in zip(sorted(labels)[1:], sorted(labels), strict=False)
    )
