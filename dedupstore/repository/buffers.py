"""A bounded pool of large page-aligned buffers.

Fresh memory costs a page fault per 4 KiB (0.5 s a GiB here), and an object store can write a
page-aligned buffer past the page cache. So buffers are anonymous maps, made once and used again.
"""

import mmap
import threading

from dedupstore.errors import Interrupted


class BufferPool:
    """At most ``count`` buffers of ``size`` bytes; `take` waits for one to come back.

    Threads: any. Memory: ``count * size`` bytes once all were used, touched only as they fill.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self._free: list[mmap.mmap] = []
        self._unmade = count
        self._changed = threading.Condition(threading.RLock())
        self._stopped = False

    def take(self) -> mmap.mmap:
        """Return a buffer with undefined content; raises `Interrupted` once the pool is stopped."""
        with self._changed:
            while not self._free and not self._unmade and not self._stopped:
                self._changed.wait()
            if self._stopped:
                raise Interrupted("the run was stopped; run it again, what was stored is kept")
            if self._free:
                return self._free.pop()
            self._unmade -= 1
        buffer = mmap.mmap(-1, self.size)
        if hasattr(mmap, "MADV_HUGEPAGE"):  # a fault per 2 MiB instead of 4 KiB, where the system allows it
            buffer.madvise(mmap.MADV_HUGEPAGE)
        return buffer

    def take_now(self) -> mmap.mmap | None:
        """Return a buffer if one is to be had at once; raises `Interrupted` as `take` does."""
        with self._changed:
            if self._free or self._unmade or self._stopped:
                return self.take()
        return None

    def give(self, buffer: mmap.mmap) -> None:
        """Bring a buffer back."""
        with self._changed:
            self._free.append(buffer)
            self._changed.notify()

    def stop(self) -> None:
        """Make every present and later `take` fail, so that no thread waits for ever."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
