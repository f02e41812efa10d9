"""The ids of many chunks that lie in one buffer, as the content entries that lists and directories hold.

`entries_plain` is the definition. ``_chunkids.c`` does the same in one call without the interpreter's lock:
two threads that ask for each chunk of some KiB alone wait for each other all the time, and are no faster than
one. It is compared with the definition at import, and given up for it if it disagrees; and at every call one
of its answers is, because a chunk under a wrong id is lost. Decision 12 says why it is there.

Pure functions; any thread. Memory: the result, and 3 % of the buffer for the time of the call.
"""

import importlib
from collections.abc import Callable, Sequence

from dedupstore.errors import IntegrityError
from dedupstore.format import constants as c
from dedupstore.format.crypto import chunk_id
from dedupstore.model import Data

SMALL = 16 << 10
"""Mean bytes of a chunk from which on each alone is faster: then it fills the hash's lanes by itself."""
LEAST = 8
"""Pieces for which one call is worth it."""
_TRIAL = (1, 63, 64, 65, 1023, 1024, 1025, 2048, 3000, 7168, 8192, 9000, 20_000, 33_000, 65_536, 70_001)


def entries_plain(key: bytes, data: Data, pieces: Sequence[tuple[int, int]]) -> bytes:
    """Return id and u32 size of each piece ``(start, end)`` of ``data``, one behind the other."""
    pack, view = c.LIST_ENTRY.pack, memoryview(data)
    return b"".join([pack(chunk_id(key, view[start:end]), end - start) for start, end in pieces])


def entries(key: bytes, data: Data, pieces: list[tuple[int, int]]) -> bytes:
    """Return what `entries_plain` returns, by the faster way for chunks of that size; no piece is empty.

    Raises `IntegrityError` if the two ways disagree about the piece that both are asked for.
    """
    if (
        _native is None
        or len(pieces) < LEAST
        or sum([end - start for start, end in pieces]) > SMALL * len(pieces)
    ):
        return entries_plain(key, data, pieces)
    found = _native(key, data, pieces)
    asked = int.from_bytes(found[:4], "little") % len(pieces)  # which one, nobody can foresee
    at = asked * c.LIST_ENTRY_SIZE
    if found[at : at + c.LIST_ENTRY_SIZE] != entries_plain(key, data, pieces[asked : asked + 1]):
        raise IntegrityError(
            "two ways to compute the id of a chunk disagree here: check the memory of this machine"
        )
    return found


def _load() -> Callable[[bytes, Data, list[tuple[int, int]]], bytes] | None:
    try:
        native = importlib.import_module("dedupstore.format._chunkids").entries
    except ImportError:
        return None
    key, data = bytes(range(c.KEY_SIZE)), bytes(range(251)) * 300
    pieces = [(size % 7, size % 7 + size) for size in _TRIAL]
    return native if native(key, data, pieces) == entries_plain(key, data, pieces) else None


_native = _load()


def kernels() -> tuple[str, ...]:
    """Return the names of the ways that work here, best first; for tests and measurements."""
    return ("c", "python") if _native else ("python",)
