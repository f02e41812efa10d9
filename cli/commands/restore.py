"""``dstore restore``."""

from typing import Annotated, TypeAlias

import typer

from dedupstore.ops.restore.request import Overwrite, RestoreOptions

from ..context import Front, Wanted, split_arguments
from ..mongooptions import BeforeOp, Existing, Ids, Rename, Resume, ServerName, ToMongo
from ..options import Host, SnapshotAndPaths, Tags
from ..restoring import RestoreRequest, run_restore
from ..tuning import tune

AtMoment: TypeAlias = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="As of TIME (or operation SECONDS:INCREMENT).")
]
Include: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Only what fits, or db.collection (repeatable)."),
]
Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Not what fits, or db.collection (repeatable)."),
]
HowToOverwrite: TypeAlias = Annotated[
    Overwrite,
    typer.Option(
        "--overwrite",
        metavar="HOW",
        show_default=False,
        help="always (default), if-changed, if-newer, never, keep-both.",
    ),
]


def run(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="DIR", help="Write below DIR; made if it is not there."),
    ] = None,
    to_mongo: ToMongo = None,
    what: SnapshotAndPaths = None,
    at: AtMoment = None,
    before_op: BeforeOp = False,
    server: ServerName = None,
    host: Host = None,
    tag: Tags = None,
    include: Include = None,
    exclude: Exclude = None,
    rename: Rename = None,
    id_: Ids = None,
    existing: Existing = None,
    resume: Resume = False,
    overwrite: HowToOverwrite = Overwrite.ALWAYS,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is in the target and not in the snapshot.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be done and do nothing.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file back and compare it.")] = False,
    numeric_owner: Annotated[
        bool, typer.Option("--numeric-owner", help="Set owners by number, not by name.")
    ] = False,
) -> int:
    """Write files or collections of a snapshot back.

    An argument that begins with a slash is a PATH; the first one that does not is the SNAPSHOT. Where a
    server's log is stored (mongo tail), --at TIME means its collections after exactly the operations until
    then; --target gets them as a dump. Without a log it means the newest snapshot by then.
    """
    text, paths = split_arguments(what or ())
    request = RestoreRequest(
        Wanted(text, at, host, tuple(tag or ()), paths),
        target,
        to_mongo,
        RestoreOptions(
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            overwrite=overwrite,
            delete=delete,
            dry_run=dry_run,
            verify=verify,
            numeric_owner=numeric_owner,
        ),
        before_op,
        server,
        tuple(rename or ()),
        tuple(id_ or ()),
        existing,
        resume,
    )
    tune()
    return run_restore(Front.of(ctx), request)
