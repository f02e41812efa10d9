"""Small repositories for tests, and a plain way to read back what a snapshot holds."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from dedupstore.chunker.base import Params
from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.format.chunklist import decode_list_page, iter_entries, iter_refs
from dedupstore.format.config import ChunkerConfig, Epoch, RepoConfig
from dedupstore.format.keys import KeyFile
from dedupstore.ids import HOLE, ChunkId, SnapshotId, TreeId
from dedupstore.model import Node, NodeKind, Snapshot, SourceSpec, Statistics
from dedupstore.objectstore.base import ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult, back_up
from dedupstore.progress import NullReporter
from dedupstore.repository import keyring
from dedupstore.repository.repository import Repository
from dedupstore.repository.segments import read_segment
from dedupstore.sources.base import Source
from dedupstore.tree.walk import nodes_of

KEY = KeyFile(b"k" * 32)
ROOT_KEY = b"r" * 32
AVERAGE = 4096
OPTIONS = BackupOptions(host="host", user="user", workers=2)


def small_config(**changes: object) -> RepoConfig:
    """A repository of small chunks, records and packs, so that little data makes several of each."""
    p = Params.for_average(AVERAGE)
    values: dict[str, object] = {
        "id": SYSTEM_CLOCK.random(16),
        "cipher": 1,
        "chunker": ChunkerConfig(p.min_size, p.normal, p.max_size, p.strict, p.loose),
        "created": SYSTEM_CLOCK.now(),
        "epochs": (Epoch(1, SYSTEM_CLOCK.random(32)),),
        "compression": "lz4",
        "pack_size": 1 << 20,
        "record_size": 64 << 10,
    }
    return RepoConfig(**(values | changes))  # type: ignore[arg-type]


def create(
    store: ObjectStore, cache: Path, *, config: RepoConfig | None = None, clock: Clock = SYSTEM_CLOCK
) -> Repository:
    config = config or small_config()
    return keyring.create(store, KEY, config, ROOT_KEY, cache=cache, label="test", clock=clock)[0]


def reopen(store: ObjectStore, cache: Path, *, clock: Clock = SYSTEM_CLOCK) -> Repository:
    return keyring.unlock(store, KEY, cache=cache, clock=clock)[0]


def prepared(cache: Path, **changes: object) -> MemoryStore:
    """An empty repository in a memory store."""
    store = MemoryStore()
    create(store, cache, config=small_config(**changes)).close()
    return store


def run(repo: Repository, source: Source, options: BackupOptions = OPTIONS) -> BackupResult:
    return back_up(repo, source, options, NullReporter(), repo.clock)


def blank_snapshot(root: TreeId, *, sequence: int = 1, parent: SnapshotId | None = None) -> Snapshot:
    return Snapshot(
        root=root,
        time=SYSTEM_CLOCK.now() + timedelta(seconds=sequence),
        host="host",
        user="user",
        source=SourceSpec("files", (b"/",)),
        parent=parent,
        tags=frozenset(),
        sequence=sequence,
        statistics=Statistics(),
    )


def walk(repo: Repository, root: TreeId, above: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    for node in nodes_of(repo.load_page, root):
        path = above + b"/" + node.name
        yield path, node
        if node.kind == NodeKind.DIR:
            assert node.subtree is not None
            yield from walk(repo, TreeId(ChunkId(node.subtree)), path)


def entries(repo: Repository, node: Node) -> Iterator[tuple[ChunkId, int]]:
    if node.depth == 0:
        yield from iter_entries(node.content)
        return
    below = [TreeId(ChunkId(node.content))]
    for depth in range(node.depth, 0, -1):
        pages = [decode_list_page(repo.load_tree(page)) for page in below]
        if depth == 1:
            for page in pages:
                yield from iter_entries(page.entries)
        below = [TreeId(ChunkId(i)) for page in pages if page.level for i, _ in iter_refs(page.entries)]


def content(repo: Repository, node: Node) -> bytes:
    wanted = list(entries(repo, node))
    found = dict(repo.read(sorted({chunk for chunk, _ in wanted if chunk != HOLE})))
    parts = []
    for chunk, size in wanted:
        data = bytes(size) if chunk == HOLE else bytes(found[chunk])
        assert len(data) == size
        parts.append(data)
    whole = b"".join(parts)
    assert len(whole) == node.size
    return whole


def files_in(repo: Repository, snapshot: Snapshot, below: bytes = b"") -> dict[bytes, bytes | None]:
    """Every path under ``below`` with its content; folders are ``None``, symlinks their target."""
    found: dict[bytes, bytes | None] = {}
    for path, node in walk(repo, snapshot.root):
        if not path.startswith(below + b"/"):
            continue
        if node.kind == NodeKind.DIR:
            found[path[len(below) :]] = None
        elif node.kind == NodeKind.SYMLINK:
            found[path[len(below) :]] = node.target
        else:
            found[path[len(below) :]] = content(repo, node)
    return found


def names(store: ObjectStore, kind: ObjectKind) -> set[str]:
    return {info.key.name for info in store.listing(kind)}


def packs_in_segments(repo: Repository) -> set[bytes]:
    """Every pack that some index segment in the store lists."""
    return {
        pack.id
        for name in names(repo.store, ObjectKind.INDEX)
        for pack in read_segment(repo.store, repo.keychain, name)
    }
