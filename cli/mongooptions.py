"""Options and arguments that the commands for MongoDB share."""

from typing import Annotated, TypeAlias

import typer

URI_VARIABLE = "DSTORE_MONGO_URI"

Uri: TypeAlias = Annotated[
    str | None,
    typer.Option("--mongo", metavar="URI", help=f"The server (or {URI_VARIABLE})."),
]
ServerName: TypeAlias = Annotated[
    str | None,
    typer.Option("--server", metavar="NAME", help="The beginning of a set's or a host's name."),
]
AtMoment: TypeAlias = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="As of TIME, or of operation SECONDS:INCREMENT."),
]
BeforeOp: TypeAlias = Annotated[
    bool, typer.Option("--before-op", help="Without the operation that --at names.")
]
Collections: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="DB.COLL", help="Only this, * for anything (repeatable)."),
]
NotCollections: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="DB.COLL", help="Not this, * for anything (repeatable)."),
]
Rename: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="As in 'shop.*=copy.*' (repeatable)."),
]
Ids: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--id", metavar="JSON", help="Only the document with this _id (repeatable)."),
]
OneId: TypeAlias = Annotated[
    str, typer.Option("--id", metavar="JSON", help="Its _id: 17, abc, or as extended JSON.")
]
Collection: TypeAlias = Annotated[
    str, typer.Argument(metavar="DB.COLLECTION", show_default=False, help="As in shop.orders.")
]
SnapshotOnly: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[SNAPSHOT]", show_default=False, help="An id's beginning, latest (default) or latest~N."
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Say what would be written, write nothing.")
]
Existing: TypeAlias = Annotated[
    str | None,
    typer.Option("--existing", metavar="HOW", help="refuse (default), drop or replace what is there."),
]
Resume: TypeAlias = Annotated[bool, typer.Option("--resume", help="Go on with a load that broke off.")]
ToMongo: TypeAlias = Annotated[
    str | None,
    typer.Option("--to-mongo", metavar="URI", help=f"Load into this server (-: {URI_VARIABLE})."),
]
Dialect: TypeAlias = Annotated[
    str | None, typer.Option("--oplog-dialect", metavar="NAME", help="How the log is written.", hidden=True)
]

# What `snapshot` takes.
Server: TypeAlias = Annotated[
    str | None, typer.Option("--mongo", metavar="URI", help=f"Back up a server (-: {URI_VARIABLE}).")
]
Db: TypeAlias = Annotated[
    str | None, typer.Option("--db", metavar="NAME", help="Only this database of the server.")
]
DbCollection: TypeAlias = Annotated[
    str | None, typer.Option("--collection", metavar="NAME", help="Only this collection of --db.")
]
NoLog: TypeAlias = Annotated[
    bool, typer.Option("--no-log", help="Do not store the log that it is made from.")
]
VerifySource: TypeAlias = Annotated[
    bool, typer.Option("--verify-source", help="Read all of it and compare with the log.")
]
