"""What of a tree of files is included: the options of a files source, and what they come to."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dedupstore.findings import printable
from dedupstore.model import SourceSpec

KIND = "files"
_KEY_VERSION = b"dstore files v1"


@dataclass(frozen=True, slots=True)
class FilesOptions:
    """What is left out. All of it applies below the source paths, never to a source path itself."""

    exclude: tuple[bytes, ...] = ()
    """Patterns, as ``patterns.py`` reads them, in order: the last that matches decides."""
    exclude_caches: bool = False
    """Keep of a folder with a valid ``CACHEDIR.TAG`` only the folder and the tag."""
    exclude_larger_than: int | None = None
    """Leave out regular files of more bytes than this."""
    one_file_system: bool = False
    """Store folders on another device than their source path's as empty folders."""


def files_spec(paths: Sequence[bytes], options: FilesOptions) -> SourceSpec:
    """Return the source in words: only options that are set appear."""
    words = {}
    if options.exclude:
        words["exclude"] = "\n".join(printable(line) for line in options.exclude)
    if options.exclude_caches:
        words["exclude-caches"] = "yes"
    if options.exclude_larger_than is not None:
        words["exclude-larger-than"] = str(options.exclude_larger_than)
    if options.one_file_system:
        words["one-file-system"] = "yes"
    return SourceSpec(KIND, tuple(paths), words)


def files_key(paths: Sequence[bytes], options: FilesOptions) -> bytes:
    """Return 16 bytes that differ whenever another set of entries could be included."""
    state = hashlib.blake2b(_KEY_VERSION, digest_size=16)
    larger = options.exclude_larger_than
    flags = (options.exclude_caches, options.one_file_system, larger)
    for part in (repr(flags).encode(), b"paths", *paths, b"exclude", *options.exclude):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
