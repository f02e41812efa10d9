"""Doing the work of a plan: records in, files out.

Small files are the most there is, so those of one record are written by one call that holds no lock
(`deposit`); of longer files each stretch that lies together in record and file is one ``pwrite``. Each
chunk's id is computed before its bytes go anywhere. What is damaged fails the files it belongs to and
nothing else; a target without room, or a store that does not answer, ends the run.

Threads: `run` from any number of them. Memory: one opened record each.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from dedupstore.errors import ChunkDamaged, DedupstoreError, Interrupted, TargetError
from dedupstore.findings import printable
from dedupstore.ids import ChunkId, PackId, short
from dedupstore.model import Data
from dedupstore.ops.restore.planner import WHOLE, PackWork, Piece, Slot
from dedupstore.ops.restore.tally import Tally
from dedupstore.repository.reader import RecordReader
from dedupstore.sources.files.deposit import Job, deposit, failure, was_refused, xattr_failure
from dedupstore.sources.files.refusals import FULL, target_error, target_full
from dedupstore.sources.files.write import Target

_START: Callable[[Piece], int] = itemgetter(0)


class Writer:
    """Writes what records hold into the target."""

    def __init__(
        self,
        reader: RecordReader,
        names: Callable[[Data, ChunkId], bool],
        target: Target,
        tally: Tally,
        snapshot: str,
    ) -> None:
        """``snapshot``: its name, for messages."""
        self._reader = reader
        self._names = names
        self._target = target
        self._tally = tally
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._local = threading.local()
        self.stopped = False
        """Set from outside: every `run` ends at its next record."""

    def run(self, work: PackWork) -> None:
        """Read some records of a pack and write everything they feed.

        Raises `StoreError`, `StoreFull` (the target), `Interrupted` if the run was stopped.
        """
        for record, plain in self._reader.records(work.pack, work.records):
            if self.stopped:
                raise Interrupted("the restore was stopped: run it again, what is finished will be kept")
            pieces = work.pieces[record.number]
            if isinstance(plain, DedupstoreError):
                for piece in pieces:
                    self.lose(piece[3], piece[4], plain)
            else:
                self._write_record(work.pack, plain, pieces)

    def write_empty(self, slots: Sequence[Slot]) -> None:
        """Write files without content."""
        self._deposit(b"", [(0, 0, ChunkId(b""), slot, WHOLE) for slot in slots])

    def planned(self, slot: Slot, total: int) -> None:
        """Say how many pieces a file has in all; whoever writes the last one finishes it."""
        with self._lock:
            slot.total = total
            whole = slot.written == total
        if whole:
            self._finish(slot)

    def lose(self, slot: Slot, offset: int, error: DedupstoreError) -> None:
        """A piece of a file can not be had."""
        slot.error = error
        if offset == WHOLE:
            self.fail(slot, error)
        else:
            self._settle(slot, 1)

    def fail(self, slot: Slot, error: DedupstoreError) -> None:
        """Report that a file is not restored, naming it and the snapshot beside what went wrong."""
        slot.error = error
        self._tally.finding(
            slot.path,
            type(error)(
                f"{printable(slot.path)} of {self._snapshot} is not restored: {error.message}", **error.data
            ),
        )

    def refused(self, slot: Slot, number: int) -> None:
        """Report that the system refused a file; raises `StoreFull` if there is no room."""
        slot.error = self._refusal(slot, number)
        self._tally.finding(slot.path, slot.error)

    def _refusal(self, slot: Slot, number: int) -> DedupstoreError:
        if number in FULL:
            raise target_full(self._target.root.path)
        return target_error(number, slot.place.path + b"/" + slot.name)

    def check_outcome(self, path: bytes, outcome: int) -> None:
        """Count or report what could not be set on something that is otherwise restored."""
        self._target.count(was_refused(outcome))
        number = xattr_failure(outcome)
        if number:
            self._tally.finding(path, target_error(number, path + b" (extended attributes)"))

    def _write_record(self, pack: PackId, plain: bytes, pieces: list[Piece]) -> None:
        pieces.sort(key=_START)
        whole: list[Piece] = []
        parts: list[Piece] = []
        names = self._names
        last: ChunkId | None = None
        good = False
        with memoryview(plain) as view:
            for piece in pieces:
                start, size, chunk, slot, offset = piece
                if chunk != last:
                    good = names(view[start : start + size], chunk)
                    last = chunk
                if not good:
                    self.lose(slot, offset, _mismatch(chunk, pack))
                elif offset == WHOLE:
                    whole.append(piece)
                else:
                    parts.append(piece)
            if whole:
                self._deposit(plain, whole)
            if parts:
                self._write_parts(view, parts)

    def _deposit(self, data: Data, pieces: list[Piece]) -> None:
        """Write whole files."""
        target = self._target
        wanted = target.owners.wanted
        jobs: list[Job] = []
        slots: list[Slot] = []
        for start, size, _, slot, _ in pieces:
            place = slot.place
            try:
                folder = place.descriptor or target.open(place)
            except OSError as error:
                self.refused(slot, error.errno or 0)
                continue
            mode, uid, gid, mtime, xattrs = wanted(slot.node)
            if place.strips:
                mode = target.job_mode(place, mode)
            jobs.append((folder, slot.name, start, size, mode, uid, gid, mtime, xattrs))
            slots.append(slot)
        outcomes = deposit(data, self._temp_name(), jobs)
        done = slots
        if any(outcomes):
            self._check_outcomes(slots, outcomes)
            done = [slot for slot, outcome in zip(slots, outcomes, strict=True) if not failure(outcome)]
        self._tally.restored(len(done), sum([slot.node.size for slot in done]))

    def _check_outcomes(self, slots: Iterable[Slot], outcomes: Iterable[int]) -> None:
        for slot, outcome in zip(slots, outcomes, strict=True):
            if failure(outcome):
                self.refused(slot, failure(outcome))
            elif outcome:
                self.check_outcome(slot.path, outcome)

    def _temp_name(self) -> bytes:
        """Return this thread's temporary name: it makes one file after the other."""
        name: bytes | None = getattr(self._local, "temp", None)
        if name is None:
            name = self._local.temp = self._target.temp_name()
        return name

    def _write_parts(self, view: memoryview, parts: list[Piece]) -> None:
        """Write pieces of longer files, those that follow each other in one go."""
        begin, end, _, slot, offset = 0, 0, 0, parts[0][3], parts[0][4]
        begin = end = parts[0][0]
        count = 0
        for start, size, _, other, at in parts:
            if other is not slot or start != end or at != offset + end - begin:
                self._write_part(slot, view[begin:end], offset, count)
                slot, offset, begin, end, count = other, at, start, start, 0
            end += size
            count += 1
        self._write_part(slot, view[begin:end], offset, count)

    def _write_part(self, slot: Slot, view: memoryview, offset: int, count: int) -> None:
        assert slot.draft is not None
        if slot.error is None:
            try:
                self._target.write(slot.draft, view, offset)
            except OSError as error:
                slot.error = self._refusal(slot, error.errno or 0)
        self._settle(slot, count)

    def _settle(self, slot: Slot, count: int) -> None:
        with self._lock:
            slot.written += count
            whole = slot.written == slot.total
        if whole:
            self._finish(slot)

    def _finish(self, slot: Slot) -> None:
        """Give a file whose pieces are all there, or lost, its name, or report why not."""
        assert slot.draft is not None
        if slot.error is not None:
            with contextlib.suppress(OSError):
                self._target.abandon(slot.draft)
            if isinstance(slot.error, TargetError):
                self._tally.finding(slot.path, slot.error)
            else:
                self.fail(slot, slot.error)
            return
        try:
            outcome = self._target.finish(slot.draft, slot.name, slot.node)
        except OSError as error:
            self.refused(slot, error.errno or 0)
            return
        if failure(outcome):
            self.refused(slot, failure(outcome))
            return
        self.check_outcome(slot.path, outcome)
        self._tally.restored(1, slot.node.size)


def _mismatch(chunk: ChunkId, pack: PackId) -> ChunkDamaged:
    return ChunkDamaged(
        f"chunk {short(chunk)} in pack {short(pack)} is not what its id says; run `dstore verify --data`",
        pack=pack,
        chunk=chunk,
    )
