"""What a restore is asked for and what it answers: values only."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from dedupstore.findings import Finding


class Overwrite(Enum):
    """What becomes of something that stands where the snapshot has a file.

    Folders are merged in every mode, and get the attributes they have in the snapshot. What has the
    same type, size and mtime as in the snapshot counts as restored already, in every mode but
    `NEVER`; its other attributes are set right.
    """

    ALWAYS = "always"
    """It is replaced. If size and mtime are the same, its content is read and compared first."""
    IF_CHANGED = "if-changed"
    """It is replaced if its type, size or mtime differs; the content is taken on trust."""
    IF_NEWER = "if-newer"
    """It is replaced if the snapshot's mtime is later."""
    NEVER = "never"
    """It stays."""
    KEEP_BOTH = "keep-both"
    """It stays, and ours lands beside it as ``name.restored-<time of the snapshot, UTC>``."""


class Action(Enum):
    """What was done, or in a dry run would be, at one path."""

    CREATE = "create"
    REPLACE = "replace"
    KEEP = "keep"
    DELETE = "delete"


Heard: TypeAlias = Callable[[Action, bytes], None]
"""Told each action and its path in the snapshot; from any thread, must return at once."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore."""

    include: tuple[str, ...] = ()
    """Patterns; if there are any, only what matches one, or lies in a folder that does."""
    exclude: tuple[str, ...] = ()
    """Patterns of what is left out, and not deleted either."""
    overwrite: Overwrite = Overwrite.ALWAYS
    delete: bool = False
    """Remove what the snapshot does not have from the folders that are restored."""
    dry_run: bool = False
    """Change nothing, say what would be done."""
    verify: bool = False
    """Read every restored file again and compare it with the chunk ids."""
    numeric_owner: bool = False
    """Take owners by number even if the name is known."""
    threads: int = 0
    """Packs read and files written at once; 0: as many as suit this machine."""


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What a restore did."""

    files: int
    """Written: everything that is not a folder."""
    bytes: int
    """Content of those, holes included."""
    skipped: int
    """Left as they were, because they were right already or the mode says so."""
    deleted: int
    seconds: float
    findings: tuple[Finding, ...]
    """The first `tally.FINDINGS_KEPT`; the reporter heard all."""
    failed: int = 0
    """How many findings there were."""
    incomplete: int = 0
    """Things whose owner or attributes could not all be set for lack of privileges."""
