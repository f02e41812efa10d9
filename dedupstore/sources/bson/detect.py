"""Telling a dump of mongodump from any other folder, quickly: it is asked of every path that is given."""

import json
import os
import stat
import zlib
from contextlib import suppress
from itertools import islice

PACKED_SUFFIX = b".gz"
OPLOG = b"oplog.bson"
PRELUDE = b"prelude.json"

_DATA_SUFFIX, _METADATA_SUFFIX = b".bson", b".metadata.json"
_ENTRIES_MAX = 50_000
_PRELUDE_MAX = 65_536
_VERSION_FIELD = "ServerVersion"
_GZIP = 31  # zlib's word for it


def metadata_of(name: bytes) -> bytes:
    """Return what the metadata beside a file of documents is called; empty for any other file."""
    return name.removesuffix(_DATA_SUFFIX) + _METADATA_SUFFIX if name.endswith(_DATA_SUFFIX) else b""


def is_dump(path: bytes) -> bool:
    """Tell whether a folder is a dump; a symlink is none.

    It is if it has a prelude that names a server's version; or if it consists of folders alone (and perhaps
    the log), one of which holds documents with metadata beside them. Looks at `_ENTRIES_MAX` entries at most,
    some 50 ms; what can not be looked at is none.
    """
    with suppress(OSError, ValueError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return False
        if any(_is_prelude(os.path.join(path, name)) for name in (PRELUDE, PRELUDE + PACKED_SUFFIX)):
            return True
        left = _ENTRIES_MAX
        for folder in _folders(path):
            names = _names(folder, left)
            if any(name and name in names for name in map(metadata_of, names)):
                return True
            left -= len(names)
    return False


def _folders(path: bytes) -> list[bytes]:
    """Return the folders in a folder; none if there is anything else but the log."""
    found = []
    with os.scandir(path) as entries:
        for entry in islice(entries, _ENTRIES_MAX):
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.path)
            elif entry.name != OPLOG:
                return []
    return found


def _names(folder: bytes, most: int) -> set[bytes]:
    """Return the names in a folder, unpacked."""
    with suppress(OSError), os.scandir(folder) as entries:
        return {entry.name.removesuffix(PACKED_SUFFIX) for entry in islice(entries, most)}
    return set()


def _is_prelude(path: bytes) -> bool:
    with suppress(OSError, ValueError, RecursionError, zlib.error):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.read(fd, _PRELUDE_MAX) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            os.close(fd)
        if path.endswith(PACKED_SUFFIX):
            data = zlib.decompressobj(_GZIP).decompress(data, _PRELUDE_MAX)
        found = json.loads(data)
        return isinstance(found, dict) and _VERSION_FIELD in found
    return False
