"""Inputs that are the same on every machine for ever, and a caller who feeds a chunker in pieces."""

import hashlib
from collections.abc import Iterable

from dedupstore.chunker.base import Chunker, Params

KEY = bytes(range(16))
DENSE = Params(min_size=64, normal=160, max_size=640, strict=1 << 25, loose=1 << 27)
"""Many chunks in few bytes: about one in 128, then one in 32 positions."""


def random_bytes(size: int, seed: str = "random") -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def low_entropy(size: int, seed: str = "low") -> bytes:
    """Two symbols, one of them sixteen times as common."""
    return bytes(65 if byte < 240 else 66 for byte in random_bytes(size, seed))


def periodic(size: int, period: int, seed: str = "period") -> bytes:
    unit = random_bytes(period, seed)
    return (unit * (size // period + 1))[:size]


def cuts_in_pieces(chunker: Chunker, data: bytes, splits: Iterable[int]) -> list[int]:
    """Feed ``data`` cut at ``splits``, carrying the unsettled tail over as any caller does."""
    ends: list[int] = []
    start = 0
    bounds = [*sorted(splits), len(data)]
    for at in bounds:
        if at >= start:
            ends += [start + end for end in chunker.cuts(data[start:at], False)]
            start = ends[-1] if ends else 0
    return ends + [start + end for end in chunker.cuts(memoryview(data)[start:], True)]
