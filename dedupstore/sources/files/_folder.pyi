from typing import TypeAlias

_Xattrs: TypeAlias = tuple[tuple[bytes, bytes], ...]

def list_folder(fd: int, segment_entries: int, /) -> list[bytes]: ...
def read_files(
    dirfd: int, wanted: tuple[tuple[bytes, int], ...], buffer: memoryview | bytearray, dev: int, /
) -> list[tuple[int, bytes, _Xattrs] | int]: ...
