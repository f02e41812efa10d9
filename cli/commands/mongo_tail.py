"""``dstore mongo tail``."""

from typing import Annotated

import typer

from dedupstore.errors import UsageError
from dedupstore.ops.tail import TailOptions

from ..context import Front
from ..mongooptions import Dialect, Uri
from ..mongouri import mongo_uri
from ..quantities import parse_duration, parse_size
from ..signature import signed
from ..tailing import run_tail
from ..tuning import tune

SMALLEST_SIZE = 64 * 1024


def run(
    ctx: typer.Context,
    mongo: Uri = None,
    every: Annotated[str, typer.Option(metavar="TIME", help="Store a slice so often: 30s, 10m, 1h.")] = "10m",
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Store a slice when it has so many bytes.")
    ] = "64MiB",
    once: Annotated[bool, typer.Option("--once", help="Store what there is by now, and end.")] = False,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Put TAG on each (repeatable).")
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="NAME", help="Host name to note.")] = None,
    oplog_dialect: Dialect = None,
) -> int:
    """Follow a server's log and store it, slice by slice.

    It begins where the last slice ended, or with the first snapshot that the log still reaches. Ctrl-C or
    SIGTERM store what was read and end it. A lost connection is waited for; a hole in the log is said.
    """
    front = Front.of(ctx)
    seconds, size = parse_duration(every), parse_size(max_size)
    if seconds < 1 or size < SMALLEST_SIZE:
        raise UsageError("slices that small would only cost: give --every 1s and --max-size 64K or more")
    uri = mongo_uri(mongo)
    tune()
    options = TailOptions(signed(host, tag), seconds, size, once=once, temporary=front.settings.temporary)
    return run_tail(front, uri, oplog_dialect, options)
