"""Sources that hold documents of MongoDB; imported where one is wanted and not before."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.stored import StoredDump
from dedupstore.errors import IntegrityError, NotFoundError
from dedupstore.repository.repository import Repository
from dedupstore.sources.base import Source
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.source import ARCHIVE_KIND, KIND, DumpSource, archive_file, archive_stdin
from dedupstore.sources.files.options import FilesOptions

STDIN = b"-"
_KINDS = (KIND, ARCHIVE_KIND, "mongo")


def dump_source(
    paths: Sequence[bytes], options: FilesOptions, repository: Repository, temporary: Path | None
) -> Source:
    """Return dump folders as a source."""
    return DumpSource(paths, _leaves(repository, KIND, tuple(paths)), options, temporary=temporary)


def archive_source(path: bytes, repository: Repository, temporary: Path | None) -> Source:
    """Return an archive as a source; `STDIN` is the one that comes in on standard input."""
    leaves = _leaves(repository, ARCHIVE_KIND, (b"/",))
    if path == STDIN:
        return archive_stdin(leaves, temporary=temporary)
    return archive_file(path, leaves, temporary=temporary)


def _leaves(repository: Repository, kind: str, paths: tuple[bytes, ...]) -> Leaves:
    """Return how collections are cut: as in the last snapshot, which is looked at only if need be."""

    @cache
    def before() -> Leaves:
        return leaves_of(repository, _last(repository, kind, paths))

    def k_of(info: CollectionInfo) -> int | None:
        return before().k_of(info)

    return replace(leaves_of(repository), k_of=k_of)


def _last(repository: Repository, kind: str, paths: tuple[bytes, ...]) -> StoredDump | None:
    """Return the last snapshot of the same source, or else of any that has collections."""
    found = [snapshot for _, snapshot in repository.snapshots() if snapshot.source.kind in _KINDS]
    alike = [snapshot for snapshot in found if (snapshot.source.kind, snapshot.source.paths) == (kind, paths)]
    for snapshot in (alike or found)[-1:]:
        with suppress(
            NotFoundError, IntegrityError
        ):  # then leaves are chosen anew: no more is lost than that
            return StoredDump(repository, snapshot)
    return None
