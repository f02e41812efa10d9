"""The AES-window rule in plain Python: the definition that every fast kernel obeys.

Let ``b`` be a chunk's bytes and ``y[i] = b[i] ^ b[i - 37]``. The chunk may end after byte ``i`` if and
only if ``le32(AES(key, y[i - 15 .. i])) < threshold``, where AES is the full AES-128 of FIPS 197 and
``le32`` reads the first four bytes of its result as a little-endian number. So a verdict depends on
53 bytes and the key; to one without the key it is a coin thrown per distinct window, and chunk lengths
tell nothing of the key however much plaintext he chose himself.

A chunk of ``min_size <= length <= normal`` bytes ends under the threshold ``strict``, a longer one under
``loose``, and at ``max_size`` it ends anyway. A minimum of more than 52 keeps the window inside
the chunk: where a chunk ends depends on its own bytes alone, never on what came before.

Pure functions, no state but constant tables; safe from any thread. Tens of kB/s.
"""

from collections.abc import Callable
from typing import TypeAlias

from dedupstore.model import Data

BLOCK = 16
"""Bytes that go into AES for one position."""
LAG = 37
"""How far back the byte lies that each byte is combined with. Odd, so that records of 4, 8, 16 or 48 bytes
do not cancel out; it gives 16 bytes of window the entropy of 53 in text and tables."""
REACH = LAG + BLOCK - 1
"""Bytes before a position that its verdict depends on."""
ROUNDS = 10

Scan: TypeAlias = Callable[[int, int, int], int]
"""``scan(start, stop, threshold)``: the first position in ``start <= i < stop`` whose value is below
the threshold, or ``stop``."""


def _double(x: int) -> int:
    """Multiply by 2 in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    return (x << 1) ^ (0x11B if x & 0x80 else 0)


def _substitution() -> bytes:
    """Build AES's S-box: the inverse in GF(2^8), then an affine map of its bits."""
    power = [1]
    for _ in range(254):
        power.append(power[-1] ^ _double(power[-1]))  # 3 generates the multiplicative group
    logarithm = {x: e for e, x in enumerate(power)}
    box = bytearray()
    for x in range(256):
        inverse = power[-logarithm[x] % 255] if x else 0
        twice = inverse << 8 | inverse  # a byte that rotates by plain shifts
        box.append((twice ^ twice >> 7 ^ twice >> 6 ^ twice >> 5 ^ twice >> 4) & 0xFF ^ 0x63)
    return bytes(box)


SUBSTITUTION = _substitution()
DOUBLE = bytes(map(_double, range(256)))
SHIFTED = bytes((i + 4 * (i % 4)) % BLOCK for i in range(BLOCK))
"""ShiftRows: byte ``i`` of the new state is byte ``SHIFTED[i]`` of the old; row ``i % 4`` moves by that many
columns."""


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")


def expand_key(key: bytes) -> bytes:
    """Return the eleven round keys of a 16-byte key, 176 bytes; raises `ValueError` for another length."""
    if len(key) != BLOCK:
        raise ValueError(f"key must have {BLOCK} bytes, not {len(key)}")
    schedule, constant = bytearray(key), 1
    for at in range(BLOCK, BLOCK * (ROUNDS + 1), 4):
        word = bytes(schedule[at - 4 :])
        if at % BLOCK == 0:
            word = (word[1:] + word[:1]).translate(SUBSTITUTION)
            word = bytes((word[0] ^ constant,)) + word[1:]
            constant = _double(constant)
        schedule += _xor(bytes(schedule[at - BLOCK : at - BLOCK + 4]), word)
    return bytes(schedule)


def _mix_columns(state: bytes) -> bytes:
    mixed = bytearray()
    for column in range(0, BLOCK, 4):
        a = state[column : column + 4]
        for row in range(4):
            x, y = a[row], a[(row + 1) % 4]
            mixed.append(DOUBLE[x] ^ DOUBLE[y] ^ y ^ a[(row + 2) % 4] ^ a[(row + 3) % 4])
    return bytes(mixed)


def encrypt(schedule: bytes, block: bytes) -> bytes:
    """Encrypt one 16-byte block with AES-128 under the round keys of `expand_key`."""
    state = _xor(block, schedule[:BLOCK])
    for number in range(1, ROUNDS + 1):
        state = state.translate(SUBSTITUTION)
        state = bytes(state[i] for i in SHIFTED)
        if number < ROUNDS:
            state = _mix_columns(state)
        state = _xor(state, schedule[BLOCK * number : BLOCK * (number + 1)])
    return state


def value(schedule: bytes, window: Data) -> int:
    """Return the number that a position is judged by; ``window`` is its byte and the 52 before it."""
    folded = _xor(bytes(window[LAG:]), bytes(window[:BLOCK]))
    return int.from_bytes(encrypt(schedule, folded)[:4], "little")


def find_cuts(
    scan: Scan, size: int, final: bool, min_size: int, normal: int, max_size: int, strict: int, loose: int
) -> list[int]:
    """Walk from chunk to chunk over ``size`` bytes and return the ends; ``scan`` counts from the first."""
    ends: list[int] = []
    start = 0
    while size - start >= min_size:
        stop = min(start + max_size, size)
        middle = min(start + normal, stop)
        at = scan(start + min_size - 1, middle, strict)
        if at == middle:
            at = scan(middle, stop, loose)
        if at == stop and stop < start + max_size:
            break
        start = min(at + 1, stop)
        ends.append(start)
    if final and start < size:
        ends.append(size)
    return ends


def cuts(
    schedule: bytes,
    data: Data,
    final: bool,
    min_size: int,
    normal: int,
    max_size: int,
    strict: int,
    loose: int,
) -> list[int]:
    """Return the ends of the whole chunks in ``data``; see `dedupstore.chunker.base.Chunker.cuts`."""
    view = memoryview(data).cast("B")

    def scan(start: int, stop: int, threshold: int) -> int:
        for at in range(start, stop):
            if value(schedule, view[at - REACH : at + 1]) < threshold:
                return at
        return stop

    return find_cuts(scan, len(view), final, min_size, normal, max_size, strict, loose)
