"""From what a user wrote to an open store: ``/srv/backup``, ``file:///srv/backup``, or a plug-in's URL.

Store modules are imported when one of their URLs is opened, so that a command pays only for the store
it uses. A plug-in names its schemes as entry points in the group ``dedupstore.stores``; each points to
a function ``(url: str, create: bool) -> ObjectStore``. Built-in schemes can not be taken over.
"""

import importlib
import re
from collections.abc import Callable
from typing import TypeAlias, cast

from dedupstore.errors import UsageError
from dedupstore.objectstore.base import ObjectStore

ENTRY_POINT_GROUP = "dedupstore.stores"

Opener: TypeAlias = Callable[[str, bool], ObjectStore]
"""Takes the URL (or path) and whether the place is to be made; without, it touches nothing."""

_BUILT_IN = {"file": "dedupstore.objectstore.local:open_folder"}
_FOLDERS_ONLY = frozenset({"s3", "gs", "az", "sftp"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?").match


def open_store(url: str, *, create: bool = False) -> ObjectStore:
    """Return the store that ``url`` names; a path is a ``file`` URL. Close it after use.

    With ``create`` the place is made first: its folder must be absent or empty. Without, nothing is
    touched, and a place that is not there shows at the first read.
    Raises `UsageError` for a URL nobody understands; with ``create`` what `LocalStore.create` raises.
    """
    scheme = _scheme(url)
    if scheme in _BUILT_IN:
        module, _, function = _BUILT_IN[scheme].partition(":")
        opener = cast(Opener, getattr(importlib.import_module(module), function))
        return opener(url, create)
    metadata = importlib.import_module("importlib.metadata")  # 10 ms that folders need not pay
    plugins = {point.name: point for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}
    if scheme in plugins:
        return cast(Opener, plugins[scheme].load())(url, create)
    if scheme in _FOLDERS_ONLY:
        raise UsageError(
            f"{scheme} is not supported: this version has local folders only; give a path or file:// URL",
            url=url,
        )
    known = ", ".join(sorted({*_BUILT_IN, *plugins}))
    raise UsageError(f"nobody here opens {scheme}:// URLs: give a path, or one of {known}", url=url)


def _scheme(url: str) -> str:
    """Return the scheme; ``file`` for a path, which may hold a colon if no known word is before it."""
    found = _SCHEME(url)
    if found is None:
        return "file"
    scheme, slashes = found[1].lower(), found[2]
    # Other tools write s3:host/bucket. Taken for a path, a backup would land in a folder of that name.
    if slashes or scheme in _FOLDERS_ONLY or scheme in _BUILT_IN:
        return scheme
    return "file"
