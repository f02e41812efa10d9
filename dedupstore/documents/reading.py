"""Chunks of one content list in order, read ahead; and the documents that lie in them.

Reading begins with one chunk, so that one document costs little, goes on with `FIRST_WINDOW` bytes and
doubles up to `WINDOW`; from there on `THREADS` threads read while the caller works (opening and expanding
release the interpreter lock). Memory: `AHEAD` + 1 windows for each iterator in use.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from dedupstore.errors import SourceError
from dedupstore.ids import HOLE, ChunkId
from dedupstore.model import Data
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.raw import DOCUMENT_MAX

WINDOW = 8 * 1024 * 1024
FIRST_WINDOW = 256 * 1024
AHEAD = 2
THREADS = 2

_LENGTH = struct.Struct("<i")
_SMALLEST = 5
"""Bytes of a document without elements."""


def in_order(repo: Repository, entries: Iterable[tuple[ChunkId, int]]) -> Iterator[Data]:
    """Yield the bytes of content entries one after the other; raises what `Repository.read` does."""
    windows = _windows(entries)
    first = next(windows, None)
    if first is None:
        return
    yield from _load(repo, first)
    second = next(windows, None)
    if second is None:
        return
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="documents")
    try:
        waiting: deque[Future[list[Data]]] = deque([pool.submit(_load, repo, second)])
        while waiting:
            while len(waiting) <= AHEAD and (window := next(windows, None)) is not None:
                waiting.append(pool.submit(_load, repo, window))
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def documents_in(parts: Iterable[Data], where: str) -> Iterator[bytes]:
    """Yield the documents of concatenated BSON, however it is cut; ``where`` names it in errors.

    Looks at lengths and last bytes only. Raises `SourceError` for what can be no document. Memory: a part
    and the longest document.
    """
    pending: list[Data] = []
    have = need = 0
    for part in parts:
        pending.append(part)
        have += len(part)
        if have < need:
            continue
        data = bytes(part) if len(pending) == 1 else b"".join(pending)
        start = 0
        need = _SMALLEST
        while have - start >= _LENGTH.size:
            (need,) = _LENGTH.unpack_from(data, start)
            if not _SMALLEST <= need <= DOCUMENT_MAX:
                raise _no_document(where, f"a length of {need} bytes")
            if have - start < need:
                break
            end = start + need
            if data[end - 1]:
                raise _no_document(where, "a document without its last zero byte")
            yield data[start:end]
            start = end
            need = _SMALLEST
        pending = [data[start:]] if start < have else []
        have -= start
    if have:
        raise _no_document(where, f"{have} bytes of a document that is cut off")


def _no_document(where: str, what: str) -> SourceError:
    return SourceError(
        f"{where} holds {what}: it is no BSON; run `dstore verify --data`, then read it with `cat`"
    )


def _windows(entries: Iterable[tuple[ChunkId, int]]) -> Iterator[list[tuple[ChunkId, int]]]:
    limit, following = 0, FIRST_WINDOW
    window: list[tuple[ChunkId, int]] = []
    size = 0
    for chunk, length in entries:
        if window and size + length > limit:
            yield window
            window, size = [], 0
            limit, following = following, min(2 * following, WINDOW)
        window.append((chunk, length))
        size += length
    if window:
        yield window


def _load(repo: Repository, window: list[tuple[ChunkId, int]]) -> list[Data]:
    found: dict[ChunkId, Data] = dict(repo.read(list({chunk for chunk, _ in window} - {HOLE})))
    return [bytes(size) if chunk == HOLE else found[chunk] for chunk, size in window]
