"""``dstore version``."""

import platform
from importlib import metadata

import typer

from dedupstore import __version__
from dedupstore.chunker.base import kernel_name
from dedupstore.sources.files.listing import make_lister

from ..render import Column, Output
from ..settings import settings_of

LIBRARIES = ("blake3", "lmdb", "lz4", "msgspec", "numpy", "pynacl", "rich", "typer", "zstandard")


def run(ctx: typer.Context) -> None:
    """Show versions and the machine code in use."""
    settings = settings_of(ctx)
    output = Output(settings.json, settings.quiet, settings.color)
    libraries = {name: _version(name) for name in LIBRARIES}
    answer = {
        "dstore": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "chunker": kernel_name(),
        "folder_reader": make_lister().name,
        "libraries": libraries,
    }
    output.document(answer)
    rows = [(name, value) for name, value in answer.items() if isinstance(value, str)]
    rows += [(name, value or "not installed") for name, value in libraries.items()]
    output.table([Column("part"), Column("version")], rows)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
