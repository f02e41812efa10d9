"""A mongodump folder as the outlet: ``prelude.json``, ``db/name.bson``, ``db/name.metadata.json``.

Every file is written under a temporary name and renamed when it is whole, so what stands there under its own
name is never half a collection. Folders are reached by descriptor, one plain name at a time and never
along a link: a hostile database name writes nothing outside the target. No fsync, as for any restore.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from dedupstore.errors import TargetError
from dedupstore.findings import Finding
from dedupstore.ops.export.names import check_db
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    PRELUDE,
    VIEW,
    CollectionInfo,
    file_name,
    metadata_json,
)

BUFFER = 1024 * 1024
"""Bytes gathered before they are written."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = b".dstore-partial"


class FolderOutlet:
    """Writes below ``folder``, which is made if it is not there. See `export.Outlet`. Memory: `BUFFER`."""

    resilient = True

    def __init__(self, folder: Path, prelude: bytes) -> None:
        """``prelude`` is the content of ``prelude.json``. Raises `TargetError`."""
        self._path = folder
        self._prelude = prelude
        self._open: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._failed("", error) from error

    def begin(self, infos: Sequence[CollectionInfo]) -> None:
        """Write the prelude."""
        del infos
        self._file(self._root, "", PRELUDE, iter([self._prelude]))

    def after(self, info: CollectionInfo) -> bytes | None:
        """Every file is written from the start."""
        del info
        return None

    def collection(self, info: CollectionInfo, documents: Iterator[bytes]) -> None:
        """Write one collection's two files; the documents first: metadata means whole data."""
        folder = self._database(info.db)
        stem = file_name(info.name)
        if info.kind != VIEW:
            self._file(folder, info.db, stem + DATA_SUFFIX, documents)
        self._file(folder, info.db, stem + METADATA_SUFFIX, iter([metadata_json(info)]))

    def finish(self) -> Sequence[Finding]:
        """Nothing is left to do."""
        return ()

    def close(self) -> None:
        """Close the folders."""
        for descriptor in [*self._open.values(), *([self._root] if self._root >= 0 else [])]:
            os.close(descriptor)
        self._open.clear()
        self._root = -1

    def _database(self, db: str) -> int:
        known = self._open.get(db)
        if known is not None:
            return known
        name = os.fsencode(check_db(db))
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o777, dir_fd=self._root)
            opened = os.open(name, _FOLDER, dir_fd=self._root)
        except OSError as error:
            raise self._failed(db, error) from error
        if len(self._open) >= 64:  # any number of databases, few descriptors
            os.close(self._open.pop(next(iter(self._open))))
        self._open[db] = opened
        return opened

    def _file(self, folder: int, db: str, name: bytes, parts: Iterator[bytes]) -> None:
        partial = name[:200] + _TEMPORARY
        try:
            with suppress(FileNotFoundError):
                os.unlink(partial, dir_fd=folder)
            with os.fdopen(os.open(partial, _NEW, 0o666, dir_fd=folder), "wb", buffering=BUFFER) as out:
                for part in parts:
                    out.write(part)
            os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise self._failed(f"{db}/{os.fsdecode(name)}", error) from error
        finally:
            with suppress(OSError):
                os.unlink(partial, dir_fd=folder)

    def _failed(self, what: str, error: OSError) -> TargetError:
        where = self._path / what
        return TargetError(
            f"{where} can not be written: {error.strerror}; make room or choose another --target",
            path=os.fspath(where),
        )
