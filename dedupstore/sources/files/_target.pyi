from collections.abc import Sequence

from dedupstore.model import Data

def deposit(
    data: Data,
    temp: bytes,
    jobs: list[tuple[int, bytes, int, int, int, int, int, int, tuple[tuple[bytes, bytes], ...]]],
    /,
) -> Sequence[int]: ...
def dress(
    fd: int, mode: int, uid: int, gid: int, mtime: int, xattrs: tuple[tuple[bytes, bytes], ...], /
) -> int: ...
