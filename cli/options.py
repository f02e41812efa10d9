"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

At: TypeAlias = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Take the snapshot of TIME or the last before."),
]
Host: TypeAlias = Annotated[
    str | None, typer.Option("--host", metavar="NAME", help="Only snapshots of this host.")
]
Tags: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only those with this tag (repeatable).")
]
Include: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Only what fits PATTERN (repeatable)."),
]
SnapshotAndPath: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SNAPSHOT] [PATH]",
        show_default=False,
        help="An id's beginning, latest (default) or latest~N; a path from the root.",
    ),
]
SnapshotAndPaths: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SNAPSHOT] [PATH...]",
        show_default=False,
        help="An id's beginning, latest (default) or latest~N; paths from the root (default: all).",
    ),
]

# What `snapshot` takes and leaves out.
Exclude: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="PATTERN", help="Leave out what fits (repeatable).")
]
ExcludeFile: TypeAlias = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="Read patterns from FILE (repeatable).")
]
ExcludeCaches: TypeAlias = Annotated[
    bool, typer.Option("--exclude-caches", help="Leave out folders with a CACHEDIR.TAG.")
]
ExcludeLargerThan: TypeAlias = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Leave out files larger than SIZE.")
]
OneFileSystem: TypeAlias = Annotated[
    bool, typer.Option("--one-file-system", "-x", help="Do not go into other file systems.")
]
Stdin: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Back up standard input as a file NAME.")
]
Command: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Back up what a command prints: NAME -- CMD..."),
]
Archive: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Back up a mongodump archive (-: standard input)."),
]
TakenAs: TypeAlias = Annotated[
    str | None,
    typer.Option("--as", metavar="KIND", help="Take folders as files or as dump (default: look)."),
]
Sources: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH...", show_default=False, help="Files and folders to back up."),
]
NewTags: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Put TAG on it (repeatable).")
]
Name: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="A name for this source.")]
NewHost: TypeAlias = Annotated[str | None, typer.Option(metavar="NAME", help="Host name to note.")]
Time: TypeAlias = Annotated[str | None, typer.Option(metavar="TIME", help="Time to note (now).")]
ReadOnly: TypeAlias = Annotated[bool, typer.Option("--dry-run", "-n", help="Read everything, store nothing.")]
Compress: TypeAlias = Annotated[
    str | None, typer.Option(metavar="HOW", help="none, lz4 or zstd[:LEVEL], for this run.")
]
