"""Collections on their way out: to a dump folder, an archive or a server. What three commands share."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.view import CollectionView
from dedupstore.errors import UsageError
from dedupstore.ops.export.export import ExportResult, Outlet, chosen, export
from dedupstore.ops.export.names import Renaming, Selection
from dedupstore.ops.export.picked import picked
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import VIEW, CollectionInfo
from dedupstore.sources.bson.extjson import parse_id

from .context import Front
from .exitcodes import status_of_findings
from .progress import progress_for
from .render import Column, Fields, counted, duration_shown, note, size_shown
from .views import Asked, Seen, open_view

Chosen: TypeAlias = tuple[CollectionView, CollectionInfo]
OutletFor: TypeAlias = Callable[[Repository, Seen], Outlet]
"""Makes the outlet once it is known what goes into it."""

COLUMNS = (
    Column("collection"),
    Column("becomes"),
    Column("documents", right=True),
    Column("size", right=True),
)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the command line says."""

    asked: Asked
    where: str
    """What it goes to, for people."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    dry_run: bool = False
    aside: bool = False
    """Whether standard output is taken by what is written, so that nothing else may go there."""


def run_export(
    front: Front,
    repository: Repository,
    request: ExportRequest,
    outlet_for: OutletFor,
    look: OutletFor | None = None,
) -> int:
    """Do it, and return the exit status. Raises as `open_view` and `export` do.

    ``look`` makes an outlet that writes nothing, for dry runs that ask it whether it would.
    """
    selection = Selection.of(request.include, request.exclude)
    renaming = Renaming.of(request.rename)
    identities = [parse_id(text) for text in request.ids]
    if identities and not request.include:
        raise UsageError("--id is of one collection: name it by --include database.collection")
    repository.sync()
    wanted = request.asked.wanted
    with open_view(front, repository, request.asked) as seen:
        front.say(f"{'would write' if request.dry_run else 'writing'} {seen.sentence}")
        view = picked(seen.view, selection, identities) if identities else seen.view
        if request.dry_run:
            plan = chosen(view, selection, renaming)
            if look is not None:
                with closing(look(repository, seen)) as outlet:
                    outlet.begin([info for _, info in plan])
            _plan(front, request, seen, plan)
            return status_of_findings(front.doubts(repository, wanted))
        with closing(outlet_for(repository, seen)) as outlet, progress_for(front.output) as report:
            result = export(view, outlet, selection, renaming, report, SYSTEM_CLOCK)
    _tell(front, request, seen, result)
    return status_of_findings([*front.doubts(repository, wanted), *result.findings])


def _plan(front: Front, request: ExportRequest, seen: Seen, wanted: list[Chosen]) -> None:
    """Say what would be written."""
    plan: list[Fields] = [
        {
            "collection": one.info.namespace,
            "becomes": info.namespace,
            "kind": info.kind,
            "documents": one.count,
            "bytes": one.size,
        }
        for one, info in wanted
    ]
    front.output.event("summary", {**seen.fields, "dry_run": True, "collections": len(plan), "plan": plan})
    rows = [
        (
            one.info.namespace,
            "" if one.info.namespace == info.namespace else info.namespace,
            _number(one),
            _size(one),
        )
        for one, info in wanted
    ]
    front.output.table(COLUMNS, rows)
    if any(one.count is None and one.info.kind != VIEW for one, _ in wanted):
        front.say("'?': the log changes it, so only reading all of it would tell")
    front.output.remark(f"would write {counted(len(plan), 'collection')} to {request.where}")


def _number(one: CollectionView) -> str:
    return one.info.kind if one.info.kind == VIEW else "?" if one.count is None else str(one.count)


def _size(one: CollectionView) -> str:
    return "" if one.info.kind == VIEW else "?" if one.size is None else size_shown(one.size)


def _tell(front: Front, request: ExportRequest, seen: Seen, result: ExportResult) -> None:
    failed = len(result.findings)
    if request.aside:
        say = front.say
    else:
        say = front.output.remark
        front.output.event(
            "summary",
            {
                "collections": len(result.collections),
                "documents": result.documents,
                "files": len(result.collections),
                "bytes": result.bytes,
                "skipped": 0,
                "deleted": 0,
                "seconds": round(result.seconds, 3),
                "findings": failed,
                **seen.fields,
            },
        )
    say(
        f"wrote {counted(len(result.collections) - failed, 'collection')}, "
        f"{counted(result.documents, 'document')}, {size_shown(result.bytes)} to {request.where}, "
        f"in {duration_shown(result.seconds)}"
    )
    if failed:
        note(f"{counted(failed, 'collection')} could not be written as wanted: see the lines above")
