"""``dstore find``."""

from collections.abc import Iterator
from typing import Annotated

import typer

from dedupstore.findings import Finding
from dedupstore.ids import SnapshotId, short
from dedupstore.tree.find import Match, find
from dedupstore.tree.glob import Glob
from dedupstore.tree.select import Filter, matching

from ..context import Front, Wanted, damaged_snapshots
from ..entries import entry_fields, entry_line
from ..exitcodes import status_of_findings
from ..options import At, Host, Tags
from ..render import Fields, instant, instant_shown, text_shown


def run(
    ctx: typer.Context,
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN", help="A name such as '*.odt', or a path such as '/srv/**/report.*'."
        ),
    ],
    snapshot: Annotated[
        str | None,
        typer.Argument(metavar="[SNAPSHOT]", show_default=False, help="Look in this one (default: in all)."),
    ] = None,
    at: At = None,
    host: Host = None,
    tag: Tags = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", "-i", help="Take capital and small letters for the same.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="Show mode, owner, size and time.")] = False,
) -> int:
    """Find names in snapshots.

    A pattern without a slash fits a name anywhere. The last snapshot comes first.
    """
    front = Front.of(ctx)
    glob = Glob(pattern, ignore_case=ignore_case)
    findings: list[Finding] = []
    with front.repository() as repository:
        repository.sync()
        if snapshot is None and at is None:
            where = matching(front.snapshots(repository), Filter(host=host, tags=frozenset(tag or ())))
            findings += damaged_snapshots(repository)
        else:
            where = [front.pick(repository, Wanted(snapshot, at, host, tuple(tag or ())))]
        matches = _sound(find(repository.load_page, where, glob), findings, front)
        if front.settings.json:
            front.output.array(map(_fields, matches))
        else:
            _show(front, matches, long=long)
    return status_of_findings(findings)


def _sound(found: Iterator[Match | Finding], findings: list[Finding], front: Front) -> Iterator[Match]:
    for one in found:
        if isinstance(one, Finding):
            findings.append(one)
            front.tell(one)
        else:
            yield one


def _show(front: Front, matches: Iterator[Match], *, long: bool) -> None:
    """Write the matches under a heading for each snapshot."""
    last: SnapshotId | None = None
    for match in matches:
        if match.id != last:
            front.output.line(
                f"{'' if last is None else chr(10)}{short(match.id)}  "
                f"{instant_shown(match.snapshot.time)}  {text_shown(match.snapshot.host)}"
            )
            last = match.id
        front.output.line("  " + entry_line(match.path, match.node, long=long))
    if last is None:
        front.say("nothing fits: a pattern fits whole names, so try '*PART*'")


def _fields(match: Match) -> Fields:
    return {
        **entry_fields(match.path, match.node),
        "snapshot": match.id.hex(),
        "time": instant(match.snapshot.time),
        "host": match.snapshot.host,
    }
