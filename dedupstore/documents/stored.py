"""Collections as they lie in one snapshot: a live read, an archive, a dump folder somebody backed up.

A folder with ``*.metadata.json`` or with streams that say so of themselves is a database, wherever it stands;
its name is the database's. A collection in order of ``_id`` is found through by label, so one document costs
one page a level and one leaf; any other one is read through.

Threads: any. Memory: the entries of the database folders; reading, see `reading`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain

from dedupstore.documents.leafpatch import Leaf, LeafPage
from dedupstore.documents.reading import documents_in, in_order
from dedupstore.documents.slices import LOG_NAME
from dedupstore.errors import NotFoundError, UsageError
from dedupstore.format.chunklist import ListPage, decode_list_page, iter_entries
from dedupstore.format.constants import LIST_ENTRY_SIZE
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import Data, Node, NodeKind, Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import (
    DATA_SUFFIX,
    METADATA_SUFFIX,
    CollectionFacts,
    CollectionInfo,
    collection_name,
    file_name,
    parse_metadata,
    read_facts,
)
from dedupstore.sources.bson.order import LABEL_MAX, sort_key
from dedupstore.sources.bson.raw import id_of
from dedupstore.sources.oplog.position import Ts
from dedupstore.tree.listpages import entries_in_page, list_pages_of
from dedupstore.tree.walk import entries_of, labelled_from, labelled_of, lookup, nodes_of, subtree_of

_ALWAYS_DUMPS = frozenset(("mongo", "archive"))
"""Kinds of snapshots that are dumps even if there is no collection in them."""
_BYTES = (int(NodeKind.FILE), int(NodeKind.STREAM))
_LABEL_END = b"\xff" * 16
"""More than any key has in one place, so that a label before another one can be named."""


@dataclass(frozen=True, slots=True)
class Files:
    """The entries of one collection in its database's folder."""

    db: str
    stem: bytes
    """Escaped name."""
    data: Node | None
    """``None`` for a view."""
    metadata: Node | None
    """``None`` where a dump has none (users and roles of one database)."""
    facts: CollectionFacts | None
    """What the stream of documents says of itself; ``None`` if it is a plain file."""


class StoredCollection:
    """One collection of a snapshot; see `dedupstore.documents.view.CollectionView`."""

    def __init__(self, repo: Repository, files: Files, metadata: bytes | None = None) -> None:
        """``metadata`` is the content of the metadata file, if somebody has read it already."""
        self._repo = repo
        self._metadata = metadata
        self.files = files
        self.facts = files.facts

    @cached_property
    def info(self) -> CollectionInfo:
        """Names, kind, options, indexes; read when first asked for."""
        files, facts = self.files, self.facts
        name = facts.name if facts is not None else collection_name(files.stem)
        if files.metadata is None:
            return CollectionInfo(files.db, name or files.stem.decode("ascii", "surrogateescape"))
        return parse_metadata(self.metadata, files.db, name or "")

    @property
    def metadata(self) -> bytes:
        """The metadata file as it is stored; empty if there is none."""
        if self._metadata is None:
            node = self.files.metadata
            entries = iter(()) if node is None else entries_of(self._list, node)
            self._metadata = b"".join(in_order(self._repo, entries))
        return self._metadata

    @property
    def uuid(self) -> bytes:
        """What the server knows it by: 16 bytes, or none."""
        return self.facts.uuid if self.facts is not None else self.info.uuid

    @property
    def count(self) -> int | None:
        """Documents, if that was noted."""
        if self.files.data is None:
            return 0
        return None if self.facts is None else self.facts.documents

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return 0 if self.files.data is None else self.files.data.size

    @property
    def natural(self) -> bool:
        """Whether the documents lie in another order than that of ``_id``."""
        return self.files.data is not None and (self.facts is None or not self.facts.in_order)

    def documents(self, after: bytes | None = None) -> Iterator[bytes]:
        """Yield the documents in stored order; see `CollectionView.documents`."""
        node = self.files.data
        if node is None:
            return
        if after is None:
            yield from documents_in(in_order(self._repo, self._content()), self._where)
            return
        if self.natural:
            raise UsageError(
                f"{self._where} is not stored in order of _id, so nothing comes after one: read all of it"
            )
        key = sort_key(after)
        documents = documents_in(in_order(self._repo, self._chunks_near(key)), self._where)
        for document in documents:
            if sort_key(id_of(document)) > key:
                yield document
                break
        yield from documents

    def get(self, id: bytes) -> bytes | None:  # noqa: A002 - see `CollectionView.get`
        """Return one document; see `CollectionView.get`."""
        if self.files.data is None:
            return None
        key = sort_key(id)
        natural = self.natural
        chunks = self._content() if natural else self._chunks_near(key, only=True)
        for document in documents_in(in_order(self._repo, chunks), self._where):
            found = sort_key(id_of(document))
            if found == key:
                return document
            if found > key and not natural:
                return None
        return None

    def leaves(self) -> Iterator[tuple[ChunkId, int, bytes]]:
        """Yield the chunks that the documents lie in: id, bytes, label (empty: none, or only one leaf)."""
        node = self.files.data
        return iter(()) if node is None else labelled_of(self._list, node)

    def leaf_pages(self) -> Iterator[Leaf | LeafPage]:
        """Yield the same by the page of their list where there are several; `leaves` where there are not."""
        node = self.files.data
        pages = iter(()) if node is None else list_pages_of(self._list, node)
        first = next(pages, None)
        if first is None:
            yield from self.leaves()
            return
        for page in chain((first,), pages):
            yield LeafPage(
                ChunkId(page.id), page.size, page.label, partial(entries_in_page, self._list, page)
            )

    def fetch(self, chunks: list[ChunkId]) -> dict[ChunkId, Data]:
        """Read leaves; raises as `Repository.read` does."""
        return dict(self._repo.read(chunks))

    def _content(self) -> Iterator[tuple[ChunkId, int]]:
        node = self.files.data
        return iter(()) if node is None else entries_of(self._list, node)

    def _chunks_near(self, key: bytes, *, only: bool = False) -> Iterator[tuple[ChunkId, int]]:
        """Yield the chunks from the one on in which a key must be; ``only`` those in which it can be."""
        node = self.files.data
        assert node is not None
        label = start = key[:LABEL_MAX]
        if len(label) == LABEL_MAX:
            # Cut short: a leaf of the same label may begin behind the key. Look before all of those.
            start = label[:-1] + bytes((label[-1] - 1,)) + _LABEL_END if label[-1] else label[:-1]
        before: bytes | None = None
        for _, chunk, size, name in labelled_from(self._list, node, start):
            if only and name > label and before not in {None, name}:  # a long document has one label
                return
            before = name
            yield chunk, size

    @property
    def _where(self) -> str:
        # The facts lie in the entry; the metadata would have to be read, for the sake of an error only.
        facts = self.facts
        return f"the collection {self.info.namespace if facts is None else f'{facts.db}.{facts.name}'}"

    def _list(self, page: TreeId) -> ListPage:
        return decode_list_page(self._repo.load_tree(page))


