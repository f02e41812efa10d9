# Compiled kernels of the AES-window chunker; dedupstore.chunker.awindow defines what they compute.

from dedupstore.model import Data

# The names of the kernels that this CPU can run, best first.
def kernels() -> tuple[str, ...]: ...

# The ends of the whole chunks in data, found without the GIL. The schedule is that of awindow.expand_key;
# kernel forces one that kernels() names. ValueError for a schedule, size, threshold or kernel that makes no
# sense, OverflowError for numbers beyond 64 bits, MemoryError, and what the buffer protocol raises.
def cuts(
    schedule: bytes,
    data: Data,
    final: bool,
    min_size: int,
    normal: int,
    max_size: int,
    strict: int,
    loose: int,
    kernel: str | None = None,
    /,
) -> list[int]: ...
