"""``dstore mongo ranges``."""

import typer

from dedupstore.documents.moments import time_of
from dedupstore.documents.timeline import Interval, Timeline, timelines
from dedupstore.ids import short
from dedupstore.sources.oplog.position import Ts

from ..context import Front, damaged_snapshots
from ..exitcodes import status_of_findings
from ..mongooptions import ServerName
from ..render import Column, Fields, counted, instant, instant_shown
from ..serverlist import Server, server_named, servers_in

COLUMNS = (
    Column("server"),
    Column("from"),
    Column("operation"),
    Column("until"),
    Column("operation"),
    Column("snapshots", right=True),
    Column("it ends there because"),
)


def run(ctx: typer.Context, server: ServerName = None) -> int:
    """Show which instants can be restored, and why they end."""
    front = Front.of(ctx)
    with front.repository() as repository:
        repository.sync()
        entries = front.snapshots(repository)
        servers = servers_in(entries)
        wanted = servers if server is None else [server_named(servers, server)]
        lines = timelines(repository, entries)
        found = [
            (one, interval)
            for one in wanted
            for interval in (lines[one.lineage].ranges() if one.lineage in lines else ())
        ]
        if front.settings.json:
            front.output.array(_fields(one, interval) for one, interval in found)
        else:
            if found:
                front.output.table(COLUMNS, [_row(one, interval) for one, interval in found])
            for remark in _remarks(wanted, lines, found):
                front.say(remark)
        return status_of_findings(damaged_snapshots(repository))


def _remarks(
    servers: list[Server], lines: dict[str, Timeline], found: list[tuple[Server, Interval]]
) -> list[str]:
    """Return what the table does not say: rollbacks, and servers that are not in it."""
    remarks = [f"{one}, {note}" for one, interval in found for note in interval.notes]
    there = {one.lineage for one, _ in found}
    for one in servers:
        if one.lineage in there:
            continue
        slices = len(lines[one.lineage].slices) if one.lineage in lines else 0
        if slices:
            remarks.append(
                f"{one}: {counted(slices, 'slice')} of the log and no snapshot to replay them onto: "
                "take one with 'dstore snapshot --mongo URI'"
            )
        else:
            remarks.append(f"{one}: its snapshots do not say where the log stood; each is restored as it is")
    if not servers:
        remarks.append("no snapshot of a server is here: take one with 'dstore snapshot --mongo URI'")
    return remarks


def _fields(server: Server, interval: Interval) -> Fields:
    return {
        "server": server.set_name or server.uri,
        "uri": server.uri,
        "start": str(interval.start),
        "start_time": instant(time_of(interval.start)),
        "end": str(interval.end),
        "end_time": instant(time_of(interval.end)),
        "snapshots": [identifier.hex() for identifier in interval.bases],
        "why_ends": interval.why_ends,
        "notes": list(interval.notes),
    }


def _row(server: Server, interval: Interval) -> tuple[str, ...]:
    return (
        server.set_name or str(server),
        *_place(interval.start),
        *_place(interval.end),
        short(interval.bases[0]) if len(interval.bases) == 1 else str(len(interval.bases)),
        interval.why_ends,
    )


def _place(ts: Ts) -> tuple[str, str]:
    return instant_shown(time_of(ts)), str(ts)
