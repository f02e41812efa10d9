"""What a backup came to, for people, for JSON and for the shell."""

from dataclasses import asdict

from dedupstore.ops.backup.archiver import BackupResult

from .exitcodes import status_of_findings
from .render import Output, counted, duration_shown, note, size_shown


def tell_outcome(output: Output, result: BackupResult) -> int:
    """Say what a backup came to, and return the exit status."""
    output.event("summary", _fields(result))
    output.remark(_sentence(result))
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
