"""What ``restore`` does with files, and what it says of it."""

from pathlib import Path

from dedupstore.findings import Finding
from dedupstore.ops.restore.request import Action, Heard, RestoreOptions, RestoreResult
from dedupstore.ops.restore.restorer import restore
from dedupstore.repository.repository import Repository
from dedupstore.tree.select import Entry

from .context import Front, taken, taken_fields
from .progress import progress_for
from .render import counted, duration_shown, note, path_shown, size_shown


def restore_files(
    front: Front,
    repository: Repository,
    entry: Entry,
    folder: Path,
    paths: tuple[bytes, ...],
    options: RestoreOptions,
) -> tuple[Finding, ...]:
    """Restore, tell of it, and return what could not be restored as wanted."""
    identifier, snapshot = entry
    front.say(f"restoring {taken(identifier, snapshot)}")
    with progress_for(front.output) as report:
        heard = _telling(front) if options.dry_run else None
        result = restore(repository, snapshot, folder, paths, options, report, heard=heard)
    front.output.event("summary", {**_fields(result), **taken_fields(identifier, snapshot)})
    front.output.remark(_sentence(result, folder, dry_run=options.dry_run))
    if result.failed:
        note(f"{counted(result.failed, 'thing')} could not be restored as wanted: see the lines above")
    return result.findings


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


def _sentence(result: RestoreResult, target: Path, *, dry_run: bool) -> str:
    verb = "would restore" if dry_run else "restored"
    parts = [f"{verb} {result.files} files, {size_shown(result.bytes)} to {target}"]
    if result.skipped:
        parts.append(f"{result.skipped} left as they were")
    if result.deleted:
        parts.append(f"{result.deleted} {'to be ' if dry_run else ''}deleted")
    if result.incomplete:
        parts.append(f"{result.incomplete} without all their attributes (this user may not set them)")
    return ", ".join(parts) + f", in {duration_shown(result.seconds)}"
