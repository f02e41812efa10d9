"""How the source of a snapshot is shown in one cell of a table."""

from collections.abc import Sequence

from dedupstore.model import SourceSpec
from dedupstore.tree.select import Entry, source_key

from .context import SLICES
from .render import path_shown


def source_shown(spec: SourceSpec) -> str:
    """Return what was backed up: paths, or what a server, a log or an archive is called."""
    server = spec.options.get("uri", "")
    if spec.kind == SLICES:
        return f"log of {spec.options.get('set') or server}"
    if server:
        return " ".join(word for word in (server, spec.options.get("only", "").replace("\0", " ")) if word)
    archive = spec.options.get("archive")
    return f"archive {archive}" if archive else " ".join(map(path_shown, spec.paths))


def without_older_slices(entries: Sequence[Entry]) -> list[Entry]:
    """Leave out snapshots of slices that the next one of the same log holds as well."""
    last = {_log(entry): entry[0] for entry in entries if entry[1].source.kind == SLICES}
    return [entry for entry in entries if entry[1].source.kind != SLICES or last[_log(entry)] == entry[0]]


def _log(entry: Entry) -> tuple[object, ...]:
    return (*source_key(entry[1]), *sorted(entry[1].source.options.items()))
