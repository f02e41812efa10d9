"""Verify that everything is there that the snapshots promise.

Believes nothing kept on this machine. It works on a second view of the repository whose local index
begins empty, in a temporary folder beside the cache, and is filled from the store's own index
segments; so every segment, snapshot and tree page comes from the store and is checked on the way.

The order is that of a reader beside running writers: snapshots first, then the index segments,
then the packs, so whatever a listed snapshot needs was listed before it. A collection that removes
segments meanwhile makes the result worthless, and is noticed.

Memory: see ``structure.py``, ``packs.py`` and ``register.py``. Disk: about 120 bytes a chunk for the
temporary index. Writes nothing to the store.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dedupstore.errors import ObjectNotFound, RepositoryBusy, UsageError
from dedupstore.findings import Finding
from dedupstore.format import constants as c
from dedupstore.format.keys import decode_slot
from dedupstore.format.session import decode_session
from dedupstore.ids import SESSION_ID_SIZE, PackId, SnapshotId, parse_id
from dedupstore.model import Snapshot
from dedupstore.objectstore.base import ObjectInfo, ObjectKind
from dedupstore.objectstore.oserrors import write_failure
from dedupstore.ops.verify.blame import blame
from dedupstore.ops.verify.packs import Listed, PackReader, check_sizes
from dedupstore.ops.verify.register import Register
from dedupstore.ops.verify.structure import TROUBLE, Structure, survive
from dedupstore.progress import NullReporter, Reporter
from dedupstore.repository.ledger import Ledger
from dedupstore.repository.repository import Repository
from dedupstore.repository.segments import read_pack, read_segment


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What was looked at, and what was wrong with it."""

    snapshots: int
    packs: int
    """Packs that the index lists."""
    chunks: int
    """Chunks that the index lists."""
    bytes_read: int
    """Of packs that were read whole."""
    unlisted_packs: int
    """Packs that no index segment lists: of a running or broken-off session. Not damage."""
    unlisted_bytes: int
    findings: tuple[Finding, ...]
    """One for each damaged object, with what it hurts."""


def verify(repo: Repository, *, data: bool = False, report: Reporter | None = None) -> VerifyResult:
    """Check the structure of a repository and, with ``data``, every byte of its packs.

    Damage never ends the run; each damaged object is one finding that names the snapshots and paths
    it hurts, newest snapshot first, as many as are worth listing and the number of the rest.
    Raises `StoreError` or `AccessError` if the store as a whole does not answer, and `RepositoryBusy`
    if something looked damaged while a collection was removing things: run it again.
    """
    report = report or NullReporter()
    with _fresh_view(repo) as view:
        result = _Run(view, report).run(data=data)
    report.finished(result)
    return result


@contextmanager
def _fresh_view(repo: Repository) -> Iterator[Repository]:
    """Open the repository once more, with an index that knows nothing yet."""
    beside = repo.cache_path.parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix="verify-", dir=beside, ignore_cleanup_errors=True)
    except OSError as error:
        raise write_failure(error, "a temporary index", str(beside)) from error
    with temporary as folder:
        view = Repository(repo.store, repo.config, Path(folder), repo.clock)
        try:
            yield view
        finally:
            view.index.close()  # not the view: it would close the store under its owner


