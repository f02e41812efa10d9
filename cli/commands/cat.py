"""``dstore cat``."""

from collections.abc import Iterator

import typer

from dedupstore.errors import UsageError
from dedupstore.format.chunklist import ListPage, decode_list_page
from dedupstore.ids import HOLE, ChunkId, TreeId
from dedupstore.model import Data, Node, NodeKind
from dedupstore.repository.repository import Repository
from dedupstore.tree.walk import entries_of, lookup

from ..context import Front, Wanted, split_arguments, taken
from ..entries import KIND_NAMES
from ..exitcodes import status_of_findings
from ..options import At, Host, SnapshotAndPath, Tags
from ..render import path_shown

BATCH_SIZE = 16 * 1024 * 1024
"""Bytes of chunks that are asked for together, so that one pack is read once for neighbours."""
ZEROS = bytes(1024 * 1024)


def run(
    ctx: typer.Context,
    what: SnapshotAndPath = None,
    at: At = None,
    host: Host = None,
    tag: Tags = None,
) -> int:
    """Write a file from a snapshot to standard output."""
    front = Front.of(ctx)
    text, paths = split_arguments(what or ())
    if len(paths) != 1:
        raise UsageError("cat writes one file: give its path from the root, as it was at the source")
    with front.repository() as repository:
        repository.sync()
        wanted = Wanted(text, at, host, tuple(tag or ()), paths)
        identifier, snapshot = front.pick(repository, wanted)
        front.say(taken(identifier, snapshot))
        node = lookup(repository.load_page, snapshot.root, paths[0])
        if node.kind not in {NodeKind.FILE, NodeKind.STREAM}:
            kind = KIND_NAMES.get(node.kind, "unknown")
            raise UsageError(f"{path_shown(paths[0])} is no file but a {kind}: 'dstore ls' shows it")
        for piece in _content(repository, node):
            front.output.raw(piece)
        return status_of_findings(front.doubts(repository, wanted))


def _content(repository: Repository, node: Node) -> Iterator[Data]:
    """Yield a file's bytes in order. Memory: `BATCH_SIZE` and one chunk."""

    def load(page: TreeId) -> ListPage:
        return decode_list_page(repository.load_tree(page))

    batch: list[tuple[ChunkId, int]] = []
    held = 0
    for chunk, size in entries_of(load, node):
        if chunk == HOLE:
            yield from _read(repository, batch)
            batch, held = [], 0
            for start in range(0, size, len(ZEROS)):
                yield ZEROS[: size - start]
            continue
        batch.append((chunk, size))
        held += size
        if held >= BATCH_SIZE:
            yield from _read(repository, batch)
            batch, held = [], 0
    yield from _read(repository, batch)


def _read(repository: Repository, batch: list[tuple[ChunkId, int]]) -> Iterator[Data]:
    found = dict(repository.read(list({chunk for chunk, _ in batch})))
    for chunk, _ in batch:
        yield found[chunk]
