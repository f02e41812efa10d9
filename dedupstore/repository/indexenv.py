"""The LMDB environment behind a local cache: opening it, sharing it, transactions, growth, its errors.

One environment a process: LMDB's locks belong to (process, file), so everything in a process that
opens the same cache shares one `CacheEnvironment`, which `indexopen.acquire` hands out.

Threads: any. Every transaction lives within one call of `read` or `write`, which makes the two rules
of LMDB hold that are hard to keep otherwise: the map is grown with no transaction open, and no reader
pins old pages for long. A ``work`` function must therefore never call `read` or `write` again, and may
run twice (after growth). With ``buffers=True`` it must not let a view of the map escape.

Processes: any. A commit is visible to others at once. Durability: none until `flush`, and none is
needed: a killed process loses nothing, and after a power cut `acquire` throws the whole cache away.

Forks: a child may not use its parent's environment. A fork waits for transactions that run in other
threads (else the child would hold half of one), the child closes what it inherited, and its calls on
it raise `UsageError`; it opens its own.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

import lmdb

from dedupstore.errors import (
    DedupstoreError,
    IntegrityError,
    ReadOnlyError,
    StoreError,
    UsageError,
)
from dedupstore.repository.indexfolder import CacheFolder

T = TypeVar("T")

UNUSABLE = (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.PageNotFoundError)
"""What LMDB says of a file that it can not make sense of."""
_DAMAGED = (*UNUSABLE, lmdb.IncompatibleError, lmdb.BadTxnError, lmdb.PanicError)


class CacheEnvironment:
    """An open environment with its tables. Made by `acquire`, given back by `release`."""

    def __init__(self, folder: CacheFolder, repository: bytes, env: lmdb.Environment, *, fresh: bool) -> None:
        self.folder = folder
        self.repository = repository
        self.fresh = fresh
        """Whether this opening found nothing usable and made an empty cache."""
        self.readonly = env.flags()["readonly"]
        self.tables: dict[bytes, lmdb._Database] = {}
        self.users = 0
        self._env = env
        self._refusal: str | None = None
        # One item a reader. Appending, then looking at _shut, here, against setting _shut, then looking
        # at the list, there, lets no reader slip past a resize, and costs a tenth of a lock: append and
        # pop are atomic, and a condition is touched only while somebody resizes.
        self._reading: list[None] = []
        self._shut = False
        self._gate = threading.Condition(threading.Lock())
        self._writer = threading.Lock()

    def read(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        """Run ``work`` in a read transaction and return its result; values come out as ``bytes``."""
        while True:
            self._reading.append(None)
            if self._shut:
                self._wait()
            try:
                with self._env.begin() as txn:
                    return work(txn)
            except lmdb.MapResizedError:
                pass
            except lmdb.Error as error:
                raise self.trouble(error) from error
            finally:
                self._reading.pop()
                if self._shut:
                    self._leave()
            self._adopt()

    def peek(self, work: "Callable[[lmdb.Transaction[memoryview]], T]") -> T:
        """Like `read`, but values are views of the map that die with the call."""
        while True:
            self._reading.append(None)
            if self._shut:
                self._wait()
            try:
                with self._env.begin(buffers=True) as txn:
                    return work(txn)
            except lmdb.MapResizedError:
                pass
            except lmdb.Error as error:
                raise self.trouble(error) from error
            finally:
                self._reading.pop()
                if self._shut:
                    self._leave()
            self._adopt()

    def write(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        """Run ``work`` in a write transaction, commit, and return its result.

        Waits for other writers, in this process and in others. Raises `StoreFull` if the disk is full,
        `ReadOnlyError` if the cache could only be opened for reading; then nothing has changed.
        """
        if self.readonly:
            raise ReadOnlyError(f"the cache in {self.folder.path} is read-only: check the folder's owner")
        with self._writer:
            self._refuse()
            while True:
                try:
                    return self._commit(work)
                except lmdb.MapFullError:
                    self._resize(2 * self.map_size())
                except lmdb.MapResizedError:
                    self._resize(0)
                except lmdb.Error as error:
                    raise self.trouble(error) from error

    def flush(self) -> None:
        """Force every commit so far, of all processes, to the disk, and note that it is there."""
        if self.readonly:
            return
        with self._writer:
            self._refuse()
            while self.folder.marked():
                try:
                    # A write transaction, though empty, keeps other processes from committing between
                    # the sync and the removal of the marker.
                    self._commit(self._force)
                except lmdb.MapResizedError:
                    self._resize(0)
                except lmdb.Error as error:
                    raise self.trouble(error) from error

    def map_size(self) -> int:
        """Return the bytes of address space that the map has now."""
        return self._env.info()["map_size"]

    def page_bytes(self) -> int:
        """Return how long the file is if every page that was ever used has been written."""
        return (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def close(self) -> None:
        """Flush and close, when transactions in other threads have ended. For the last user."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a flush; every call from now on raises `UsageError`."""
        self.pause()
        self._refusal = "is closed: open the repository again"
        self._env.close()
        self.folder.leave()
        self._writer.release()
        self._leave()

    def trouble(self, error: lmdb.Error) -> DedupstoreError:
        """Return what an LMDB error means, as one of this package's."""
        path = self.folder.path
        code = getattr(error, "code", None)
        if self.folder.out_of_space(code):
            return self.folder.full()
        if isinstance(error, _DAMAGED):
            return IntegrityError(
                f"the cache in {path} is damaged ({error}): run `dstore cache rebuild`; "
                "it holds no data of its own",
                path=path,
            )
        return StoreError(
            f"the cache in {path} failed ({error}): try again, or run `dstore cache rebuild`", path=path
        )

    def pause(self) -> None:
        """Wait until no transaction runs in this process, and let none begin, until `resume`."""
        self._writer.acquire()
        self._shut_out_readers()

    def resume(self) -> None:
        """Undo `pause`."""
        self._let_in_readers()
        self._writer.release()

    def disown(self) -> None:
        """In a child just forked, after `pause`: close what the parent had open, and refuse every call.

        Safe for the parent only because no transaction is open: closing ends those, and a reader's
        slot is in memory that both share.
        """
        self._refusal = "was opened before this process was forked: open the repository again in the child"
        self._env.close()
        self._reading = []
        self._gate = threading.Condition(threading.Lock())
        self._writer = threading.Lock()
        self.folder.leave()

    def _wait(self) -> None:
        """Step back from reading until the gate is open again."""
        self._reading.pop()
        with self._gate:
            self._gate.notify_all()
            while self._shut:
                self._refuse()
                self._gate.wait()
            self._reading.append(None)

    def _leave(self) -> None:
        with self._gate:
            self._gate.notify_all()

    def _refuse(self) -> None:
        if self._refusal is not None:
            raise UsageError(f"the cache in {self.folder.path} {self._refusal}")

    def _shut_out_readers(self) -> None:
        """Wait until no read transaction is open, and let none begin. Writer lock held."""
        with self._gate:
            self._shut = True
            while self._reading:
                self._gate.wait()

    def _let_in_readers(self) -> None:
        with self._gate:
            self._shut = False
            self._gate.notify_all()

    def _force(self, _txn: "lmdb.Transaction[bytes]") -> None:
        self.folder.fill_up(self.page_bytes())
        self._env.sync(True)
        self.folder.unmark()

    def _commit(self, work: "Callable[[lmdb.Transaction[bytes]], T]") -> T:
        txn = self._env.begin(write=True)
        try:
            self.folder.mark()
            result = work(txn)
            txn.commit()
        except BaseException:
            # The binding's abort takes its turn only when no read transaction is open: seconds, under
            # readers that never pause. So they are made to.
            self._shut_out_readers()
            try:
                txn.abort()
            finally:
                self._let_in_readers()
            raise
        return result

    def _adopt(self) -> None:
        """Take over the size that another process gave the map."""
        with self._writer:
            self._resize(0)

    def _resize(self, size: int) -> None:
        """Change the map's size, 0 for what the file says, when no reader is left. Writer lock held."""
        self._shut_out_readers()
        try:
            self._env.set_mapsize(size)
        except lmdb.Error as error:
            raise self._no_address_space(error) from error
        finally:
            self._let_in_readers()

    def _no_address_space(self, error: lmdb.Error) -> StoreError:
        return StoreError(
            f"the cache in {self.folder.path} can not grow ({error}): raise this process's limit of "
            "address space (ulimit -v)",
            path=self.folder.path,
        )
