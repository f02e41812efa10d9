"""``dstore mongo load``."""

from typing import Annotated

import typer

from ..context import Front, Wanted
from ..docrestore import DocumentWords, restore_documents
from ..mongooptions import (
    AtMoment,
    BeforeOp,
    Collections,
    DryRun,
    Existing,
    Ids,
    NotCollections,
    Rename,
    Resume,
    ServerName,
    SnapshotOnly,
)
from ..options import Host, Tags
from ..tuning import tune


def run(
    ctx: typer.Context,
    uri: Annotated[
        str, typer.Argument(metavar="URI", show_default=False, help="The server, or - for DSTORE_MONGO_URI.")
    ],
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
    existing: Existing = None,
    resume: Resume = False,
    dry_run: DryRun = False,
) -> int:
    """Write collections to a server (restore --to-mongo)."""
    front = Front.of(ctx)
    wanted = Wanted(snapshot, at, host, tuple(tag or ()))
    words = DocumentWords(
        to_mongo=uri,
        before_op=before_op,
        server=server,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        rename=tuple(rename or ()),
        ids=tuple(id_ or ()),
        existing=existing,
        resume=resume,
        dry_run=dry_run,
    )
    tune()
    with front.repository() as repository:
        return restore_documents(front, repository, wanted, words)
