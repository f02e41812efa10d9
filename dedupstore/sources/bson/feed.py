"""Readers of bytes in order, and what can be made of them. One thread each."""

from collections.abc import Callable
from typing import TypeAlias

from dedupstore.errors import SourceError

Fill: TypeAlias = Callable[[memoryview], int]
"""Puts the next bytes at the start of a view; returns how many, 0 at the end. Raises `SourceError`."""


def fill_up(fill: Fill, view: memoryview) -> int:
    """Fill all of ``view`` if there is as much; return how much there was."""
    used = 0
    while used < len(view) and (size := fill(view[used:])):
        used += size
    return used


def feed_of(data: bytes) -> Fill:
    """Return a reader of some bytes."""
    return behind(data, lambda _: 0)


def behind(head: bytes, fill: Fill) -> Fill:
    """Return a reader of some bytes and then of what another reads."""
    rest = memoryview(head)

    def joined(view: memoryview) -> int:
        nonlocal rest
        if not rest:
            return fill(view)
        size = min(len(rest), len(view))
        view[:size] = rest[:size]
        rest = rest[size:]
        return size

    return joined


class Watched:
    """A reader whose own failures can be told from those of whoever reads through it."""

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self.failure: SourceError | None = None
        """What it last raised."""

    def fill(self, view: memoryview) -> int:
        """Read on."""
        try:
            return self._fill(view)
        except SourceError as error:
            self.failure = error
            raise
