"""Hashes and authenticated encryption: the two primitives everything else is built of.

Hashing is BLAKE3. Sealing is AEGIS-256 or XChaCha20-Poly1305 (IETF), one message per key and
number. Both run through libsodium as PyNaCl carries it. The public bindings take and return only
``bytes``, which costs two copies a call; so the same functions are called below them on the caller's
own buffers. That lower interface is private to PyNaCl: it is compared with the public one at import,
and given up for it if it is missing or disagrees.

Threads: every function and cipher may be used from any thread; the interpreter lock is released
inside. Nothing here keeps state or draws randomness.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol, TypeAlias

from blake3 import blake3
from nacl import bindings  # runs sodium_init(): without it AEGIS takes the code for CPUs without AES
from nacl.exceptions import CryptoError

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import FormatError, IntegrityError
from dedupstore.format import constants as c
from dedupstore.ids import ChunkId
from dedupstore.model import Data

Source: TypeAlias = Data | mmap
"""Contiguous bytes to read from."""
Buffer: TypeAlias = bytearray | memoryview | mmap
"""Contiguous, writable bytes."""


def chunk_id(key: bytes, data: Source) -> ChunkId:
    """Return the id of a chunk: BLAKE3-256 of its plaintext under the id key of its kind."""
    return ChunkId(blake3(data, key=key).digest())


def keyed_hash(key: bytes, data: Source) -> bytes:
    """Return the 32-byte BLAKE3 hash of ``data`` under a 32-byte key (a MAC and a PRF)."""
    return blake3(data, key=key).digest()


def keyed_number(key: bytes, data: Source) -> int:
    """Return the first four bytes of `keyed_hash` as a little-endian number."""
    return int.from_bytes(blake3(data, key=key).digest(length=4), "little")


def plain_hash(data: Source) -> bytes:
    """Return the 32-byte BLAKE3 hash of ``data``, which anybody can compute."""
    return blake3(data).digest()


def derive(context: str, key_material: bytes) -> bytes:
    """Return the 32-byte sub-key of strong ``key_material`` for one purpose (BLAKE3 derive_key)."""
    return blake3(key_material, derive_key_context=context).digest()


class Cipher(Protocol):
    """Authenticated encryption with associated data, into the caller's buffer.

    A (key, number) pair must seal at most one message, ever. The nonce is ``number`` as an
    unsigned little-endian integer of ``nonce_size`` bytes. Input and output must not overlap.
    """

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def number(self) -> int:
        """What the format calls it."""
        ...

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        ...

    @property
    def nonce_size(self) -> int:
        """Bytes of a nonce."""
        ...

    @property
    def tag_size(self) -> int:
        """Bytes by which sealing lengthens a message."""
        ...

    def seal_into(
        self, out: Buffer, offset: int, plain: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """Write the sealed form of ``plain`` at ``offset``; return its length.

        Raises `ValueError` if it does not fit (nothing is written then) or the key has a wrong size.
        """
        ...

    def open_into(
        self, out: Buffer, offset: int, sealed: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """Write the plaintext of ``sealed`` at ``offset``; return its length.

        Raises `IntegrityError` if anything is not as it was sealed (what lies in ``out`` is then
        meaningless), `ValueError` as `seal_into` does.
        """
        ...

    def seal(self, plain: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """Return the sealed form of ``plain``."""
        ...

    def open(self, sealed: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """Return the plaintext of ``sealed``; raises `IntegrityError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Shape:
    """The numbers of one AEAD and its public functions (message, ad, nonce, key)."""

    name: str
    number: int
    nonce_size: int
    tag_size: int
    public_seal: Callable[[bytes, bytes, bytes, bytes], bytes]
    public_open: Callable[[bytes, bytes, bytes, bytes], bytes]
    sodium_name: str
    key_size: int = c.KEY_SIZE


_SHAPES = (
    _Shape(
        "AEGIS-256",
        c.CIPHER_AEGIS256,
        c.AEGIS256_NONCE_SIZE,
        c.AEGIS256_TAG_SIZE,
        bindings.crypto_aead_aegis256_encrypt,
        bindings.crypto_aead_aegis256_decrypt,
        "crypto_aead_aegis256",
    ),
    _Shape(
        "XChaCha20-Poly1305",
        c.CIPHER_XCHACHA20,
        c.XCHACHA20_NONCE_SIZE,
        c.XCHACHA20_TAG_SIZE,
        bindings.crypto_aead_xchacha20poly1305_ietf_encrypt,
        bindings.crypto_aead_xchacha20poly1305_ietf_decrypt,
        "crypto_aead_xchacha20poly1305_ietf",
    ),
)


def _refused(name: str) -> IntegrityError:
    return IntegrityError(
        f"sealed bytes do not open with {name}: they are damaged, or belong to another place or key; "
        "run a verify to see what is affected"
    )


def _does_not_fit(size: int, offset: int, room: int) -> ValueError:
    return ValueError(f"{size} bytes at offset {offset} do not fit in a buffer of {room} bytes")


class PublicCipher:
    """A `Cipher` by PyNaCl's public functions: always there, with copies."""

    def __init__(self, shape: _Shape) -> None:
        self.name = shape.name
        self.number = shape.number
        self.key_size = shape.key_size
        self.nonce_size = shape.nonce_size
        self.tag_size = shape.tag_size
        self._seal = shape.public_seal
        self._open = shape.public_open

    def seal_into(
        self, out: Buffer, offset: int, plain: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """See `Cipher.seal_into`."""
        with memoryview(out) as flat, flat.cast("B") as target, memoryview(plain) as source:
            size = source.nbytes + self.tag_size
            if offset < 0 or offset + size > target.nbytes:
                raise _does_not_fit(size, offset, target.nbytes)
            target[offset : offset + size] = self.seal(plain, ad=ad, number=number, key=key)
        return size

    def open_into(
        self, out: Buffer, offset: int, sealed: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """See `Cipher.open_into`."""
        with memoryview(out) as flat, flat.cast("B") as target, memoryview(sealed) as source:
            size = source.nbytes - self.tag_size
            if size < 0:
                raise _refused(self.name)
            if offset < 0 or offset + size > target.nbytes:
                raise _does_not_fit(size, offset, target.nbytes)
            target[offset : offset + size] = self.open(sealed, ad=ad, number=number, key=key)
        return size

    def seal(self, plain: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """See `Cipher.seal`."""
        _check_key(key)
        return self._seal(bytes(memoryview(plain)), ad, number.to_bytes(self.nonce_size, "little"), key)

    def open(self, sealed: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """See `Cipher.open`."""
        _check_key(key)
        message = bytes(memoryview(sealed))
        if len(message) < self.tag_size:
            raise _refused(self.name)
        try:
            return self._open(message, ad, number.to_bytes(self.nonce_size, "little"), key)
        except CryptoError as error:
            raise _refused(self.name) from error


def _check_key(key: bytes) -> None:
    # C reads 32 bytes from wherever this points.
    if not isinstance(key, bytes) or len(key) != c.KEY_SIZE:
        raise ValueError(f"a key is {c.KEY_SIZE} bytes")


_REFUSED, _NO_ROOM = -1, -2


class DirectCipher:
    """A `Cipher` by libsodium's own functions on the caller's buffers: no copies."""

    def __init__(self, shape: _Shape) -> None:
        """Raise `ImportError`, `AttributeError` or `ValueError` where PyNaCl is not what it was."""
        sodium = importlib.import_module("nacl._sodium")
        # Sizes first: with a longer or shorter tag the trial below would write beyond its buffers.
        sizes = [getattr(sodium.lib, f"{shape.sodium_name}_{what}bytes")() for what in ("key", "npub", "a")]
        if sizes != [shape.key_size, shape.nonce_size, shape.tag_size]:
            raise ValueError(f"{shape.sodium_name} has sizes {sizes}")
        self.name = shape.name
        self.number = shape.number
        self.key_size = shape.key_size
        self.nonce_size = shape.nonce_size
        self.tag_size = shape.tag_size
        self._encrypt: Callable[..., int] = getattr(sodium.lib, f"{shape.sodium_name}_encrypt")
        self._decrypt: Callable[..., int] = getattr(sodium.lib, f"{shape.sodium_name}_decrypt")
        self._view = sodium.ffi.from_buffer
        self._bytes = sodium.ffi.typeof("unsigned char[]")
        self._null = sodium.ffi.NULL

    def seal_into(
        self, out: Buffer, offset: int, plain: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """See `Cipher.seal_into`."""
        if len(key) != c.KEY_SIZE or type(key) is not bytes:
            _check_key(key)
        size = self._seal(out, offset, plain, ad, number.to_bytes(self.nonce_size, "little"), key)
        if size < 0:
            raise self._why_not(size, out, offset, memoryview(plain).nbytes + self.tag_size)
        return size

    def open_into(
        self, out: Buffer, offset: int, sealed: Source, *, ad: bytes, number: int, key: bytes
    ) -> int:
        """See `Cipher.open_into`."""
        if len(key) != c.KEY_SIZE or type(key) is not bytes:
            _check_key(key)
        size = self._open(out, offset, sealed, ad, number.to_bytes(self.nonce_size, "little"), key)
        if size < 0:
            raise self._why_not(size, out, offset, memoryview(sealed).nbytes - self.tag_size)
        return size

    # The two below raise nothing: an error keeps the frame it was raised in, and a frame that holds
    # cffi's views of buffers in a reference cycle has crashed CPython 3.11's garbage collector.

    def _seal(self, out: Buffer, offset: int, plain: Source, ad: bytes, nonce: bytes, key: bytes) -> int:
        view, null = self._view, self._null
        target = view(self._bytes, out, True)  # True: refuse what is not writable
        source = view(self._bytes, plain)  # counts bytes, whatever the items of a memoryview
        length = len(source)
        size = length + self.tag_size
        if offset < 0 or offset + size > len(target):
            return _NO_ROOM
        failed = self._encrypt(target + offset, null, source, length, ad, len(ad), null, nonce, key)
        return _REFUSED if failed else size

    def _open(self, out: Buffer, offset: int, sealed: Source, ad: bytes, nonce: bytes, key: bytes) -> int:
        view, null = self._view, self._null
        target = view(self._bytes, out, True)
        source = view(self._bytes, sealed)
        length = len(source)
        size = length - self.tag_size
        if size < 0:
            return _REFUSED
        if offset < 0 or offset + size > len(target):
            return _NO_ROOM
        failed = self._decrypt(target + offset, null, null, source, length, ad, len(ad), nonce, key)
        return _REFUSED if failed else size

    def _why_not(self, status: int, out: Buffer, offset: int, size: int) -> Exception:
        if status == _NO_ROOM:
            return _does_not_fit(size, offset, memoryview(out).nbytes)
        return _refused(self.name)

    def seal(self, plain: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """See `Cipher.seal`."""
        out = bytearray(memoryview(plain).nbytes + self.tag_size)
        self.seal_into(out, 0, plain, ad=ad, number=number, key=key)
        return bytes(out)

    def open(self, sealed: Source, *, ad: bytes, number: int, key: bytes) -> bytes:
        """See `Cipher.open`."""
        out = bytearray(max(0, memoryview(sealed).nbytes - self.tag_size))
        self.open_into(out, 0, sealed, ad=ad, number=number, key=key)
        return bytes(out)


def _agree(direct: Cipher, public: Cipher) -> bool:
    """Tell whether both seal alike, open each other's messages and refuse an altered one."""
    plain, ad, key = bytes(range(77)), b"associated", bytes(range(32))
    sealed = public.seal(plain, ad=ad, number=258, key=key)
    out = bytearray(len(plain))
    try:
        same = direct.seal(plain, ad=ad, number=258, key=key) == sealed
        direct.open_into(out, 0, sealed, ad=ad, number=258, key=key)
    except IntegrityError:
        return False
    try:
        direct.open(bytes([sealed[0] ^ 1]) + sealed[1:], ad=ad, number=258, key=key)
    except IntegrityError:
        return same and out == plain
    return False


def _best(shape: _Shape) -> Cipher:
    public = PublicCipher(shape)
    try:
        direct = DirectCipher(shape)
        agreed = _agree(direct, public)
    except (ImportError, AttributeError, TypeError, ValueError):
        # The private interface is gone or has another signature: slower, but never wrong.
        return public
    return direct if agreed else public


_CIPHERS: dict[int, Cipher] = {shape.number: _best(shape) for shape in _SHAPES}


def get_cipher(number: int) -> Cipher:
    """Return the cipher with that number; raises `FormatError` if there is none."""
    cipher = _CIPHERS.get(number)
    if cipher is None:
        raise FormatError(f"cipher number {number} is unknown: a newer dstore is needed", cipher=number)
    return cipher


def fastest_cipher(clock: Clock = SYSTEM_CLOCK) -> int:
    """Return the number of the faster cipher on this machine, after about 20 ms of trying.

    Both are equally trusted; AEGIS-256 is some seven times faster with AES instructions and forty
    times slower without.
    """
    plain = bytes(65536)
    key = bytes(c.KEY_SIZE)
    rates: dict[int, float] = {}
    for cipher in _CIPHERS.values():
        out = bytearray(len(plain) + cipher.tag_size)
        start = clock.monotonic()
        spent = 0.0
        rounds = 0
        # Counted as well as timed, so that a clock that stands still ends the loop too.
        while spent < 0.01 and rounds < 2000:
            cipher.seal_into(out, 0, plain, ad=b"", number=0, key=key)
            rounds += 1
            spent = clock.monotonic() - start
        rates[cipher.number] = rounds / max(spent, 1e-9)
    return max(rates, key=lambda number: rates[number])