class _Run:
    """One verification."""

    def __init__(self, view: Repository, report: Reporter) -> None:
        self._view = view
        self._store = view.store
        self._report = report
        self._register = Register(lambda number: view.index.pack(number).id)
        self._listed: dict[PackId, Listed] = {}
        self._segments: set[str] = set()

    def run(self, *, data: bool) -> VerifyResult:
        self._check_small_objects()
        snapshots = self._view.snapshots()
        for where, error in self._view.damaged:
            if where.startswith(ObjectKind.SESSION.value):
                continue  # named with the small objects
            self._register.add_object(where, error)
        segments_whole = self._read_segments()
        stored = {info.key.name: info.size for info in self._store.listing(ObjectKind.PACK)}
        names = {pack.hex() for pack in self._listed}
        loose = {name: size for name, size in stored.items() if name not in names}
        listed = list(self._listed.values())
        adopted = self._adopt(loose) if snapshots else []
        bytes_read = 0
        if data:
            # Where a segment is lost, the packs that only it listed are needed all the same.
            bytes_read = self._read_packs(listed if segments_whole else listed + adopted)
        else:
            check_sizes(self._view, listed, stored, self._register)
        self._report.started("trees", None, None)
        unlisted = {pack.id for pack in adopted}
        structure = Structure(self._view, self._register, self._report, unlisted)
        structure.check(snapshot.root for _, snapshot in snapshots)
        return VerifyResult(
            snapshots=len(snapshots),
            packs=len(listed),
            chunks=self._view.index.count(),
            bytes_read=bytes_read,
            unlisted_packs=len(loose),
            unlisted_bytes=sum(loose.values()),
            findings=self._findings(snapshots),
        )

    def _check_small_objects(self) -> None:
        """Open key slots, session objects and the collector's counter."""
        for info in self._store.listing(ObjectKind.KEY):
            self._check_object(info, decode_slot)
        for info in self._store.listing(ObjectKind.SESSION):
            self._check_object(info, partial(self._open_session, info.key.name))
        try:
            Ledger(self._store, self._view.keychain).generation()
        except TROUBLE as error:
            survive(self._store, error)
            self._register.add_object("gc/gen", error)

    def _open_session(self, name: str, stored: bytes) -> None:
        identifier = parse_id(name, SESSION_ID_SIZE)
        decode_session(self._view.keychain.open(c.OBJECT_SESSION, stored, identifier))

    def _check_object(self, info: ObjectInfo, read: Callable[[bytes], object]) -> None:
        try:
            read(self._store.get(info.key))
        except ObjectNotFound:
            return  # ended or removed since the listing
        except (*TROUBLE, UsageError) as error:
            survive(self._store, error)
            self._register.add_object(str(info.key), error)

    def _read_segments(self) -> bool:
        """Fill the index from the store's segments; False if one of them can not be read."""
        infos = list(self._store.listing(ObjectKind.INDEX))
        self._report.started("index", len(infos), sum(info.size for info in infos))
        whole = True
        for info in infos:
            name = info.key.name
            self._segments.add(name)
            try:
                packs = read_segment(self._store, self._view.keychain, name)
            except TROUBLE as error:
                survive(self._store, error)
                self._register.add_object(str(info.key), error)
                whole = False
                continue
            self._view.index.add_all(packs, segment=name)
            for pack in packs:
                self._listed[pack.id] = Listed(pack.id, pack.size, hash(pack), name)
            self._report.advanced(1, info.size)
        return whole

    def _adopt(self, names: Iterable[str]) -> list[Listed]:
        """Add packs that no segment lists to the index, as their own directories tell them.

        If snapshots need them after all, what is lost is a segment and not their data.
        """
        adopted = []
        for name in names:
            try:
                pack = read_pack(self._store, self._view.keychain, PackId(parse_id(name)))
            except (*TROUBLE, UsageError) as error:
                survive(self._store, error)
                continue  # nobody promised anything of it
            self._view.index.add(pack)
            adopted.append(Listed(pack.id, pack.size, hash(pack), None))
        return adopted

    def _read_packs(self, packs: list[Listed]) -> int:
        self._report.started("packs", len(packs), sum(pack.size for pack in packs))
        reader = PackReader(self._view, self._register, self._report)
        reader.check(packs)
        return reader.bytes_read

    def _findings(self, snapshots: list[tuple[SnapshotId, Snapshot]]) -> tuple[Finding, ...]:
        complete = True
        if self._register.hurting:
            complete = blame(self._view, snapshots, self._register)
        findings = tuple(self._register.findings(complete=complete))
        if findings:
            left = {info.key.name for info in self._store.listing(ObjectKind.INDEX)}
            if not self._segments <= left:
                raise RepositoryBusy(
                    "packs were removed while they were verified, so this run says nothing: verify again"
                )
        for finding in findings:
            self._report.finding(finding.where, finding.error)
        return findings
