"""Collections that are the same on every machine, and a caller who feeds a cutter in pieces."""

import hashlib
import struct
from collections.abc import Iterable, Iterator

from dedupstore.sources.bson.leaves import LeafCutter
from tests.unit.bson.bson_values import Value, document, text

KEY = bytes(range(16))


def noise(size: int, seed: str) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def object_id(number: int) -> Value:
    return 0x07, struct.pack(">IQ", 0x66000000 + number // 100, number)


def made(identities: Iterable[Value], size: int, seed: str = "doc") -> Iterator[bytes]:
    """Yield documents of about ``size`` bytes (0.5 to 1.5 times that) with these identities."""
    for number, identity in enumerate(identities):
        spread = int.from_bytes(noise(2, f"{seed} size {number}"), "little")
        filler = noise(max(size * (spread % 1000 + 500) // 1000 - 40, 0), f"{seed} {number}")
        yield document([(b"_id", identity), (b"f", (0x02, text(filler)))])


def collection(count: int, size: int, seed: str = "doc") -> bytes:
    return b"".join(made(map(object_id, range(count)), size, seed))


def cut_whole(cutter: LeafCutter, data: bytes) -> list[tuple[int, bytes]]:
    return cutter.cuts(memoryview(data), final=True)


def cut_in_pieces(cutter: LeafCutter, data: bytes, splits: Iterable[int]) -> list[tuple[int, bytes]]:
    """Feed ``data`` cut at ``splits``, offering the tail again as any caller does."""
    found: list[tuple[int, bytes]] = []
    start = 0
    for at in sorted(splits):
        if at >= start:
            found += [
                (start + end, name) for end, name in cutter.cuts(memoryview(data)[start:at], final=False)
            ]
            start = found[-1][0] if found else 0
    return found + [(start + end, name) for end, name in cutter.cuts(memoryview(data)[start:], final=True)]