class StoredDump:
    """All collections of one snapshot; see `dedupstore.documents.view.View`."""

    def __init__(self, repo: Repository, snapshot: Snapshot, *, at: Ts | None = None) -> None:
        """``at``: the last operation that is in it, where the snapshot's position tells.

        Raises `NotFoundError` if the snapshot is of files and there is no dump among them.
        """
        self.repo = repo
        self.snapshot = snapshot
        self.at = at
        self._folders, self.log = _databases(repo, snapshot)

    @cached_property
    def _collections(self) -> list[StoredCollection]:
        listed = [files for folder in self._folders.values() for files in folder.values()]
        # One reading for all: small files of one folder lie together.
        chunks = [_only_chunk(files.metadata) for files in listed]
        wanted = list(dict.fromkeys(chunk for chunk in chunks if chunk is not None))
        texts: dict[ChunkId | None, bytes] = {chunk: bytes(data) for chunk, data in self.repo.read(wanted)}
        found = [
            StoredCollection(self.repo, files, texts.get(chunk))
            for files, chunk in zip(listed, chunks, strict=True)
        ]
        return sorted(found, key=lambda one: (one.info.db, one.info.name))

    def collections(self) -> list[StoredCollection]:
        """Return everything, in order of database and name."""
        return self._collections

    def databases(self) -> Mapping[str, Mapping[bytes, Files]]:
        """Return the files of every collection by database and escaped name."""
        return self._folders

    def find(self, db: str, name: str) -> StoredCollection | None:
        """Return one collection; nothing is read of the others."""
        folder = self._folders.get(db, {})
        # What holds users and roles of one database is not escaped.
        files = folder.get(file_name(name)) or folder.get(name.encode("utf-8", "surrogateescape"))
        return None if files is None else StoredCollection(self.repo, files)

    def close(self) -> None:
        """Nothing is held."""


def _databases(repo: Repository, snapshot: Snapshot) -> tuple[dict[str, dict[bytes, Files]], Node | None]:
    """Return the files of all collections, and the log that was kept while they were read."""
    found: dict[str, dict[bytes, Files]] = {}
    log: Node | None = None
    for path in snapshot.source.paths:
        top = lookup(repo.load_page, snapshot.root, path)
        waiting = [top] if top.kind == NodeKind.DIR else []
        while waiting:
            folder = waiting.pop()
            nodes = list(nodes_of(repo.load_page, subtree_of(folder)))
            name = folder.name.decode("utf-8", "surrogateescape")
            if is_database(nodes):
                found.setdefault(name, {}).update(_files_of(name, nodes))
            else:
                waiting.extend(node for node in nodes if node.kind == NodeKind.DIR)
                log = log or next((n for n in nodes if n.name == LOG_NAME and n.kind in _BYTES), None)
    if not found and snapshot.source.kind not in _ALWAYS_DUMPS:
        raise NotFoundError(
            "the snapshot holds no collection: take one of a server, of a dump folder or of an archive; "
            "`dstore ls` shows what is in it"
        )
    return found, log


def is_database(nodes: list[Node]) -> bool:
    """Say whether these are the entries of a database's folder."""
    return any(
        node.kind in _BYTES
        and (node.name.endswith(METADATA_SUFFIX) or (node.extra is not None and read_facts(node) is not None))
        for node in nodes
    )


def _files_of(db: str, nodes: list[Node]) -> dict[bytes, Files]:
    data: dict[bytes, Node] = {}
    metadata: dict[bytes, Node] = {}
    for node in nodes:
        if node.kind not in _BYTES:
            continue
        if node.name.endswith(METADATA_SUFFIX):
            metadata[node.name.removesuffix(METADATA_SUFFIX)] = node
        elif node.name.endswith(DATA_SUFFIX):
            data[node.name.removesuffix(DATA_SUFFIX)] = node
    found = {}
    for stem in data | metadata:
        stream = data.get(stem)
        facts = None if stream is None else read_facts(stream)
        found[stem] = Files(db, stem, stream, metadata.get(stem), facts)
    return found


def _only_chunk(node: Node | None) -> ChunkId | None:
    """Return the chunk that a small file is."""
    if node is None or node.depth or len(node.content) != LIST_ENTRY_SIZE:
        return None
    return next(iter_entries(node.content))[0]
