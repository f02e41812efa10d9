"""What ``restore`` does with collections: into a dump folder, or into a server; imported for that alone."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dedupstore import __version__
from dedupstore.documents.timeline import Timeline, lineage, span
from dedupstore.errors import UsageError
from dedupstore.ops.export.export import Outlet
from dedupstore.ops.export.folder import FolderOutlet
from dedupstore.ops.export.prelude import version_in
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import prelude_json
from dedupstore.tree.select import Entry

from .context import Front, Wanted, named_folder
from .exporting import ExportRequest, OutletFor, run_export
from .mongouri import mongo_uri
from .views import Asked, Seen


@dataclass(frozen=True, slots=True)
class DocumentWords:
    """What the command line says of collections."""

    target: str | None = None
    to_mongo: str | None = None
    before_op: bool = False
    server: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    existing: str | None = None
    resume: bool = False
    dry_run: bool = False

    @property
    def of_what(self) -> str:
        """What of a view is wanted and under which names, in words that are equal where it is the same."""
        return repr((self.include, self.exclude, self.rename, self.ids))


def restore_documents(front: Front, repository: Repository, wanted: Wanted, words: DocumentWords) -> int:
    """Restore collections and return the exit status."""
    if wanted.paths:
        raise UsageError(
            "collections are named by --include database.collection, not by a path: leave the path out"
        )
    look: OutletFor | None = None
    if words.to_mongo is not None:
        uri = mongo_uri(words.to_mongo)
        existing = words.existing or ("replace" if words.ids else "refuse")
        load = importlib.import_module(".liveservers", __package__).Load(
            front, uri, existing, words.resume, words.of_what
        )
        outlet_for, where, look = load.outlet, load.where, partial(load.outlet, look=True)
    else:
        folder = named_folder(words.target or "")
        outlet_for, where = partial(_folder, folder), str(folder)
    request = ExportRequest(
        Asked(wanted, words.before_op, words.server),
        where,
        words.include,
        words.exclude,
        words.rename,
        words.ids,
        words.dry_run,
    )
    return run_export(front, repository, request, outlet_for, look)


def has_log(repository: Repository, entries: Sequence[Entry], entry: Entry) -> bool:
    """Say whether slices of the log are stored of the server that a snapshot is of."""
    name = lineage(entry[1].source)
    return bool(Timeline(repository, [one for one in entries if lineage(one[1].source) == name]).slices)


def warning(entry: Entry) -> str | None:
    """Return what to say when a server's snapshot is restored as files although it needs its log."""
    ends = span(entry[1])
    if ends is None or ends.exact:
        return None
    return (
        "this snapshot was read while the server went on, and oplog.bson beside its collections holds what "
        f"happened meanwhile: 'mongorestore --oplogReplay' applies it, and so does --at {ends.end.ts} here"
    )


def _folder(folder: Path, repository: Repository, seen: Seen) -> Outlet:
    prelude = prelude_json(version_in(repository, seen.snapshot), f"dstore {__version__}")
    return FolderOutlet(folder, prelude)
