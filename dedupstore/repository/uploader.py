"""Full packs on their way to the store: bounded, a few at once, the first error wins."""

import queue
import threading
from collections.abc import Callable

from dedupstore.clock import Clock
from dedupstore.errors import DedupstoreError, StoreError
from dedupstore.format.pack import PackBuilder
from dedupstore.model import PackContents
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectWriter
from dedupstore.repository.buffers import BufferPool

UPLOADS = 2


class Uploader:
    """Finishes packs, stores them, and says so once they are durable.

    Threads: `submit` from any; `UPLOADS` threads of its own do the work, and call ``stored`` one at a
    time. A pack that fails stops all that follow: `check` and `drain` raise that first error.
    Memory: the buffers of the packs submitted, which go back to the pool.
    """

    def __init__(
        self,
        store: ObjectWriter,
        buffers: BufferPool,
        clock: Clock,
        stored: Callable[[PackContents, memoryview], None],
    ) -> None:
        self._store = store
        self._buffers = buffers
        self._clock = clock
        self._stored = stored
        self._stored_lock = threading.Lock()
        self._queue: queue.SimpleQueue[PackBuilder | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, name=f"upload-{n}", daemon=True) for n in range(UPLOADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, builder: PackBuilder) -> None:
        """Take over a pack whose records are all sealed."""
        self._queue.put(builder)

    def check(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.error is not None:
            if isinstance(self.error, DedupstoreError):
                raise self.error
            raise StoreError(f"a pack could not be stored ({self.error}); run again") from self.error

    def drain(self) -> None:
        """Wait until everything submitted is durable; raises the first error."""
        self.stop()
        self.check()

    def stop(self) -> None:
        """End the threads after what was submitted."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _run(self) -> None:
        while True:
            builder = self._queue.get()
            if builder is None:
                return
            try:
                if self.error is None:
                    self._upload(builder)
            except BaseException as error:  # noqa: BLE001 - handed to the thread that asks
                self.error = self.error or error
                self._buffers.stop()
            finally:
                self._buffers.give(builder.buffer)

    def _upload(self, builder: PackBuilder) -> None:
        contents = builder.finish(self._clock.random(builder.pad_size()))
        with memoryview(builder.buffer) as whole, whole[: contents.size] as data:
            self._store.put(ObjectKey(ObjectKind.PACK, contents.id.hex()), [data])
            with self._stored_lock:
                self._stored(contents, data)
