"""From the options of ``snapshot`` to the source that it backs up."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dedupstore.errors import UsageError
from dedupstore.sources.base import Source
from dedupstore.sources.command.source import command_source, stdin_source
from dedupstore.sources.files.options import FilesOptions
from dedupstore.sources.files.scan import FilesSource

from .quantities import parse_size


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What the command line says about the source."""

    words: tuple[str, ...]
    """The positional arguments: paths, or the words of the command."""
    stdin: str | None = None
    command: str | None = None
    exclude: tuple[str, ...] = ()
    exclude_files: tuple[Path, ...] = ()
    exclude_caches: bool = False
    exclude_larger_than: str | None = None
    one_file_system: bool = False


def open_source(request: SourceRequest) -> Source:
    """Return the source that was asked for. Raises `UsageError` for options that make no sense together."""
    if request.stdin is not None and request.command is not None:
        raise UsageError("--stdin and --command contradict each other: give one of them")
    if request.stdin is not None or request.command is not None:
        return _stream(request)
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
    return FilesSource([os.path.abspath(os.fsencode(word)) for word in request.words], options)


def _stream(request: SourceRequest) -> Source:
    limits = (request.exclude, request.exclude_files, request.exclude_caches, request.exclude_larger_than)
    if any(limits) or request.one_file_system:
        raise UsageError(
            "there is nothing to exclude from a stream: leave --exclude… and --one-file-system out"
        )
    if request.command is not None:
        return command_source(os.fsencode(request.command), [os.fsencode(word) for word in request.words])
    if request.words:
        raise UsageError("with --stdin nothing else is backed up: leave the paths out, or run it twice")
    return stdin_source(os.fsencode(request.stdin or ""))


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
