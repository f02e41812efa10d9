"""From the paths a user gives to the tree of names that leads to them."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dedupstore.errors import SourceError, SourceVanished, UsageError
from dedupstore.findings import printable
from dedupstore.sources.files.failures import source_error


@dataclass(slots=True)
class Lead:
    """A folder on the way to source paths: its names that lead on, and whether it is one itself."""

    children: "dict[bytes, Lead]" = field(default_factory=dict)
    source: bool = False


@dataclass(slots=True)
class Leads:
    """Where a walk goes: the tree of names from ``/``, and what is not there."""

    top: Lead
    home: int
    """Device of the first path that is there."""
    absent: list[tuple[bytes, SourceError]]


def normal_paths(paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return paths absolute, without ``.``, ``..``, doubled slashes and repetitions, sorted.

    Purely lexical: symlinks stay as the user wrote them. Raises `UsageError` for an empty list, an
    empty path, or one with a NUL.
    """
    if not paths:
        raise UsageError("no path was given to back up: name at least one")
    normal = set()
    for path in paths:
        if not path or b"\0" in path:
            raise UsageError(f"{printable(path)!r} is not a path: leave it out")
        # POSIX lets two leading slashes mean something else, and so abspath() keeps them.
        normal.add(b"/" + os.path.abspath(path).lstrip(b"/"))
    return tuple(sorted(normal))


def outermost(paths: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return those of some normal paths that lie in no other."""
    return tuple(path for path in paths if not any(above in paths for above in _above(path)))


def make_leads(paths: Sequence[bytes]) -> Leads:
    """Look which of ``paths`` are there and return the tree of names that leads to them.

    Raises `SourceError` if none is, and `UsageError` if one lies beyond a symlink that another
    would store as a symlink.
    """
    leads = Leads(Lead(), 0, [])
    sources = frozenset(paths)
    found = 0
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError as error:
            leads.absent.append((path, _unreached(error, path)))
            continue
        if not found:
            leads.home = status.st_dev
        found += 1
        _refuse_symlink_between(path, sources)
        at = leads.top
        for name in path.split(b"/"):
            if name:
                at = at.children.setdefault(name, Lead())
        at.source = True
    if not found:
        names = ", ".join(printable(path) for path, _ in leads.absent)
        raise SourceError(
            f"nothing to back up, for none of these could be reached: {names}; check the paths",
            paths=tuple(path for path, _ in leads.absent),
        ) from leads.absent[0][1]
    return leads


def _unreached(error: OSError, path: bytes) -> SourceError:
    """Return the finding for a source path; one that is not there was perhaps never there."""
    if error.errno != errno.ENOENT:
        return source_error(error, path)
    return SourceVanished(
        f"{printable(path)} is not there: correct the path, or leave it out", path=path, errno=error.errno
    )


def _above(path: bytes) -> Iterator[bytes]:
    """Yield the folders above an absolute path, ``/`` first."""
    if path == b"/":
        return
    yield b"/"
    end = path.find(b"/", 1)
    while end > 0:
        yield path[:end]
        end = path.find(b"/", end + 1)


def _refuse_symlink_between(path: bytes, sources: frozenset[bytes]) -> None:
    inside = None
    for folder in _above(path):
        if folder in sources:
            inside = folder
        if inside is not None and stat.S_ISLNK(os.lstat(folder).st_mode):
            raise UsageError(
                f"{printable(path)} lies beyond the symlink {printable(folder)}, which {printable(inside)} "
                f"stores as a symlink: name {printable(os.path.realpath(path))} instead",
                path=path,
            )
