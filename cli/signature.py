"""What a backup says of whoever runs it."""

from collections.abc import Iterable

from dedupstore import __version__
from dedupstore.ops.backup.archiver import BackupOptions

from .whoami import host_name, user_name


def signed(host: str | None, tags: Iterable[str] | None) -> BackupOptions:
    """Return the options of a backup that say who runs it, where (or on ``host``) and with what tags."""
    return BackupOptions(
        host=host or host_name(),
        user=user_name(),
        tags=frozenset(tags or ()),
        program=f"dstore {__version__}",
    )
