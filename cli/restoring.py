"""What a ``restore`` is of: files, or collections as they were; what the latter needs is imported then."""

import importlib
import re
from dataclasses import dataclass
from types import ModuleType

from dedupstore.errors import UsageError
from dedupstore.ops.restore.request import Overwrite, RestoreOptions
from dedupstore.repository.repository import Repository
from dedupstore.tree.select import Entry

from .context import Front, Wanted, named_folder
from .exitcodes import status_of_findings
from .filerestore import restore_files

_SERVER = "mongo"
_DUMPS = (_SERVER, "archive")
"""Kinds of snapshots whose root is the folder of a dump."""
_OPERATION = re.compile(r"\s*\d{3,10}:\d{1,10}\s*")
_FILES = (".bson", ".json", ".gz")


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What the command line says."""

    wanted: Wanted
    target: str | None
    to_mongo: str | None
    options: RestoreOptions
    before_op: bool = False
    server: str | None = None
    rename: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    existing: str | None = None
    resume: bool = False

    @property
    def of_documents(self) -> bool:
        """Whether the words make sense for collections only."""
        words = (self.before_op, self.server, self.rename, self.ids, self.to_mongo is not None)
        return any(words) or _OPERATION.fullmatch(self.wanted.at or "") is not None


def run_restore(front: Front, request: RestoreRequest) -> int:
    """Do it and return the exit status. Raises `UsageError` for words that contradict each other."""
    if request.target is None and request.to_mongo is None:
        raise UsageError("where to? Give --target DIR, or --to-mongo URI for collections")
    if request.target is not None and request.to_mongo is not None:
        raise UsageError("--target and --to-mongo contradict each other: give one of them")
    if request.to_mongo is None and (request.existing is not None or request.resume):
        raise UsageError("--existing and --resume are for --to-mongo: leave them out")
    folder = None if request.target is None else named_folder(request.target)
    with front.repository() as repository:
        if request.of_documents or folder is None:
            return _documents(front, repository, request)
        entry = front.pick(repository, request.wanted)
        if _means_documents(front, repository, request, entry):
            return _documents(front, repository, request)
        findings = restore_files(front, repository, entry, folder, request.wanted.paths, request.options)
        return status_of_findings([*front.doubts(repository, request.wanted), *findings])


def _means_documents(front: Front, repository: Repository, request: RestoreRequest, entry: Entry) -> bool:
    """Say whether a plain restore is of collections, going by the snapshot that it is of."""
    kind = entry[1].source.kind
    options = request.options
    patterns = (*options.include, *options.exclude)
    if kind in _DUMPS and patterns and all(map(_names_collection, patterns)):
        return True
    if kind != _SERVER:
        return False
    module = _module()
    if request.wanted.at is not None and module.has_log(repository, repository.snapshots(), entry):
        return True
    warning = module.warning(entry)
    if warning is not None:
        front.say(warning)
    return False


def _names_collection(pattern: str) -> bool:
    return "/" not in pattern and "." in pattern and not pattern.endswith(_FILES)


def _documents(front: Front, repository: Repository, request: RestoreRequest) -> int:
    options = request.options
    for_files = {
        "--overwrite": options.overwrite is not Overwrite.ALWAYS,
        "--delete": options.delete,
        "--verify": options.verify,
        "--numeric-owner": options.numeric_owner,
    }
    given = [name for name, is_given in for_files.items() if is_given]
    if given:
        raise UsageError(f"this restores collections and {' and '.join(given)} is for files: leave it out")
    module = _module()
    words = module.DocumentWords(
        target=request.target,
        to_mongo=request.to_mongo,
        before_op=request.before_op,
        server=request.server,
        include=options.include,
        exclude=options.exclude,
        rename=request.rename,
        ids=request.ids,
        existing=request.existing,
        resume=request.resume,
        dry_run=options.dry_run,
    )
    status: int = module.restore_documents(front, repository, request.wanted, words)
    return status


def _module() -> ModuleType:
    return importlib.import_module(".docrestore", __package__)
