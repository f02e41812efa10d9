"""From the options of ``snapshot`` to the source that it backs up."""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import UsageError
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult, back_up
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.base import Source
from dedupstore.sources.bson.detect import is_dump
from dedupstore.sources.command.source import command_source, stdin_source
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.scan import FilesSource

from .context import Front
from .quantities import parse_size

AS_FILES, AS_DUMP = "files", "dump"

Opener: TypeAlias = Callable[[Repository], Source]
"""Makes the source, once the repository that it goes into is open."""
Taker: TypeAlias = Callable[[Repository, BackupOptions, Reporter], BackupResult]
"""Takes the snapshot."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What the command line says about a server of MongoDB."""

    uri: str
    """As it was given."""
    db: str | None = None
    collection: str | None = None
    verify_source: bool = False
    dialect: str | None = None
    log: bool = True
    """Whether the log that a snapshot is made from is stored."""


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the command line says about the source."""

    words: tuple[str, ...]
    """The positional arguments: paths, or the words of the command."""
    stdin: str | None = None
    command: str | None = None
    archive: str | None = None
    mongo: "ServerRequest | None" = None
    taken_as: str | None = None
    """What the paths are: `AS_FILES`, `AS_DUMP`; ``None``: look."""
    exclude: tuple[str, ...] = ()
    exclude_files: tuple[Path, ...] = ()
    exclude_caches: bool = False
    exclude_larger_than: str | None = None
    one_file_system: bool = False
    temporary: Path | None = None
    """Folder for large temporary files."""


def server_request(
    uri: str | None,
    db: str | None,
    collection: str | None,
    dialect: str | None,
    *,
    verify_source: bool,
    log: bool,
) -> ServerRequest | None:
    """Return what is said of a server, if one is to be backed up. Raises `UsageError`."""
    if uri is None:
        if db is not None or collection is not None or verify_source or not log:
            raise UsageError(
                "--db, --collection, --no-log and --verify-source are of a server: name it by --mongo URI"
            )
        return None
    if verify_source and not log:
        raise UsageError("--verify-source compares by the log that is stored: leave --no-log out")
    return ServerRequest(uri, db, collection, verify_source, dialect, log)


def choose_taker(front: Front, request: SourceRequest) -> Taker:
    """Return what takes the snapshot. Raises `UsageError` for options that make no sense together."""
    if _stream_option(request) != "--mongo":
        opener = choose_source(request)
        return lambda repository, options, report: back_up(
            repository, opener(repository), options, report, SYSTEM_CLOCK
        )
    _check_stream(request, "--mongo")
    # The driver takes 300 ms to import.
    module = importlib.import_module(".serverbackup", __package__)
    taker: Taker = module.taker(front, request.mongo)
    return taker


def choose_source(request: SourceRequest) -> Opener:
    """Return what makes the source that was asked for, unless it is a server.

    Raises `UsageError` for options that make no sense together.
    """
    option = _stream_option(request)
    if option:
        return _stream(request, option)
    if not request.words:
        raise UsageError("nothing to back up was named: give a PATH, --stdin NAME or --command NAME -- CMD")
    if "" in request.words:
        raise UsageError("an empty PATH names nothing (an unset variable?): write . for the current folder")
    limit = request.exclude_larger_than
    options = FilesOptions(
        exclude=tuple(_patterns(request.exclude, request.exclude_files)),
        exclude_caches=request.exclude_caches,
        exclude_larger_than=None if limit is None else parse_size(limit),
        one_file_system=request.one_file_system,
    )
    paths = [os.path.abspath(os.fsencode(word)) for word in request.words]
    if request.taken_as not in {None, AS_FILES, AS_DUMP}:
        raise UsageError(
            f"--as {request.taken_as} is unknown: write {AS_FILES} or {AS_DUMP}, or leave it out"
        )
    if request.taken_as == AS_FILES or not (request.taken_as == AS_DUMP or all(map(is_dump, paths))):
        return _made(FilesSource(paths, options))
    return lambda repository: _later("dump_source", paths, options, repository, request.temporary)


def _stream_option(request: SourceRequest) -> str:
    """Return the option that names something else than files; empty if there is none."""
    streams = {
        "--stdin": request.stdin,
        "--command": request.command,
        "--archive": request.archive,
        "--mongo": request.mongo,
    }
    given = [name for name, value in streams.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other: give one of them")
    return given[0] if given else ""


def _check_stream(request: SourceRequest, option: str) -> None:
    limits = (request.exclude, request.exclude_files, request.exclude_caches, request.exclude_larger_than)
    if any(limits) or request.one_file_system or request.taken_as is not None:
        raise UsageError(
            f"with {option} there are no files: leave --exclude…, --one-file-system and --as out"
        )
    if request.words and request.command is None:
        raise UsageError(f"with {option} nothing else is backed up: leave the paths out, or run it twice")


def _stream(request: SourceRequest, option: str) -> Opener:
    _check_stream(request, option)
    if request.command is not None:
        words = [os.fsencode(word) for word in request.words]
        return _made(command_source(os.fsencode(request.command), words))
    if request.archive is not None:
        archive = os.fsencode(request.archive)
        if not archive:
            raise UsageError(
                "--archive needs a name (an unset variable?): give a FILE, or - for standard input"
            )
        return lambda repository: _later("archive_source", archive, repository, request.temporary)
    return _made(stdin_source(os.fsencode(request.stdin or "")))


def _made(source: Source) -> Opener:
    """Return an opener for what needs no repository; what is wrong with it was said before one is opened."""
    return lambda _: source


def _later(function: str, *arguments: object) -> Source:
    """Make a source of documents; what only these need is imported here, some 20 ms."""
    module = importlib.import_module(".dumps", __package__)
    source: Source = getattr(module, function)(*arguments)
    return source


def _patterns(patterns: Sequence[str], files: Sequence[Path]) -> list[bytes]:
    """Return the patterns of the command line, then those of each file: a line each, # begins a comment."""
    found = [os.fsencode(pattern) for pattern in patterns]
    for path in files:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"exclude file {path}: {error.strerror}; name a file that this user may read"
            ) from error
        lines = [line.rstrip(b"\r") for line in text.split(b"\n")]
        found += [line for line in lines if line.strip() and not line.startswith(b"#")]
    return found
