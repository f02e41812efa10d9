"""Errors to exit statuses: the total table behind what the manual promises."""

from collections.abc import Iterable
from typing import Final

from dedupstore import errors
from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INCOMPLETE: Final = 3
"""Done, but something at the source could not be read."""
DAMAGE: Final = 4
NO_REPOSITORY: Final = 10
BUSY: Final = 11
WRONG_PASSPHRASE: Final = 12
INTERRUPTED: Final = 130

STATUS: Final[dict[type[DedupstoreError], int]] = {
    errors.DedupstoreError: FAILED,
    errors.UsageError: USAGE,
    errors.NotFoundError: FAILED,
    errors.RepositoryNotFound: NO_REPOSITORY,
    errors.ObjectNotFound: DAMAGE,
    errors.AccessError: FAILED,
    errors.WrongPassphrase: WRONG_PASSPHRASE,
    errors.ReadOnlyError: FAILED,
    errors.IntegrityError: DAMAGE,
    errors.ObjectDamaged: DAMAGE,
    errors.ChunkDamaged: DAMAGE,
    errors.FormatError: FAILED,
    errors.StoreError: FAILED,
    errors.StoreFull: FAILED,
    errors.ObjectExists: FAILED,
    errors.SessionError: BUSY,
    errors.RepositoryBusy: BUSY,
    errors.SessionFenced: BUSY,
    # Raised, a source error means that nothing was backed up; collected as a finding it is INCOMPLETE.
    errors.SourceError: FAILED,
    errors.SourceVanished: FAILED,
    errors.SourceChanged: FAILED,
    errors.TargetError: FAILED,
    errors.Interrupted: INTERRUPTED,
}
"""Every class of ``dedupstore.errors`` by name: a test fails when one is added there and not here."""


def status_of(error: DedupstoreError) -> int:
    """Return the exit status of a run that ended with ``error``; a plug-in's subclass counts as its base."""
    for kind in type(error).__mro__:
        if issubclass(kind, DedupstoreError) and kind in STATUS:
            return STATUS[kind]
    return FAILED


def status_of_findings(findings: Iterable[Finding]) -> int:
    """Return the exit status of a run that went through with ``findings``.

    Damage outweighs a target that could not be written, which outweighs a source that could not be read.
    """
    status = DONE
    for finding in findings:
        if isinstance(finding.error, errors.SourceError):
            status = status or INCOMPLETE
            continue
        found = status_of(finding.error)
        if found == DAMAGE:
            return DAMAGE
        status = FAILED
    return status
