"""The verb: walk a source, store what is new, commit a snapshot."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from dedupstore.clock import Clock
from dedupstore.errors import DedupstoreError, IntegrityError, ObjectNotFound
from dedupstore.findings import Finding
from dedupstore.format.codec import Compression
from dedupstore.ids import PackId, SnapshotId, short
from dedupstore.model import Snapshot, Statistics
from dedupstore.ops.backup.past import Past
from dedupstore.ops.backup.sink import DrySink, Sink
from dedupstore.ops.backup.walk import Walk
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.base import Source

WORKERS_MAX = 8


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What a run is told beside its source."""

    host: str
    user: str
    tags: frozenset[str] = frozenset()
    name: str = ""
    compression: Compression | None = None
    """``None``: the repository's own default."""
    time: datetime | None = None
    """``None``: the moment the source says its data is of, or when the run commits."""
    dry_run: bool = False
    workers: int = 0
    """Threads that hash, compress and seal; 0: one for each processor, at most `WORKERS_MAX`."""
    program: str = ""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What came of it. ``snapshot_id`` is ``None`` after a dry run."""

    snapshot_id: SnapshotId | None
    snapshot: Snapshot
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    repo: Repository
    source: Source
    options: BackupOptions
    report: Reporter
    clock: Clock
    past: Past
    ticks: float

    def walk_sound(self, sink: Sink) -> tuple[Walk, Snapshot]:
        """Walk; if the last snapshot's tree turns out to be damaged, once more without relying on it."""
        try:
            return self.walk(sink)
        except (IntegrityError, ObjectNotFound):
            if not self.past.valid:
                raise
        self.past.distrust()
        return self.walk(sink)

    def walk(self, sink: Sink) -> tuple[Walk, Snapshot]:
        """Walk the source into ``sink`` and describe the snapshot it gives."""
        options = self.options
        workers = options.workers or min(os.cpu_count() or 1, WORKERS_MAX)
        walk = Walk(self.repo, self.source, sink, self.past, workers, self.report, self.clock)
        root, summary = walk.run()
        counters, parent = sink.counters, self.past.snapshot
        statistics = Statistics(
            files_new=walk.files_new,
            files_changed=walk.files_changed,
            files_unchanged=max(0, summary.files - walk.files_new - walk.files_changed),
            files_failed=walk.files_failed,
            files=summary.files,
            bytes=summary.bytes,
            bytes_new=counters.bytes_new,
            stored_bytes=counters.stored_bytes,
            chunks_new=counters.chunks_new,
            seconds=self.clock.monotonic() - self.ticks,
        )
        snapshot = Snapshot(
            root=root,
            time=options.time or self.source.instant() or self.clock.now(),
            host=options.host,
            user=options.user,
            source=self.source.spec,
            parent=self.past.parent,
            tags=options.tags,
            sequence=0,  # given when it commits
            statistics=statistics,
            users=_names(walk.uids, self.source.user_name, parent.users if parent else {}),
            groups=_names(walk.gids, self.source.group_name, parent.groups if parent else {}),
            name=options.name,
            position=self.source.position(),
            program=options.program,
        )
        return walk, snapshot


def back_up(
    repo: Repository, source: Source, options: BackupOptions, report: Reporter, clock: Clock
) -> BackupResult:
    """Back a source up.

    Closes the source. Durability: on return the snapshot is committed and durable, and what went wrong
    after that is a finding. Interrupted at any point, the repository is valid as it was, and packs
    already stored are found by the next run. Raises `SourceError` if there is nothing at all to back up
    or an all-or-nothing source failed, `SessionFenced`, and what the store raises.
    """
    with closing(source):
        return _back_up(repo, source, options, report, clock)


def _back_up(
    repo: Repository, source: Source, options: BackupOptions, report: Reporter, clock: Clock
) -> BackupResult:
    ticks = clock.monotonic()
    repo.sync()
    lost = repo.drop_lost_packs()
    snapshots = repo.snapshots()
    damaged = [Finding(where, error) for where, error in repo.damaged if where.startswith("snapshots/")]
    damaged += [Finding(f"packs/{pack.hex()}", _lost_pack(pack)) for pack in lost]
    past = Past(repo, source, snapshots, host=options.host)
    if lost:
        past.distrust()
    for finding in damaged:
        report.finding(finding.where, finding.error)
    run = _Run(repo, source, options, report, clock, past, ticks)
    report.started("snapshot", None, None)
    compression = options.compression or Compression.parse(repo.config.compression)
    try:
        if options.dry_run:
            walk, snapshot = run.walk(DrySink(repo.index, repo.keychain, compression))
            return BackupResult(None, snapshot, (*damaged, *walk.findings))
        past.begin()
        with repo.writing(compression) as session:
            walk, snapshot = run.walk_sound(session)
            session.finish()
            snapshot = _sealed(run, snapshot, session.counters.stored_bytes)
            identifier = session.commit(snapshot)
        findings = [*damaged, *walk.findings]
        if session.unsettled is not None:
            findings.append(Finding(f"snapshots/{identifier.hex()}", session.unsettled))
        try:
            past.commit(identifier)
        except DedupstoreError as error:  # the snapshot stands; the next run only reads more than it need
            findings.append(Finding(f"cache of {repo.id.hex()}", error))
        return BackupResult(identifier, snapshot, tuple(findings))
    finally:
        past.abort()


def _lost_pack(pack: PackId) -> ObjectNotFound:
    return ObjectNotFound(
        f"pack {short(pack)} is no longer in the store; what the source still has of it was stored again, "
        "run `dstore verify` to see what older snapshots lack",
        pack=pack,
    )


def _sealed(run: _Run, snapshot: Snapshot, stored: int) -> Snapshot:
    """Put in what is known only once the packs are closed.

    The time is that of the commit, not of the beginning: a snapshot taken *as of* an instant must hold
    nothing that was read after it. Only a source that knows the moment its data is of may say another.
    The sequence is taken now as well, since others may have committed.
    """
    seconds = run.clock.monotonic() - run.ticks
    return replace(
        snapshot,
        time=run.options.time or run.source.instant() or run.clock.now(),
        sequence=1 + max((known.sequence for _, known in run.repo.snapshots()), default=0),
        statistics=replace(snapshot.statistics, stored_bytes=stored, seconds=seconds),
    )


def _names(
    ids: Iterable[int], name_of: Callable[[int], bytes | None], before: Mapping[int, bytes]
) -> dict[int, bytes]:
    """Return the names of numeric owners: those seen now, and those of what was taken over unseen."""
    names = dict(before)
    for number in ids:
        name = name_of(number)
        if name is not None:
            names[number] = name
    return names
