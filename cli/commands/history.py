"""``dstore history``."""

from typing import Annotated

import typer

from dedupstore.findings import Finding
from dedupstore.ids import short
from dedupstore.tree.history import Version, history
from dedupstore.tree.select import Filter, matching

from ..context import Front, damaged_snapshots, read_until, split_paths
from ..entries import KIND_NAMES, entry_fields
from ..exitcodes import status_of_findings
from ..options import Host, Tags
from ..render import Column, Fields, instant, instant_shown, nanoseconds_shown, size_shown

COLUMNS = (
    Column("from"),
    Column("until"),
    Column("snapshots", right=True),
    Column("host"),
    Column("type"),
    Column("size", right=True),
    Column("changed"),
    Column("first"),
)


def run(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A path from the root, as at the source.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Only what was backed up by TIME.")
    ] = None,
    host: Host = None,
    tag: Tags = None,
) -> int:
    """Show every version of a path."""
    front = Front.of(ctx)
    (wanted,) = split_paths([path])
    which = Filter(host=host, tags=frozenset(tag or ()), before=None if at is None else read_until(at))
    with front.repository() as repository:
        repository.sync()
        snapshots = matching(front.snapshots(repository), which)
        versions: list[Version] = []
        findings = damaged_snapshots(repository)
        for found in history(repository.load_page, snapshots, wanted):
            if isinstance(found, Finding):
                findings.append(found)
                front.tell(found)
            else:
                versions.append(found)
    if front.settings.json:
        front.output.array(_fields(wanted, version) for version in versions)
    elif versions:
        front.output.table(COLUMNS, [_row(version) for version in versions])
    else:
        front.say(f"no snapshot holds {path}; 'dstore find' looks for a name everywhere")
    return status_of_findings(findings)


def _fields(path: bytes, version: Version) -> Fields:
    return {
        **entry_fields(path, version.node),
        "host": version.host,
        "first": version.first.hex(),
        "first_time": instant(version.first_snapshot.time),
        "last": version.last.hex(),
        "last_time": instant(version.last_snapshot.time),
        "snapshots": version.snapshots,
    }


def _row(version: Version) -> tuple[str, ...]:
    node = version.node
    return (
        instant_shown(version.first_snapshot.time),
        instant_shown(version.last_snapshot.time),
        str(version.snapshots),
        version.host,
        KIND_NAMES.get(node.kind, "unknown"),
        size_shown(node.size),
        nanoseconds_shown(node.mtime),
        short(version.first),
    )
