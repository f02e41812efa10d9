# The compiled walk over leaves; dedupstore.sources.bson.leaves defines what it computes.

from dedupstore.model import Data

# The fields of leaves.Walked, found without the GIL; None where the definition must look itself. ValueError
# for a key, k, size, start or previous that makes no sense, MemoryError, and what the buffer protocol raises.
def walk(
    data: Data,
    start: int,
    final: bool,
    key: bytes,
    k: int,
    leaf_min: int,
    leaf_max: int,
    previous: bytes,
    in_order: bool,
    /,
) -> tuple[list[int], list[bytes | None], int, int, int, bool, int] | None: ...
def siphash(key: bytes, data: Data, /) -> int: ...
