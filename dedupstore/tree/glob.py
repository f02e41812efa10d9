"""Patterns for paths: what ``find`` and listings mean by a glob.

A pattern without a slash fits a name anywhere. One with a slash is matched component by component
from the root: ``*`` and ``?`` and ``[…]`` stay inside a component, ``**`` stands for any number of
components, none included. ``?`` is one character where names are UTF-8, one byte where they are not.
"""

import fnmatch
import re
from collections.abc import Callable

from dedupstore.errors import UsageError

_ANY_DEPTH = "**"
_COMPONENTS_MAX = 1000


class Glob:
    """A compiled pattern, walked down a tree one name at a time.

    Where a walk stands is an integer: a set of places in the pattern, as bits. ``start`` is where the
    root stands, ``step`` gives what a name leads to; 0 means that nothing below can fit. Two folders
    with equal contents and equal state have equal matches below them, which is what memos rest on.
    Immutable; safe from any thread.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        parts = [part for part in pattern.split("/") if part]
        if not parts:
            raise UsageError(f"{pattern!r} fits nothing: give a name or a path, such as '*.txt' or '/etc/**'")
        if "/" not in pattern:
            parts.insert(0, _ANY_DEPTH)
        if len(parts) > _COMPONENTS_MAX:
            raise UsageError(f"the pattern has {len(parts)} components: give a shorter one")
        self._end = 1 << len(parts)
        self._deep = 0
        self._tests: list[Callable[[str], object]] = []
        flags = re.IGNORECASE if ignore_case else 0
        for place, part in enumerate(parts):
            if part == _ANY_DEPTH:
                self._deep |= 1 << place
            self._tests.append(re.compile(fnmatch.translate(part), flags).match)
        self.start = self._spread(1)

    def step(self, state: int, name: bytes) -> int:
        """Return the state below an entry of that name, in a folder of that state."""
        after = state & self._deep
        text = name.decode("utf-8", "surrogateescape")
        rest = state & ~self._deep & (self._end - 1)
        while rest:
            bit = rest & -rest
            rest ^= bit
            if self._tests[bit.bit_length() - 1](text):
                after |= bit << 1
        return self._spread(after)

    def fits(self, state: int) -> bool:
        """Tell whether an entry whose `step` gave this state is itself a match."""
        return bool(state & self._end)

    def inner(self, state: int) -> int:
        """Return the state that matters inside a folder of this state; 0 if nothing inside can fit."""
        return state & (self._end - 1)

    def _spread(self, state: int) -> int:
        """Let ``**`` stand for no component: a place before one is also the place behind it."""
        todo = state & self._deep
        while todo:
            bit = todo & -todo
            todo ^= bit
            if not state & (bit << 1):
                state |= bit << 1
                todo |= (bit << 1) & self._deep
        return state
