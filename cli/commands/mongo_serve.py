"""``dstore mongo serve``."""

from pathlib import Path
from typing import Annotated

import typer

from ..context import Front, Wanted
from ..mongooptions import AtMoment, BeforeOp, Db, DbCollection, ServerName, SnapshotOnly
from ..options import Host, Tags
from ..serving import PASSWORD_VARIABLE, ServeRequest, run_serve
from ..tuning import tune
from ..views import Asked


def run(
    ctx: typer.Context,
    snapshot: SnapshotOnly = None,
    at: AtMoment = None,
    before_op: BeforeOp = False,
    server: ServerName = None,
    host: Host = None,
    tag: Tags = None,
    db: Db = None,
    collection: DbCollection = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Listen here; port 0 takes any that is free.")
    ] = "127.0.0.1:27018",
    user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask for a login; needed if others can reach it."),
    ] = None,
    user_password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Its password (or {PASSWORD_VARIABLE})."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Encrypt, with this certificate (PEM).")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key, if that is in a file of its own.")
    ] = None,
) -> int:
    """Show collections as they were to mongosh, Compass and drivers.

    It speaks MongoDB's protocol, so no MongoDB is needed, and mongodump works too; it is read-only. Ctrl-C or
    SIGTERM end it. Queries that it can not answer exactly are refused by name.
    """
    front = Front.of(ctx)
    asked = Asked(Wanted(snapshot, at, host, tuple(tag or ())), before_op, server)
    request = ServeRequest(asked, listen, db, collection, user, user_password_file, tls_cert, tls_key)
    tune()
    return run_serve(front, request)
