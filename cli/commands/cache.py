"""``dstore cache``."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from dedupstore.errors import NotFoundError, ObjectNotFound, RepositoryBusy
from dedupstore.findings import Finding
from dedupstore.format.config import read_config_header
from dedupstore.ids import short
from dedupstore.objectstore.base import CONFIG_KEY
from dedupstore.objectstore.url import open_store
from dedupstore.repository.index import LocalIndex
from dedupstore.repository.indexfolder import CacheFolder
from dedupstore.repository.indexrows import CacheSizes
from dedupstore.repository.segments import rebuild_from_packs

from ..context import Front, no_repository
from ..exitcodes import status_of_findings
from ..progress import progress_for
from ..render import Column, size_shown
from ..tuning import tune


def info(ctx: typer.Context) -> None:
    """Show where the cache of this repository is and what is in it."""
    front = Front.of(ctx)
    repository, path = _place(front)
    sizes: CacheSizes | None = None
    try:
        with LocalIndex.open(path, repository, readonly=True) as index:
            sizes = index.sizes()
    except NotFoundError as error:
        front.say(str(error))
    counts = {} if sizes is None else _counts(sizes)
    size = 0 if sizes is None else sizes.file_bytes
    front.output.document({"path": str(path), "bytes": size, **counts})
    rows = [("path", str(path)), ("size", size_shown(size))]
    rows += [(name.replace("_", " "), str(count)) for name, count in counts.items()]
    front.output.table([Column("cache"), Column("")], rows)


def rebuild(
    ctx: typer.Context,
    from_packs: Annotated[
        bool, typer.Option("--from-packs", help="Ask every pack itself; for a damaged index.")
    ] = False,
) -> int:
    """Read the index of the repository anew."""
    front = Front.of(ctx)
    tune()
    findings: list[Finding] = []
    with front.repository() as repository, progress_for(front.output) as report:
        index = repository.index
        index.clear()
        if from_packs:
            damaged = rebuild_from_packs(repository.store, repository.keychain, index, report)
            findings = [Finding(f"packs/{short(pack)}", error) for pack, error in damaged]
        else:
            repository.sync(report)
        counts = _counts(index.sizes())
    front.output.event("summary", {**counts, "findings": len(findings)})
    front.output.remark(f"{counts['packs']} packs with {counts['chunks']} chunks are known")
    return status_of_findings(findings)


def clear(ctx: typer.Context) -> None:
    """Remove the cache of this repository; it is made anew when it is needed.

    The next run of 'snapshot' then reads every file again, and stores only what is new.
    """
    front = Front.of(ctx)
    _, path = _place(front)
    folder = CacheFolder(path)
    size = 0
    if path.exists():
        if not folder.enter():
            folder.leave()
            raise RepositoryBusy(f"another dstore uses the cache in {path}: wait until it has ended")
        try:
            size = folder.size_on_disk() if folder.data.exists() else 0
            folder.wipe()
        finally:
            folder.leave()
    front.output.document({"path": str(path), "bytes_freed": size})
    front.output.line(f"{path}: {size_shown(size)} freed")


SUBCOMMANDS: dict[str, Callable[..., object]] = {"info": info, "rebuild": rebuild, "clear": clear}


def _place(front: Front) -> tuple[bytes, Path]:
    """Return the repository's id and its cache folder; no key is needed for that."""
    url = front.settings.repository_url()
    with closing(open_store(url)) as store:
        try:
            identifier = read_config_header(store.get(CONFIG_KEY)).repo_id
        except ObjectNotFound as error:
            raise no_repository(url) from error
    return identifier, front.settings.cache / identifier.hex()


def _counts(sizes: CacheSizes) -> dict[str, int]:
    names = ("snapshots", "segments", "packs", "chunks", "tree_records", "folders")
    return {name: getattr(sizes, name) for name in names}
