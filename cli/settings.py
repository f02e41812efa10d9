"""What the user said: the global options and the environment, before anything is opened.

The only module of the program that looks at environment variables; nothing under ``dedupstore`` does.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from dedupstore.errors import UsageError

_META = "dstore.global-options"


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options with the environment filled in."""

    repository: str | None = None
    password_file: Path | None = None
    password_command: str | None = None
    key_file: Path | None = None
    cache: Path = Path()
    """Folder that holds the caches of all repositories; made when something is first kept there."""
    temporary: Path = Path()
    """Folder for large temporary files: TMPDIR if that is set, or else that of the caches."""
    json: bool = False
    quiet: bool = False
    color: bool = True

    def repository_url(self) -> str:
        """Return where the repository is; raises `UsageError` if nothing says so."""
        if not self.repository:
            raise UsageError("no repository was named: give --repo PATH or set DSTORE_REPO")
        return self.repository


def remember(ctx: typer.Context, options: Mapping[str, object]) -> None:
    """Keep global options that were given at some level of the command line; the innermost wins."""
    kept: dict[str, object] = ctx.meta.setdefault(_META, {})
    kept.update((name, value) for name, value in options.items() if value is not None)


def settings_of(ctx: typer.Context, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this run: options first, then ``environ``."""
    given: dict[str, object] = ctx.meta.get(_META, {})
    repository = given.get("repo") or environ.get("DSTORE_REPO") or None
    kept = given.get("cache_dir")
    cache = Path(str(kept)) if kept else cache_folder(environ)
    return Settings(
        repository=str(repository) if repository else None,
        password_file=_path(given.get("password_file")),
        password_command=str(given["password_command"]) if given.get("password_command") else None,
        key_file=_path(given.get("key_file")),
        cache=cache,
        temporary=Path(environ.get("TMPDIR") or cache),
        json=bool(given.get("json")),
        quiet=bool(given.get("quiet")),
        color=not given.get("no_color") and not environ.get("NO_COLOR"),
    )


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for caches by the XDG rules: an absolute XDG_CACHE_HOME, or ``~/.cache``."""
    base = environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "dstore"


def _path(value: object) -> Path | None:
    return None if value is None else Path(str(value))
