"""``dstore snapshot``."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated, TypeAlias

import typer

from dedupstore import __version__
from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.format.codec import Compression
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult, back_up

from ..chosen import SourceRequest, open_source
from ..context import Front, read_time
from ..exitcodes import status_of_findings
from ..options import (
    Command,
    Exclude,
    ExcludeCaches,
    ExcludeFile,
    ExcludeLargerThan,
    OneFileSystem,
    Stdin,
)
from ..progress import progress_for
from ..render import counted, duration_shown, note, size_shown
from ..tuning import tune
from ..whoami import host_name, user_name

Paths: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH...", show_default=False, help="Files and folders to back up."),
]
NewTags: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Put TAG on it (repeatable).")
]
Name: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="A name for this source.")]
NewHost: TypeAlias = Annotated[str | None, typer.Option(metavar="NAME", help="Host name to note.")]
Time: TypeAlias = Annotated[str | None, typer.Option(metavar="TIME", help="Time to note (now).")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", "-n", help="Read everything, store nothing.")]
Compress: TypeAlias = Annotated[
    str | None, typer.Option(metavar="HOW", help="none, lz4 or zstd[:LEVEL], for this run.")
]


def run(
    ctx: typer.Context,
    paths: Paths = None,
    tag: NewTags = None,
    exclude: Exclude = None,
    exclude_file: ExcludeFile = None,
    exclude_caches: ExcludeCaches = False,
    exclude_larger_than: ExcludeLargerThan = None,
    one_file_system: OneFileSystem = False,
    name: Name = "",
    host: NewHost = None,
    time: Time = None,
    dry_run: DryRun = False,
    compression: Compress = None,
    stdin: Stdin = None,
    command: Command = None,
) -> int:
    """Back up files, or a command's output.

    The new snapshot holds everything; what the repository has is not sent again. A file that can not be
    read is named, left out, and makes the exit status 3.
    """
    front = Front.of(ctx)
    request = SourceRequest(
        words=tuple(paths or ()),
        stdin=stdin,
        command=command,
        exclude=tuple(exclude or ()),
        exclude_files=tuple(exclude_file or ()),
        exclude_caches=exclude_caches,
        exclude_larger_than=exclude_larger_than,
        one_file_system=one_file_system,
    )
    options = BackupOptions(
        host=host or host_name(),
        user=user_name(),
        tags=frozenset(tag or ()),
        name=name,
        compression=None if compression is None else Compression.parse(compression),
        time=None if time is None else read_time(time),
        dry_run=dry_run,
        program=f"dstore {__version__}",
    )
    tune()
    with (
        closing(open_source(request)) as source,
        front.repository() as repository,
        progress_for(front.output) as report,
    ):
        result = back_up(repository, source, options, report, SYSTEM_CLOCK)
    front.output.event("summary", _fields(result))
    front.output.remark(_sentence(result))
    if result.findings:
        note(f"{counted(len(result.findings), 'thing')} could not be read as wanted: see the lines above")
    return status_of_findings(result.findings)


def _fields(result: BackupResult) -> dict[str, object]:
    taken = None if result.snapshot_id is None else result.snapshot_id.hex()
    numbers = asdict(result.snapshot.statistics)
    numbers["seconds"] = round(numbers["seconds"], 3)
    return {"snapshot": taken, **numbers, "findings": len(result.findings)}


def _sentence(result: BackupResult) -> str:
    numbers = result.snapshot.statistics
    what = "dry run" if result.snapshot_id is None else f"snapshot {result.snapshot_id[:4].hex()}"
    failed = f", {numbers.files_failed} not readable" if numbers.files_failed else ""
    return (
        f"{what}: {numbers.files_new} new, {numbers.files_changed} changed, "
        f"{numbers.files_unchanged} unchanged{failed}; {size_shown(numbers.bytes)} in all, "
        f"{size_shown(numbers.bytes_new)} new, {size_shown(numbers.stored_bytes)} stored, "
        f"in {duration_shown(numbers.seconds)}"
    )
