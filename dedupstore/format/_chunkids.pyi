# Ids of many chunks without the GIL; dedupstore.format.chunkids defines what it does. ValueError for a key
# or pieces that make no sense, TypeError, MemoryError, and what the buffer protocol raises.

from dedupstore.model import Data

def entries(key: bytes, data: Data, pieces: list[tuple[int, int]], /) -> bytes: ...
