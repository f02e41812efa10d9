"""What the rest of the package sees of the chunker: `Params`, `Chunker`, `make_chunker`.

There is one rule (`awindow` defines it) and several kernels that follow it to the byte: C with whatever
AES instructions the CPU has, NumPy where the extension was not built, plain Python where there is
nothing else. Which one runs changes speed and nothing more, so it is not part of the format; the key
and `Params` are.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from dedupstore.chunker import awindow
from dedupstore.errors import UsageError
from dedupstore.model import Data

KEY_SIZE = awindow.BLOCK
DEFAULT_AVERAGE = 256 * 1024
"""Bytes. Measured best together with deltas; a quarter of it stores 8 % less without them."""
LARGEST = 1 << 30
"""Upper bound of ``max_size``, bytes: whoever reads a chunk holds all of it in memory."""

_Cuts: TypeAlias = Callable[..., list[int]]


@dataclass(frozen=True, slots=True)
class Params:
    """Where chunks may end; part of a repository's format, equal for all its writers.

    Sizes are bytes; a threshold ``t`` lets a chunk end at one position in ``2**32 / t``. Raises
    `UsageError` unless ``52 < min_size <= normal <= max_size <= 1 GiB`` and both thresholds are in
    ``0 <= t < 2**32``.
    """

    min_size: int
    normal: int
    max_size: int
    strict: int
    """Threshold up to and including ``normal`` bytes."""
    loose: int
    """Threshold for longer chunks."""

    def __post_init__(self) -> None:
        if not awindow.REACH < self.min_size <= self.normal <= self.max_size <= LARGEST:
            raise UsageError(
                f"chunk sizes {self.min_size}, {self.normal}, {self.max_size} are out of order:"
                f" choose {awindow.REACH} < min_size <= normal <= max_size <= {LARGEST}"
            )
        for name, threshold in (("strict", self.strict), ("loose", self.loose)):
            if not 0 <= threshold < 1 << 32:
                raise UsageError(f"chunk threshold {name}={threshold} is out of range: choose 0 to 2**32 - 1")

    @classmethod
    def for_average(cls, average: int) -> Self:
        """Return the parameters whose chunks of random data are ``average`` bytes long in the mean.

        Sizes are ``min_size = 3 * A // 4``, ``normal = A``, ``max_size = 4 * A``. With a chance of ``p`` per
        position up to ``normal`` and ``4 * p`` after it (one level of normalisation), ``u = p * A``, the mean
        is ::

            A * (3/4 + (1 - exp(-u/4)) / u + exp(-u/4) * (1 - exp(-12*u)) / (4*u))

        which is ``A`` for ``u = 2.32053``. So ``strict = 2**32 * 232053 // (100000 * A)`` and
        ``loose = 4 * strict``: integers only, the same on every machine. Then 56 % of chunks outlive
        ``normal`` and hardly any reaches ``max_size``. Three quarters rather than half of the average
        pass unscanned: as good at deduplication and nearly twice as fast (``docs/decisions``, 8).
        Raises `UsageError` below 71 bytes and above 256 MiB.
        """
        if average < 1:
            raise UsageError(f"average chunk size {average} is out of range: choose at least 71 bytes")
        strict = (232053 << 32) // (100000 * average)
        return cls(3 * average // 4, average, 4 * average, strict, 4 * strict)


class Chunker(Protocol):
    """Says where chunks end. Holds a key and parameters and no state: any thread, any order."""

    @property
    def params(self) -> Params:
        """What it was made with."""
        ...

    def cuts(self, data: Data, final: bool) -> list[int]:
        """Return the ends of the whole chunks in ``data``, as offsets from its first byte.

        ``data`` must begin where a chunk begins. A chunk is whole if the rule ends it or ``max_size`` does.
        Bytes after the last end belong to a chunk that is not settled yet: put them in front of what comes
        next. ``final`` says that nothing comes next; the last end is then ``len(data)`` (no end if it is 0).
        Ends do not depend on how the input was split into calls. A buffer of at least ``max_size`` always
        yields one.

        Takes any contiguous buffer, copies none of it, and needs ``8 * len(data) / min_size`` bytes of
        memory at most. The C kernels let other threads run. Raises `TypeError` or `BufferError` for
        anything else.
        """
        ...


class _WindowChunker:
    """The rule bound to a key, parameters and one kernel's function."""

    __slots__ = ("_cuts", "_limits", "_schedule", "params")

    def __init__(self, key: bytes, params: Params, kernel: _Cuts) -> None:
        self.params = params
        self._cuts = kernel
        self._schedule = awindow.expand_key(key)
        self._limits = (params.min_size, params.normal, params.max_size, params.strict, params.loose)

    def cuts(self, data: Data, final: bool) -> list[int]:
        return self._cuts(self._schedule, data, final, *self._limits)


@functools.cache
def _native() -> dict[str, _Cuts]:
    """Return the compiled kernels that this CPU can run, best first; none if the extension was not built."""
    try:
        module = importlib.import_module("dedupstore.chunker._awindow")
    except ImportError:
        return {}

    def bind(name: str) -> _Cuts:
        return lambda *arguments: module.cuts(*arguments, name)

    return {name: bind(name) for name in module.kernels()}


@functools.cache
def _numpy() -> dict[str, _Cuts]:
    """Return the NumPy kernel if NumPy is there; imports it."""
    try:
        return {"numpy": importlib.import_module("dedupstore.chunker.blocks").cuts}
    except ImportError:
        return {}


def _python() -> dict[str, _Cuts]:
    return {"python": awindow.cuts}


def kernels() -> tuple[str, ...]:
    """Return the names of all kernels that work here, best first; for tests and measurements."""
    return tuple(_native() | _numpy() | _python())


def kernel_name() -> str:
    """Return the kernel that `make_chunker` takes: vaes512, vaes256, aesni, neon, c, numpy or python."""
    return next(iter(_native() or _numpy() or _python()))


def make_chunker(key: bytes, params: Params, kernel: str | None = None) -> Chunker:
    """Return a chunker for a 16-byte key, by the best kernel that works here or by the one named.

    Raises `UsageError` for a key of another length and for a kernel that does not work here.
    """
    if len(key) != KEY_SIZE:
        raise UsageError(
            f"a chunker key has {KEY_SIZE} bytes, this one has {len(key)}: derive it from the epoch's secret"
        )
    name = kernel_name() if kernel is None else kernel
    # NumPy is slow to import: it is looked for only where it is wanted.
    cuts = (_native() | _python()).get(name) or _numpy().get(name)
    if cuts is None:
        raise UsageError(f"chunker kernel {name!r} does not work here: choose one of {', '.join(kernels())}")
    return _WindowChunker(key, params, cuts)
