"""The archive that ``mongo dump`` writes: a file that appears under its name when it is whole, or a pipe."""

import gzip
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import BinaryIO, cast

from dedupstore import __version__
from dedupstore.errors import TargetError, UsageError
from dedupstore.findings import Finding
from dedupstore.ops.export.archive import ArchiveOutlet
from dedupstore.sources.bson.collection import CollectionInfo

STDOUT = "-"
_LEVEL = 6
_SUFFIX = ".dstore-partial"


def check_archive_name(name: str) -> None:
    """Raise `UsageError` for what an archive can not be written to, before anything is read."""
    if not name:
        raise UsageError("--archive needs a name (an unset variable?): give a FILE, or - for standard output")
    if name == STDOUT and sys.stdout.isatty():
        raise UsageError("an archive is nothing for a terminal: give --archive FILE, or lead it into a pipe")
    if os.path.isdir(name):
        raise UsageError(f"{name} is a folder: give the name of a file, or use 'dstore restore --target'")


class ArchiveFile:
    """An archive and the file that it is written to; see `dedupstore.ops.export.export.Outlet`.

    What stands under its name already is replaced once the new archive is whole, and not before.
    """

    resilient = False

    def __init__(self, name: str, server_version: str, *, packed: bool) -> None:
        """``name`` may be `STDOUT`; ``packed``: as gzip. Raises `TargetError`."""
        self._name = name
        # Behind a link lies what is replaced; a pipe or a device has no name to take over.
        self._final = os.path.realpath(name)
        plain = not os.path.exists(name) or os.path.isfile(name)
        self._partial = self._final + _SUFFIX if name != STDOUT and plain else ""
        self._open = ExitStack()
        with self._writing():
            out = sys.stdout.buffer if name == STDOUT else self._open.enter_context(self._file())
        self._out = out
        if packed:
            # The name and the time in the header of a gzip file would be all that differs between two.
            wrapped = gzip.GzipFile("", "wb", _LEVEL, out, 0)
            out = cast(BinaryIO, self._open.enter_context(wrapped))
        self._archive = ArchiveOutlet(out, server_version, f"dstore {__version__}")

    def begin(self, infos: Sequence[CollectionInfo]) -> None:
        """Write what comes first."""
        with self._writing():
            self._archive.begin(infos)

    def after(self, info: CollectionInfo) -> bytes | None:
        """It is written from the start."""
        return self._archive.after(info)

    def collection(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        """Write one collection."""
        with self._writing():
            self._archive.collection(info, documents)

    def finish(self) -> Sequence[Finding]:
        """Write the end and give the file its name."""
        with self._writing():
            found = self._archive.finish()
            self._open.close()
            if self._name == STDOUT:
                self._out.flush()
            elif self._partial:
                os.rename(self._partial, self._final)
                self._partial = ""
        return found

    def close(self) -> None:
        """Drop what is not finished."""
        partial, self._partial = self._partial, ""
        with suppress(OSError):
            self._open.close()
        if partial:
            with suppress(OSError):
                os.unlink(partial)

    def _file(self) -> BinaryIO:
        return open(self._partial or self._name, "wb", buffering=1 << 20)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TargetError(
                f"the archive {self._name} can not be written: {error.strerror}; make room, or name another "
                "place",
                path=self._name,
            ) from error
