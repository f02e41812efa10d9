"""The verb: a snapshot, or some of it, back into a folder.

::

    survey (one thread, path order)       plan (a window)            writer (several threads)
    entry → folder made, link made,       files → packs → records    record → ids checked
            file → window, extra removed                                    → files, named when whole
    window done: second names linked, then folders' attributes, deepest first

Up to `WINDOWS` windows are worked on while the next one is gathered; they are closed in order, so a folder
gets its mtime after everything in it, and a hard link comes after its file.

Promises: nothing outside the target is touched; a name never shows a partial file; trouble with one
entry is a finding and the rest goes on; what cannot go on (no room, store unreachable) is raised and
leaves what is finished; the same call again goes on from there. Not promised: anything about a power
cut, because nothing is forced to the disk; run it again. Memory: a few windows, see `planner`.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC
from pathlib import Path
from typing import Self

from dedupstore.errors import DedupstoreError, IntegrityError, TargetError, UsageError
from dedupstore.findings import printable
from dedupstore.format.chunklist import ListPage, decode_list_page
from dedupstore.ids import TreeId
from dedupstore.model import ChunkKind, Snapshot
from dedupstore.ops.restore.contents import has_content
from dedupstore.ops.restore.descent import Descent
from dedupstore.ops.restore.planner import Linked, Planner, Slot, Window, plan
from dedupstore.ops.restore.request import Action, Heard, Overwrite, RestoreOptions, RestoreResult
from dedupstore.ops.restore.selection import Choice, entries, leads_to, normal_paths, require
from dedupstore.ops.restore.survey import Survey
from dedupstore.ops.restore.tally import Tally
from dedupstore.ops.restore.writer import Writer
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.files.deposit import failure
from dedupstore.sources.files.metadata_apply import Owners
from dedupstore.sources.files.refusals import FULL, target_error, target_full
from dedupstore.sources.files.write import Target
from dedupstore.tree.walk import SURVIVABLE, Lost, entries_of

__all__ = ["Action", "Overwrite", "RestoreOptions", "RestoreResult", "restore"]

WINDOWS = 2
"""Windows that are worked on while the next one is gathered."""
_BATCH = 64
"""Files that one thread compares or makes at a time."""


def restore(
    repo: Repository,
    snapshot: Snapshot,
    target: Path,
    paths: Sequence[bytes],
    options: RestoreOptions,
    report: Reporter,
    heard: Heard | None = None,
) -> RestoreResult:
    """Restore a snapshot's ``paths`` (absolute in the snapshot; none: everything) under ``target``.

    Every path lands at its full length: ``/home/a`` becomes ``target/home/a``. The target folder is made if
    it is missing. ``heard`` is told what is done, or would be in a dry run, at each path.
    Raises `NotFoundError` for a path the snapshot lacks, `UsageError`, `TargetError` if the target can
    not be opened, `StoreFull` if it takes no more, and what reading the repository raises.
    """
    if options.delete and snapshot.statistics.files_failed:
        raise UsageError(
            f"this snapshot lacks {snapshot.statistics.files_failed} entries that could not be read when it "
            "was taken, and --delete would remove them here: restore without it"
        )
    if options.delete and options.overwrite is Overwrite.KEEP_BOTH:
        raise UsageError("--delete would remove what --overwrite keep-both keeps: choose one of them")
    choice = Choice.of(options.include, options.exclude)
    chosen = normal_paths(paths)
    begun = repo.clock.monotonic()
    repo.sync()
    require(repo.load_page, snapshot.root, chosen)
    tally = Tally(report, heard)
    if chosen and chosen != [()]:
        report.started("restore", None, None)
    else:
        summary = repo.load_page(snapshot.root).summary
        report.started("restore", summary.files, summary.bytes)
    owners = Owners(snapshot.users, snapshot.groups, numeric=options.numeric_owner)
    with ExitStack() as stack:
        opened = _open_target(target, owners, repo.clock.random, options)
        if opened is not None:
            stack.enter_context(opened)
        run = stack.enter_context(_Run(repo, snapshot, opened, tally, options))
        run.go(chosen, choice)
    result = RestoreResult(
        files=tally.files,
        bytes=tally.bytes,
        skipped=tally.skipped,
        deleted=tally.deleted,
        seconds=repo.clock.monotonic() - begun,
        findings=tuple(tally.findings),
        failed=tally.failed,
        incomplete=opened.incomplete if opened is not None else 0,
    )
    report.finished(result)
    return result


def _open_target(
    path: Path, owners: Owners, random: Callable[[int], bytes], options: RestoreOptions
) -> Target | None:
    try:
        if not options.dry_run:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            return None
        return Target(path, owners, random)
    except OSError as error:
        where = os.fsencode(path)
        if error.errno in FULL:
            raise target_full(where) from error
        raise target_error(error.errno or 0, where) from error


class _Run:
    """One restore under way."""

    def __init__(
        self,
        repo: Repository,
        snapshot: Snapshot,
        target: Target | None,
        tally: Tally,
        options: RestoreOptions,
    ) -> None:
        self._repo = repo
        self._snapshot = snapshot
        self._target = target
        self._tally = tally
        self._options = options
        self._pool = ThreadPoolExecutor(options.threads or _threads(), "restore")
        self._waiting: deque[tuple[Window, list[Future[None]]]] = deque()
        self._label = (
            f"the snapshot of {snapshot.host} at {snapshot.time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
        self._names = repo.keychain.namer(ChunkKind.DATA)
        self._writer: Writer | None = None
        if target is not None:
            self._writer = Writer(repo.reader, self._names, target, tally, self._label)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writer is not None:
            self._writer.stopped = True
        self._pool.shutdown(cancel_futures=True)

    def go(self, chosen: Sequence[tuple[bytes, ...]], choice: Choice) -> None:
        """Go through what is chosen, then through what is left."""
        planner = Planner(self._load_list, self._submit)
        suffix = b".restored-" + self._snapshot.time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ").encode()
        leads = leads_to(self._snapshot.source.paths, chosen)
        descent = Descent(self._target, planner, self._tally, self._options, choice, leads, suffix)
        survey = Survey(descent, planner, self._check, self._tally, self._options)
        for path, node, passage in entries(self._repo.load_page, self._snapshot.root, chosen, survey.descend):
            if isinstance(node, Lost):
                survey.lost(path, node)
            else:
                survey.take(path, node, passage)
        survey.finish()
        while self._waiting:
            self._close_window()

    def _submit(self, window: Window) -> None:
        """Plan a window and hand it to the threads; wait if there are too many."""
        writer, pool = self._writer, self._pool
        if self._options.dry_run or writer is None:
            return
        works = [pool.submit(writer.run, work) for work in plan(window, self._repo.index, writer.lose)]
        empties = [window.empties[at : at + _BATCH] for at in range(0, len(window.empties), _BATCH)]
        works += [pool.submit(writer.write_empty, batch) for batch in empties]
        for slot, total in window.planned:
            writer.planned(slot, total)
        window.wanted = []
        self._waiting.append((window, works))
        while len(self._waiting) > WINDOWS:
            self._close_window()

    def _close_window(self) -> None:
        """Wait for the oldest window; then verify its files, link second names, finish its folders."""
        window, works = self._waiting.popleft()
        for work in works:
            work.result()
        if self._options.verify:
            list(self._pool.map(self._verify, [slot for slot in window.slots if slot.error is None]))
        target = self._target
        assert target is not None
        for linked in window.links:
            self._link(target, linked)
        for made in window.folders:
            try:
                outcome = target.finish_folder(made.place, made.node, fresh=made.fresh)
            except OSError as error:
                outcome = error.errno or 0
            self._check_outcome(made.path, outcome)
        for place, mode in window.restored_modes:
            try:
                target.restore_mode(place, mode)
            except OSError as error:
                self._check_outcome(place.path, error.errno or 0)

    def _link(self, target: Target, linked: Linked) -> None:
        slot, leader = linked.slot, linked.leader
        try:
            made = target.link((leader.place, leader.name), slot.place, slot.name)
        except OSError as error:
            self._check_outcome(slot.path, error.errno or 0)
        else:
            if made:
                self._tally.restored(1, slot.node.size)
            else:
                self._tally.kept(slot.path, slot.node.size)

    def _check_outcome(self, path: bytes, outcome: int) -> None:
        """Report what the system refused, or what it did not set."""
        assert self._target is not None
        assert self._writer is not None
        number = failure(outcome)
        if number in FULL:
            raise target_full(self._target.root.path)
        if number:
            self._tally.finding(path, target_error(number, self._target.root.path.rstrip(b"/") + path))
        else:
            self._writer.check_outcome(path, outcome)

    def _check(self, slots: Sequence[Slot]) -> list[bool]:
        """Say of each existing file whether it has the content it should have; several at once."""
        return list(self._pool.map(self._is_right, slots))

    def _is_right(self, slot: Slot) -> bool:
        try:
            return self._reads_right(slot)
        except (OSError, *SURVIVABLE):
            return False  # not shown to be right: then it is written, and that says what is wrong

    def _reads_right(self, slot: Slot) -> bool:
        assert self._target is not None
        held = self._target.read(slot.place, slot.name)
        found = entries_of(self._load_list, slot.node)
        return has_content(held, slot.node.size, found, self._names)

    def _verify(self, slot: Slot) -> None:
        """Read a restored file from the disk again and report it if it is not what it should be."""
        try:
            if self._reads_right(slot):
                return
            problem: DedupstoreError = IntegrityError(
                f"{_where(slot)} was restored, but what is read back is not what {self._label} has: check "
                "the disk and the memory of this machine, then restore it again",
                path=slot.path,
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            problem = TargetError(
                f"{_where(slot)} can not be read back ({reason}): verify as a user who may read it",
                path=slot.path,
            )
        self._tally.finding(slot.path, problem)

    def _load_list(self, page: TreeId) -> ListPage:
        return decode_list_page(self._repo.load_tree(page))


def _where(slot: Slot) -> str:
    return printable(slot.place.path + b"/" + slot.name)


def _threads() -> int:
    """Return how many threads keep this machine busy: they wait for disks and names more than they work."""
    return min(8, (os.cpu_count() or 1) + 1)
