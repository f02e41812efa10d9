"""Files as a source: one or more paths of this machine, walked folder by folder."""

from collections.abc import Sequence

from dedupstore.errors import SourceError
from dedupstore.model import SourceSpec
from dedupstore.sources.files.folder import FileFolder, LeadFolder, Rules
from dedupstore.sources.files.handles import HandlePool
from dedupstore.sources.files.leads import make_leads, normal_paths, outermost
from dedupstore.sources.files.listing import Lister, make_lister
from dedupstore.sources.files.options import FilesOptions, files_key, files_spec
from dedupstore.sources.owners import OwnedSource
from dedupstore.sources.patterns import PatternSet


class FilesSource(OwnedSource):
    """The files under ``paths``; see `dedupstore.sources.base.Source`.

    Paths are taken as written and made absolute without looking at the disk. A symlink above a source
    path is followed; a source path that is one itself is stored as one. A path inside another is part
    of it. At most ``open_folders`` folders are kept open at once. Raises `UsageError` for paths or
    patterns that make no sense.
    """

    all_or_nothing = False

    def __init__(
        self,
        paths: Sequence[bytes],
        options: FilesOptions | None = None,
        *,
        lister: Lister | None = None,
        open_folders: int = 256,
    ) -> None:
        super().__init__()
        options = options or FilesOptions()
        self._given = normal_paths(paths)
        # Where something may be left out, a path inside another can be what brings it back.
        selective = options != FilesOptions()
        self._paths = self._given if selective else outermost(self._given)
        self._options = options
        self._patterns = PatternSet(options.exclude, self._paths)
        self._lister = lister or make_lister()
        self._pool = HandlePool(open_folders)
        self._absent: list[tuple[bytes, SourceError]] = []
        self._key = files_key(self._paths, options)

    @property
    def spec(self) -> SourceSpec:
        """The paths and the options that are set."""
        return files_spec(self._paths, self._options)

    @property
    def key(self) -> bytes:
        """Hash of the paths and every option."""
        return self._key

    @property
    def absent(self) -> Sequence[tuple[bytes, SourceError]]:
        """After `top`: source paths that are not there."""
        return self._absent

    def top(self) -> FileFolder:
        """Return ``/``: the real one if it is a source path, else what leads to the source paths."""
        leads = make_leads(self._given)
        self._absent = leads.absent
        rules = Rules(self._options, self._patterns, self._lister, leads.home)
        handle = self._pool.root(b"/")
        if leads.top.source:
            return FileFolder(rules, handle, lead=leads.top, device=None)
        return LeadFolder(rules, handle, lead=leads.top)

    def close(self) -> None:
        """Give back whatever is still open."""
        self._pool.close()
