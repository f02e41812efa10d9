"""What one running query may use: memory that is counted, chance, and a word from outside to end.

Memory is counted for what must be held to answer: sorted documents, groups, samples. All queries of a server
draw on one `Pool`. Threads: a pool is anybody's, a `Work` belongs to one query.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Final

from dedupstore.query.failures import Failure, QueryError

QUERY_MEMORY: Final = 100 << 20
"""Bytes that one query may hold; MongoDB's limit for a sort."""
POOL_MEMORY: Final = 256 << 20
"""Bytes that all queries may hold together."""
OVERHEAD: Final = 120
"""Bytes that a held document costs beside its own."""
_OFTEN: Final = 256
"""Documents between two looks whether to go on."""


class Pool:
    """Memory for all queries."""

    def __init__(self, size: int = POOL_MEMORY) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take so many bytes if they are there."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._left += size


class Work:
    """One query's share."""

    def __init__(
        self,
        pool: Pool,
        random: Callable[[int], bytes],
        check: Callable[[], None],
        memory: int = QUERY_MEMORY,
    ) -> None:
        """``check`` raises what ends the query, if something does."""
        self._pool = pool
        self._memory = memory
        self._held = 0
        self.random = random
        self.check = check

    def hold(self, size: int) -> None:
        """Count bytes that are held. Raises `QueryError` where there is no more."""
        if self._held + size > self._memory:
            raise _too_much(f"{self._memory >> 20} MiB that one query may hold here")
        if not self._pool.take(size):
            raise _too_much("memory that all queries of this server may hold together")
        self._held += size

    def free(self, size: int) -> None:
        """Count bytes that are held no longer."""
        self._held -= size
        self._pool.give(size)

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        self.free(self._held)

    def watched(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        """Yield documents and look now and then whether to go on."""
        for count, document in enumerate(documents, 1):
            if not count % _OFTEN:
                self.check()
            yield document

    def below(self, limit: int) -> int:
        """Return a random number from 0 to ``limit`` - 1 (no more uneven than 1 in 2**40)."""
        return int.from_bytes(self.random(16), "big") % limit


def _too_much(what: str) -> QueryError:
    return QueryError(
        Failure.QueryExceededMemoryLimitNoDiskUseAllowed,
        f"Exceeded memory limit: the answer needs more than the {what}; narrow it, or add a limit",
    )
