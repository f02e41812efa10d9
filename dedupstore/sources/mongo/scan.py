"""Reading collections ahead: several ranges at a time, of one collection or of several, delivered in order.

Workers take ranges in the order in which they will be wanted, over all collections, and put what arrives into
the range's queue. Whoever reads takes a collection's documents in order of ``_id`` (capped collections: as
inserted), as one stream of bytes.

Threads: the workers of a scan, and one thread that opens and reads its collections one after another, in the
order in which they were given; it may leave some out. Memory: `AHEAD` bytes of documents, and for each
worker one reply with the driver's copies of it (about 3 x 2 MiB, 3 x 16 MiB at worst).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dedupstore.errors import DedupstoreError, SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.mongo.catalog import Listed
from dedupstore.sources.mongo.client import Deployment
from dedupstore.sources.mongo.cursor import Batch
from dedupstore.sources.mongo.failures import interrupted, is_transient
from dedupstore.sources.mongo.ranges import NATURAL, Plan, Range, plan_of
from dedupstore.sources.mongo.reading import Moment, RangeReader, Subject, check_unchanged

AHEAD = 48 << 20
"""Bytes of documents that wait for being read, over all ranges."""
WORKERS = 4
"""Ranges that are read at a time, unless said otherwise."""
_END_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Part:
    """A range on its way."""

    job: "_Job"
    range: Range
    batches: deque[Batch] = field(default_factory=deque)
    done: bool = False


@dataclass(slots=True, eq=False)
class _Job:
    """A collection on its way."""

    listed: Listed
    subject: Subject | None = None
    parts: deque[_Part] | None = None
    """What is not read to its end; None until it is planned."""
    error: DedupstoreError | None = None
    dropped: bool = False
    """Nobody wants it any more."""


class Scan:
    """One pass over collections. Close it in every case."""

    def __init__(
        self,
        deployment: Deployment,
        moment: Moment,
        collections: Sequence[Listed],
        *,
        workers: int = WORKERS,
        ahead: int = AHEAD,
        split: bool | None = None,
    ) -> None:
        """``split``: whether large collections are read in ranges, see `plan_of`."""
        self._deployment = deployment
        self._moment = moment
        self._jobs = [_Job(listed) for listed in collections]
        self._ahead = ahead
        self._workers = workers
        self._split = split
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._held = 0
        self._opened = 0  # jobs before this were opened or left out
        self._planned = 0
        self._planning = False
        self._pending: deque[_Part] = deque()
        self._wanted: _Part | None = None

    def has_passed(self, number: int) -> bool:
        """Say whether the collection at ``number`` was opened or left out."""
        return number < self._opened

    def open(self, number: int) -> "Documents":
        """Begin to read the collection at ``number`` of those given; the ones before it are left out.

        Raises `SourceError` if it was opened or left out before.
        """
        with self._changed:
            if number < self._opened:
                name = self._jobs[number].listed.info.namespace
                raise SourceError(f"{name} can be read only once in a run: run the backup again")
            for job in self._jobs[self._opened : number]:
                self._drop(job)
            self._opened = number + 1
            self._changed.notify_all()
        self._start()
        return Documents(self, self._jobs[number])

    def close(self) -> None:
        """Stop the workers; a second call does nothing. One that waits for the network is left behind."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._threads = []
        self._pending.clear()

    def plan(self, job: _Job) -> Plan:
        """Return how a job is read; waits until that is known. Raises what went wrong with it."""
        with self._changed:
            while job.subject is None:
                if job.error is not None:
                    raise job.error
                if self._stopped or job.dropped:
                    raise interrupted(f"reading {job.listed.info.namespace}")
                self._changed.wait()
            return job.subject.plan

    def take(self, job: _Job) -> Batch | None:
        """Return the next batch of a job, None at its end; waits. Raises what went wrong with it."""
        with self._changed:
            while True:
                if job.error is not None:
                    raise job.error
                if self._stopped or job.dropped:
                    raise interrupted(f"reading {job.listed.info.namespace}")
                if job.parts is not None:
                    if not job.parts:
                        return None
                    part = self._wanted = job.parts[0]
                    if part.batches:
                        batch = part.batches.popleft()
                        self._held -= len(batch.data)
                        self._changed.notify_all()
                        return batch
                    if part.done:
                        job.parts.popleft()
                        continue
                    self._changed.notify_all()
                self._changed.wait()

    def give_up(self, job: _Job) -> None:
        """Read no more of a job."""
        with self._changed:
            self._drop(job)
            self._changed.notify_all()

    def check_end(self, job: _Job) -> None:
        """After its last batch: raise `SourceVanished` if what was read may be of two collections.

        Where the log is kept it tells.
        """
        if not self._moment.logged:
            check_unchanged(self._deployment, job.listed)

    def _start(self) -> None:
        if self._threads:
            return
        names = [f"scan-{number}" for number in range(self._workers)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def _drop(self, job: _Job) -> None:
        job.dropped = True
        for part in job.parts or ():
            self._held -= sum(len(batch.data) for batch in part.batches)
            part.batches.clear()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            job = task.job if isinstance(task, _Part) else task
            try:
                if isinstance(task, _Part):
                    self._read(task)
                else:
                    self._plan(task)
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads
                with self._changed:
                    job.error = job.error or _as_ours(error, job)
                    job.parts = job.parts if job.parts is not None else deque()
                    self._changed.notify_all()

    def _next(self) -> _Part | _Job | None:
        """Return what is to be done next, a range or a collection to be planned; None when all is."""
        with self._changed:
            while not self._stopped:
                while self._pending and self._pending[0].job.dropped:
                    self._pending.popleft()
                if self._pending:
                    return self._pending.popleft()
                while self._planned < len(self._jobs) and self._jobs[self._planned].dropped:
                    self._planned += 1
                if self._planned == len(self._jobs):
                    if not self._planning:
                        return None
                elif not self._planning:
                    self._planning = True
                    self._planned += 1
                    return self._jobs[self._planned - 1]
                self._changed.wait()
            return None

    def _plan(self, job: _Job) -> None:
        parts: deque[_Part] = deque()
        try:
            plan = self._ask(job)
            job.subject = Subject(job.listed, job.listed.data, plan)
            parts.extend(_Part(job, part) for part in plan.ranges)
        finally:
            with self._changed:
                job.parts = parts
                self._pending.extend(parts)
                self._planning = False
                self._changed.notify_all()

    def _ask(self, job: _Job) -> Plan:
        node = self._deployment.node()
        concern = self._moment.concern_of(job.listed.capped)
        try:
            return plan_of(node, job.listed, concern, split=self._split)
        except DedupstoreError as error:
            if not is_transient(error):
                raise
            node = self._deployment.replace(node)
            return plan_of(node, job.listed, concern, split=self._split)

    def _read(self, part: _Part) -> None:
        job = part.job
        subject = job.subject
        if subject is None:
            raise AssertionError("a range without a plan")
        gone = self._gone(job)
        for batch in RangeReader(self._deployment, self._moment, subject, part.range, gone).batches():
            with self._changed:
                while self._held + len(batch.data) > self._ahead and not gone():
                    if part is self._wanted and not part.batches:
                        break
                    self._changed.wait()
                if gone():
                    return
                part.batches.append(batch)
                self._held += len(batch.data)
                self._changed.notify_all()
        with self._changed:
            part.done = True
            self._changed.notify_all()

    def _gone(self, job: _Job) -> Callable[[], bool]:
        return lambda: self._stopped or job.dropped or job.error is not None


class Documents:
    """The documents of one collection as bytes, in order. One thread; close it in every case.

    Raises `SourceError` if the server gives them out of order, so that one that does not obey is found out.
    """

    def __init__(self, scan: Scan, job: _Job) -> None:
        self._scan = scan
        self._job = job
        self._rest = memoryview(b"")
        self._key = b""
        self.ended = False

    def plan(self) -> Plan:
        """Return how the collection is read; waits until that is known."""
        return self._scan.plan(self._job)

    def fill(self, view: memoryview) -> int:
        """Put bytes at the start of ``view``, at least one, and return how many; 0 at the end."""
        filled = 0
        while filled < len(view) and not self.ended:
            if not self._rest:
                batch = self._scan.take(self._job)
                if batch is None:
                    self._scan.check_end(self._job)
                    self.ended = True
                    break
                self._check(batch)
                self._rest = memoryview(batch.data)
            size = min(len(view) - filled, len(self._rest))
            view[filled : filled + size] = self._rest[:size]
            self._rest = self._rest[size:]
            filled += size
        return filled

    def close(self) -> None:
        """Read no more; a second call does nothing."""
        self._rest = memoryview(b"")
        self._scan.give_up(self._job)

    def _check(self, batch: Batch) -> None:
        subject = self._job.subject
        if subject is None or subject.plan.order == NATURAL or not subject.plan.by_bytes:
            return
        first = sort_key(raw.id_of(batch.data))
        if first <= self._key:
            raise SourceError(
                f"{subject.doing} gave documents that are not in order of _id: this server can not be backed "
                "up while it is in use; take a dump of it with its own tools"
            )
        self._key = sort_key(raw.id_of(batch.data, batch.last))


def _as_ours(error: BaseException, job: _Job) -> DedupstoreError:
    if isinstance(error, DedupstoreError):
        return error
    return SourceError(f"reading {job.listed.info.namespace} failed with {error!r}: report this")
