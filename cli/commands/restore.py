"""``dstore restore``."""

from typing import Annotated, TypeAlias

import typer

from dedupstore.ops.restore.request import Action, Heard, Overwrite, RestoreOptions, RestoreResult
from dedupstore.ops.restore.restorer import restore

from ..context import Front, Wanted, named_folder, split_arguments, taken, taken_fields
from ..exitcodes import status_of_findings
from ..options import At, Host, Include, SnapshotAndPaths, Tags
from ..progress import progress_for
from ..render import counted, duration_shown, note, path_shown, size_shown
from ..tuning import tune

Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Not what fits PATTERN (repeatable)."),
]
HowToOverwrite: TypeAlias = Annotated[
    Overwrite,
    typer.Option(
        "--overwrite",
        metavar="HOW",
        show_default=False,
        help="always (default), if-changed, if-newer, never, keep-both.",
    ),
]


def run(
    ctx: typer.Context,
    target: Annotated[
        str, typer.Option("--target", "-t", metavar="DIR", help="Write below DIR; made if it is not there.")
    ],
    what: SnapshotAndPaths = None,
    at: At = None,
    host: Host = None,
    tag: Tags = None,
    include: Include = None,
    exclude: Exclude = None,
    overwrite: HowToOverwrite = Overwrite.ALWAYS,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is in the target and not in the snapshot.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be done and do nothing.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file back and compare it.")] = False,
    numeric_owner: Annotated[
        bool, typer.Option("--numeric-owner", help="Set owners by number, not by name.")
    ] = False,
) -> int:
    """Write files of a snapshot back.

    An argument that begins with a slash is a PATH; the first one that does not is the SNAPSHOT.
    """
    front = Front.of(ctx)
    text, paths = split_arguments(what or ())
    folder = named_folder(target)
    tune()
    options = RestoreOptions(
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        overwrite=overwrite,
        delete=delete,
        dry_run=dry_run,
        verify=verify,
        numeric_owner=numeric_owner,
    )
    with front.repository() as repository:
        wanted = Wanted(text, at, host, tuple(tag or ()), paths)
        identifier, snapshot = front.pick(repository, wanted)
        front.say(f"restoring {taken(identifier, snapshot)}")
        with progress_for(front.output) as report:
            heard = _telling(front) if dry_run else None
            result = restore(repository, snapshot, folder, paths, options, report, heard=heard)
    front.output.event("summary", {**_fields(result), **taken_fields(identifier, snapshot)})
    front.output.remark(_sentence(result, target, dry_run=dry_run))
    if result.failed:
        note(f"{counted(result.failed, 'thing')} could not be restored as wanted: see the lines above")
    return status_of_findings([*front.doubts(repository, wanted), *result.findings])


def _telling(front: Front) -> Heard:
    """Return what shows each action of a dry run."""

    def heard(action: Action, path: bytes) -> None:
        if action is not Action.KEEP:
            front.output.line(f"{action.value} {path_shown(path)}")

    return heard


def _fields(result: RestoreResult) -> dict[str, object]:
    return {
        "files": result.files,
        "bytes": result.bytes,
        "skipped": result.skipped,
        "deleted": result.deleted,
        "seconds": round(result.seconds, 3),
        "findings": result.failed,
        "incomplete": result.incomplete,
    }


def _sentence(result: RestoreResult, target: str, *, dry_run: bool) -> str:
    verb = "would restore" if dry_run else "restored"
    parts = [f"{verb} {result.files} files, {size_shown(result.bytes)} to {target}"]
    if result.skipped:
        parts.append(f"{result.skipped} left as they were")
    if result.deleted:
        parts.append(f"{result.deleted} {'to be ' if dry_run else ''}deleted")
    if result.incomplete:
        parts.append(f"{result.incomplete} without all their attributes (this user may not set them)")
    return ", ".join(parts) + f", in {duration_shown(result.seconds)}"
