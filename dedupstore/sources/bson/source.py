"""Dumps of mongodump as sources: folders as they lie on disk, and archives taken apart into such folders."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import SourceError, SourceVanished
from dedupstore.findings import printable
from dedupstore.model import SourceSpec
from dedupstore.sources.bson.archive import Archive
from dedupstore.sources.bson.archivefolder import ArchiveFolder, archive_folder
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.folder import DumpFolder, DumpRules
from dedupstore.sources.files.failures import source_error
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.scan import FilesSource
from dedupstore.sources.owners import OwnedSource

KIND = "bson"
ARCHIVE_KIND = "archive"
_KEY_VERSION = b"dstore bson v1"


class DumpSource(OwnedSource):
    """The dumps under ``paths``, stored where they lie; see `dedupstore.sources.base.Source`.

    Files keep name, owner, mode and times. A collection that is in order of ``_id`` keeps its bytes, any
    other is stored in that order (a capped one is not); gzip is undone. What can not be read as documents is
    stored as it is, with a finding. ``temporary`` takes temporary files. Raises `UsageError` as `FilesSource`
    does.
    """

    all_or_nothing = False

    def __init__(
        self,
        paths: Sequence[bytes],
        leaves: Leaves,
        options: FilesOptions | None = None,
        *,
        temporary: Path | None = None,
    ) -> None:
        super().__init__()
        self._files = FilesSource(paths, options)
        found = self._files.spec
        self.spec = SourceSpec(KIND, found.paths, found.options)
        self.key = hashlib.blake2b(_KEY_VERSION + self._files.key, digest_size=16).digest()
        self._rules = DumpRules(frozenset(found.paths), leaves, temporary)

    @property
    def absent(self) -> Sequence[tuple[bytes, SourceError]]:
        """After `top`: source paths that are not there."""
        return self._files.absent

    def top(self) -> DumpFolder:
        """Return ``/``, or what leads to the dumps."""
        inner = self._files.top()
        return DumpFolder(inner, self._rules, inside=inner.path in self._rules.paths)

    def close(self) -> None:
        """Give back whatever is still open."""
        self._files.close()


class ArchiveSource(OwnedSource):
    """An archive as the dump folder that it stands for, whose root is ``/``.

    ``open_archive`` returns a descriptor, which is closed with the source; ``path`` names it. There is no
    snapshot of an archive that is damaged anywhere. One that has not changed since the last snapshot is not
    read. A pipe can be read once, so the source can then be walked once.
    """

    all_or_nothing = True
    absent: Sequence[tuple[bytes, SourceError]] = ()

    def __init__(
        self,
        path: bytes,
        open_archive: Callable[[], int],
        leaves: Leaves,
        *,
        temporary: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        self._path = path
        self._open = open_archive
        self._leaves = leaves
        self._temporary = temporary
        self._clock = clock
        self._fd = -1
        self._archive: Archive | None = None
        self.spec = SourceSpec(ARCHIVE_KIND, (b"/",), {"archive": printable(path)})
        self.key = hashlib.blake2b(_KEY_VERSION + b"archive" + path, digest_size=16).digest()

    def top(self) -> ArchiveFolder:
        """Open the archive and return its root. Raises `SourceError` if it is none."""
        self.close()
        try:
            self._fd = self._open()
        except FileNotFoundError as error:
            where = printable(self._path)
            raise SourceVanished(
                f"the archive {where} is not there: correct its name", path=self._path
            ) from error
        except OSError as error:
            raise source_error(error, self._path) from error
        self._archive = Archive(self._fd, printable(self._path), folder=self._temporary)
        status = os.fstat(self._fd)
        return archive_folder(self._archive, status, self._leaves, self._temporary, self._clock)

    def close(self) -> None:
        """Give back the descriptor and the temporary file; a second call does nothing."""
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def archive_file(
    path: bytes, leaves: Leaves, *, temporary: Path | None = None, clock: Clock = SYSTEM_CLOCK
) -> ArchiveSource:
    """Return the archive in a file as a source; the file is opened when it is read."""
    path = os.path.abspath(path)
    flags = os.O_RDONLY | os.O_CLOEXEC
    return ArchiveSource(path, lambda: os.open(path, flags), leaves, temporary=temporary, clock=clock)


def archive_stdin(
    leaves: Leaves, *, fd: int = 0, temporary: Path | None = None, clock: Clock = SYSTEM_CLOCK
) -> ArchiveSource:
    """Return the archive that comes in on a descriptor (standard input) as a source; it is not closed."""
    return ArchiveSource(b"-", lambda: os.dup(fd), leaves, temporary=temporary, clock=clock)
