"""``dstore snapshots``."""

from typing import Annotated

import typer

from dedupstore.ids import SnapshotId, short
from dedupstore.model import Snapshot
from dedupstore.tree.select import Filter, matching

from ..context import Front, damaged_snapshots, read_time, read_until, split_paths
from ..exitcodes import status_of_findings
from ..options import Host, Tags
from ..render import Column, Fields, counted, instant, instant_shown, path_text, size_shown
from ..sources import source_shown, without_older_slices

COLUMNS = (
    Column("id"),
    Column("time"),
    Column("host"),
    Column("tags"),
    Column("paths"),
    Column("files", right=True),
    Column("size", right=True),
    Column("added", right=True),
)


def run(
    ctx: typer.Context,
    host: Host = None,
    tag: Tags = None,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", metavar="PATH", help="Only snapshots that hold this path (repeatable)."),
    ] = None,
    latest: Annotated[
        int | None,
        typer.Option("--latest", metavar="N", min=1, help="Only the last N of each source."),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIME", help="Only snapshots taken at TIME or before.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="TIME", help="Only snapshots taken at TIME or after.")
    ] = None,
) -> int:
    """List snapshots."""
    front = Front.of(ctx)
    wanted = Filter(
        host=host,
        tags=frozenset(tag or ()),
        paths=split_paths(path or ()),
        before=None if before is None else read_until(before),
        after=None if after is None else read_time(after),
        latest=latest,
    )
    with front.repository() as repository:
        found = matching(front.snapshots(repository), wanted)
        if front.settings.json:
            front.output.array(_fields(identifier, snapshot) for identifier, snapshot in found)
        elif not found:
            front.say("no snapshots")
        else:
            shown = without_older_slices(found)
            front.output.table(COLUMNS, [_row(identifier, snapshot) for identifier, snapshot in shown])
            if len(shown) < len(found):
                front.say(
                    f"{counted(len(found) - len(shown), 'earlier slice')} of logs are not shown (--json does)"
                )
        return status_of_findings(damaged_snapshots(repository))


def _fields(identifier: SnapshotId, snapshot: Snapshot) -> Fields:
    return {
        "id": identifier.hex(),
        "time": instant(snapshot.time),
        "host": snapshot.host,
        "paths": [path_text(path) for path in snapshot.source.paths],
        "tags": sorted(snapshot.tags),
        "parent": None if snapshot.parent is None else snapshot.parent.hex(),
        "sequence": snapshot.sequence,
        "hold": snapshot.hold,
        "files": snapshot.statistics.files,
        "bytes": snapshot.statistics.bytes,
        "added_bytes": snapshot.statistics.stored_bytes,
        "user": snapshot.user,
        "name": snapshot.name,
        "kind": snapshot.source.kind,
    }


def _row(identifier: SnapshotId, snapshot: Snapshot) -> tuple[str, ...]:
    return (
        short(identifier),
        instant_shown(snapshot.time),
        snapshot.host,
        ",".join(sorted(snapshot.tags)),
        source_shown(snapshot.source),
        str(snapshot.statistics.files),
        size_shown(snapshot.statistics.bytes),
        size_shown(snapshot.statistics.stored_bytes),
    )
