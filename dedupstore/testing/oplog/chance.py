"""Chance from a seed: the same on every machine and every version of Python."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_BLOCK = 1 << 14


class Chance:
    """Draws that the seed alone decides. One thread."""

    def __init__(self, seed: int) -> None:
        """Start from any integer."""
        self._seed = str(seed).encode()
        self._blocks = 0
        self._left = b""
        self._at = 0

    def bytes(self, size: int) -> bytes:
        """Return ``size`` bytes."""
        if self._at + size > len(self._left):
            self._blocks += 1
            name = self._seed + b"/%d" % self._blocks
            self._left = self._left[self._at :] + hashlib.shake_256(name).digest(max(_BLOCK, size))
            self._at = 0
        self._at += size
        return self._left[self._at - size : self._at]

    def below(self, limit: int) -> int:
        """Return an integer from 0 to ``limit`` - 1."""
        return int.from_bytes(self.bytes(5), "little") % limit

    def between(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both possible."""
        return low + self.below(high - low + 1)

    def flip(self, probability: float) -> bool:
        """Return whether something with that probability happened."""
        return int.from_bytes(self.bytes(4), "little") < probability * (1 << 32)

    def pick(self, things: Sequence[T]) -> T:
        """Return one of the things."""
        return things[self.below(len(things))]

    def weighted(self, things: Sequence[tuple[T, int]]) -> T:
        """Return one of the things, each as likely as the weight beside it."""
        left = self.below(sum(weight for _, weight in things))
        for thing, weight in things:
            left -= weight
            if left < 0:
                return thing
        raise AssertionError("unreachable")

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """Return all the things in another order."""
        return [
            thing for _, thing in sorted(((self.bytes(6), thing) for thing in things), key=lambda p: p[0])
        ]
