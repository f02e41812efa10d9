from collections.abc import Callable, Sequence

from dedupstore.model import Data

def whole(data: Data, most: int, /) -> tuple[int, int, int, int]: ...
def merge(
    parts: Sequence[Data], bound: bytes | None, out: memoryview, key_of: Callable[[bytes], bytes], /
) -> tuple[int, tuple[int, ...]]: ...
