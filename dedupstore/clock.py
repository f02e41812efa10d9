"""Time and randomness: the seam that tests and simulations replace.

Nothing else in the package imports ``time`` for the time of day, ``random`` or ``secrets``.
"""

import os
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a component takes instants and random bytes from."""

    def now(self) -> datetime:
        """Return the present instant, with zone UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...

    def random(self, size: int) -> bytes:
        """Return ``size`` unpredictable bytes."""
        ...


class SystemClock:
    """The machine's own clock and entropy."""

    def now(self) -> datetime:
        """Return the present instant, with zone UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def random(self, size: int) -> bytes:
        """Return ``size`` bytes from the kernel's generator."""
        return os.urandom(size)


SYSTEM_CLOCK = SystemClock()
