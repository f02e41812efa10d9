"""The verb: what a view shows, written to a dump folder, an archive or a server.

One collection that can not be read or written is a finding and the others go on, unless the outlet is of
no use then. Memory: what the view
reads ahead (about 8 MiB) and what the outlet buffers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dedupstore.clock import Clock
from dedupstore.documents.view import CollectionView, View
from dedupstore.errors import IntegrityError, ObjectNotFound, SourceError, TargetError, UsageError
from dedupstore.findings import Finding
from dedupstore.ops.export.names import Renaming, Selection
from dedupstore.progress import Reporter
from dedupstore.sources.bson.collection import VIEW, CollectionInfo

_REPORT_BYTES = 4 * 1024 * 1024


class Outlet(Protocol):
    """Where collections go. One thread calls it."""

    resilient: bool
    """Whether the others are of use if one collection fails."""

    def begin(self, infos: Sequence[CollectionInfo]) -> None:
        """Hear of everything that will come, already under its new names. Raises `TargetError`."""
        ...

    def after(self, info: CollectionInfo) -> bytes | None:
        """Return the ``_id`` behind which documents are wanted, if an earlier run wrote some; ``None``: all.

        Whoever can not begin there gives all of them.
        """
        ...

    def collection(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        """Take one collection; a view has no documents. Raises `TargetError`, and what reading raises."""
        ...

    def finish(self) -> Sequence[Finding]:
        """Do what comes last (indexes, the end of an archive). Raises `TargetError`."""
        ...

    def close(self) -> None:
        """Give back what is open; unfinished files are removed. A second call does nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written, or in a dry run would be."""

    collections: tuple[CollectionInfo, ...]
    documents: int
    bytes: int
    seconds: float
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Count:
    report: Reporter
    documents: int = 0
    total: int = 0
    """Bytes of them."""
    told: int = 0

    def passing(self, documents: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the documents and count them."""
        for document in documents:
            self.documents += 1
            self.total += len(document)
            if self.total - self.told >= _REPORT_BYTES:
                self.tell(0)
            yield document

    def tell(self, collections: int) -> None:
        """Report what has passed since the last time."""
        self.report.advanced(collections, self.total - self.told)
        self.told = self.total


def chosen(
    view: View, selection: Selection, renaming: Renaming
) -> list[tuple[CollectionView, CollectionInfo]]:
    """Return what of a view is wanted, each with its information under the new name.

    Raises `UsageError` if two collections would get one name, if nothing is left, or for a renaming that
    fits nothing.
    """
    taken: dict[tuple[str, str], str] = {}
    found = []
    for collection in view.collections():
        info = collection.info
        if not selection.wants(info.db, info.name):
            continue
        db, name = renaming.apply(info.db, info.name)
        if (db, name) in taken:
            raise UsageError(
                f"{taken[db, name]} and {info.namespace} would both be called {db}.{name}: rename one of them"
            )
        taken[db, name] = info.namespace
        found.append((collection, replace(info, db=db, name=name)))
    if not found:
        raise UsageError("no collection fits: `dstore ls` shows what the snapshot has")
    # With a misspelt one, what was to go beside the originals would be written over them.
    unused = renaming.unused((one.info.db, one.info.name) for one, _ in found)
    if unused:
        raise UsageError(f"the renaming {unused[0]!r} fits no collection that is wanted: correct it")
    return found


def export(
    view: View, outlet: Outlet, selection: Selection, renaming: Renaming, report: Reporter, clock: Clock
) -> ExportResult:
    """Write what is wanted of a view. Closes neither.

    Raises `UsageError`, and `TargetError` where nothing can be written at all.
    """
    ticks = clock.monotonic()
    wanted = chosen(view, selection, renaming)
    infos = [info for _, info in wanted]
    report.started("restore", len(infos), None)
    outlet.begin(infos)
    count = _Count(report)
    findings: list[Finding] = []
    for collection, info in wanted:
        after = None if info.kind == VIEW or collection.natural else outlet.after(info)
        documents = iter(()) if info.kind == VIEW else count.passing(collection.documents(after))
        try:
            outlet.collection(info, documents)
        except (IntegrityError, ObjectNotFound, SourceError, TargetError) as error:
            if not outlet.resilient:
                raise
            findings.append(Finding(info.namespace, error))
            report.finding(info.namespace, error)
        count.tell(1)
    for finding in outlet.finish():
        findings.append(finding)
        report.finding(finding.where, finding.error)
    return ExportResult(
        tuple(infos), count.documents, count.total, clock.monotonic() - ticks, tuple(findings)
    )
