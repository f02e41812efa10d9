"""``dstore mongo dump``."""

from typing import Annotated

import typer

from dedupstore.ops.export.export import Outlet
from dedupstore.ops.export.prelude import version_in
from dedupstore.repository.repository import Repository

from ..archives import STDOUT, ArchiveFile, check_archive_name
from ..context import Front, Wanted
from ..exporting import ExportRequest, run_export
from ..mongooptions import (
    AtMoment,
    BeforeOp,
    Collections,
    DryRun,
    Ids,
    NotCollections,
    Rename,
    ServerName,
    SnapshotOnly,
)
from ..options import Host, Tags
from ..tuning import tune
from ..views import Asked, Seen


def run(
    ctx: typer.Context,
    archive: Annotated[str, typer.Option(metavar="FILE", help="Write to FILE, or to standard output (-).")],
    snapshot: SnapshotOnly = None,
    at: AtMoment = None,
    before_op: BeforeOp = False,
    server: ServerName = None,
    host: Host = None,
    tag: Tags = None,
    include: Collections = None,
    exclude: NotCollections = None,
    rename: Rename = None,
    id_: Ids = None,
    gzip: Annotated[bool, typer.Option("--gzip", help="Pack it, for 'mongorestore --gzip'.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Write collections as an archive that mongorestore takes.

    A file of that name is replaced when the archive is whole. 'dstore restore --target' writes a folder.
    """
    front = Front.of(ctx)
    check_archive_name(archive)
    request = ExportRequest(
        Asked(Wanted(snapshot, at, host, tuple(tag or ())), before_op, server),
        "standard output" if archive == STDOUT else archive,
        tuple(include or ()),
        tuple(exclude or ()),
        tuple(rename or ()),
        tuple(id_ or ()),
        dry_run,
        aside=archive == STDOUT,
    )

    def outlet_for(repository: Repository, seen: Seen) -> Outlet:
        return ArchiveFile(archive, version_in(repository, seen.snapshot), packed=gzip)

    tune()
    with front.repository() as repository:
        return run_export(front, repository, request, outlet_for)
