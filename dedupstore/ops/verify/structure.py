"""From every snapshot down: each page loads, each chunk has a place of the right size.

Each distinct page is loaded once, however many snapshots hold it. Memory: about 120 bytes for each
distinct page (a folder is one at least; so 120 MB for a million distinct folders), nothing for chunks:
they are looked up in the index where a page names them, which costs less than keeping them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeAlias, TypeVar

from dedupstore.errors import AccessError, DedupstoreError, ObjectDamaged, StoreError
from dedupstore.findings import printable
from dedupstore.format.chunklist import ListPage, decode_list_page, iter_entries, iter_refs
from dedupstore.ids import HOLE, ChunkId, PackId, TreeId, short
from dedupstore.model import Node, NodeKind
from dedupstore.objectstore.base import CONFIG_KEY, ObjectReader
from dedupstore.ops.verify.register import Register, no_place
from dedupstore.progress import Reporter
from dedupstore.repository.index import Place
from dedupstore.repository.repository import Repository
from dedupstore.tree.walk import SURVIVABLE, subtree_of

TROUBLE = (*SURVIVABLE, StoreError, AccessError)
"""What reading one object may end in while others can still be read."""

_DIR = int(NodeKind.DIR)

_Bounds: TypeAlias = tuple[tuple[bytes, ...], bytes | None] | None
"""What the labels of a list page begin with, and what none of them is above; ``None``: not known."""

T = TypeVar("T")


def survive(store: ObjectReader, error: DedupstoreError) -> None:
    """Return if the trouble is with one object; raise it if the store as a whole does not answer.

    A bad sector and a lost connection look the same from one read; another one tells.
    """
    if isinstance(error, (StoreError, AccessError)):
        store.get(CONFIG_KEY)


class Structure:
    """Walks trees without caring for paths. One thread."""

    def __init__(
        self, view: Repository, register: Register, report: Reporter, unlisted: Collection[PackId]
    ) -> None:
        """``unlisted``: packs in the index that no index segment lists."""
        self._view = view
        self._unlisted = unlisted
        self._register = register
        self._report = report
        self._seen: set[TreeId] = set()

    def check(self, roots: Iterable[TreeId]) -> None:
        """Check everything under these pages."""
        todo = list(roots)
        while todo:
            page = todo.pop()
            if page not in self._seen:
                self._seen.add(page)
                todo.extend(self._check_page(page))

    def _check_page(self, identifier: TreeId) -> list[TreeId]:
        """Check one page and the files on it; return the pages it names, the first one last."""
        page = self._try(identifier, self._view.load_page)
        if page is None:
            return []
        if self._unlisted:
            self._check_listed(self._view.index.rows([identifier]))
        self._report.advanced(1, 0)
        if page.level:
            return [ref.id for ref in reversed(page.refs)]
        ids: list[ChunkId] = []
        sizes: list[int] = []
        below: list[TreeId] = []
        for node in page.nodes:
            if node.kind == _DIR:
                below.append(subtree_of(node))
            elif node.depth:
                self._check_lists(identifier, node)
            elif node.content:
                self._check_size(identifier, node, _take(node.content, ids, sizes))
        self._check_chunks(ids, sizes)
        return below[::-1]

    def _check_lists(self, page: TreeId, node: Node) -> None:
        """Check the list pages of a long file that were not seen in another version of it."""
        todo: list[tuple[TreeId, int, _Bounds]] = [(TreeId(ChunkId(node.content)), node.size, None)]
        total = 0
        while todo:
            identifier, under, bounds = todo.pop()
            total += under
            if identifier in self._seen:
                continue
            self._seen.add(identifier)
            listed = self._try(identifier, lambda wanted: decode_list_page(self._view.load_tree(wanted)))
            if listed is None:
                continue
            if not _are_within(listed.labels, bounds):
                self._add_page(identifier, _wrong_labels(identifier))
            if listed.level:
                todo.extend(_below(listed, bounds[1] if bounds else None))
                total -= under
                continue
            ids: list[ChunkId] = []
            sizes: list[int] = []
            if _take(listed.entries, ids, sizes) != under:
                self._add_page(identifier, _wrong_sum(identifier))
            self._check_chunks(ids, sizes)
        self._check_size(page, node, total)

    def _check_size(self, page: TreeId, node: Node, found: int) -> None:
        if found != node.size:
            self._add_page(
                page,
                ObjectDamaged(
                    f"the chunks of {printable(node.name)!r} on tree page {short(page)} make {found} "
                    f"bytes and not {node.size}: restore it from another snapshot",
                    id=page,
                ),
            )

    def _check_chunks(self, ids: list[ChunkId], sizes: list[int]) -> None:
        rows = self._view.index.rows(ids)
        if self._unlisted:
            self._check_listed(rows)
        bases: list[ChunkId] = []
        for chunk, size, row in zip(ids, sizes, rows, strict=True):
            if row is None:
                self._register.add_chunk(chunk, no_place(chunk))
            elif row[7] != size:
                self._register.add_chunk(
                    chunk,
                    ObjectDamaged(
                        f"chunk {short(chunk)} has {row[7]} bytes where a file needs {size}: "
                        "restore that file from another snapshot",
                        chunk=chunk,
                    ),
                )
            elif row[8] is not None:
                bases.append(ChunkId(row[8]))
        if bases:
            for base, known in zip(bases, self._view.index.contains(bases), strict=True):
                if not known:
                    self._register.add_chunk(base, no_place(base))

    def _check_listed(self, rows: Iterable[Place | None]) -> None:
        for number in {row[0] for row in rows if row is not None}:
            pack = self._view.index.pack(number).id
            if pack in self._unlisted:
                self._register.add_unlisted(pack)

    def _try(self, identifier: TreeId, load: Callable[[TreeId], T]) -> T | None:
        try:
            return load(identifier)
        except TROUBLE as error:
            survive(self._view.store, error)
            self._add_page(identifier, error)
            return None

    def _add_page(self, identifier: TreeId, error: DedupstoreError) -> None:
        self._register.add_page(identifier, self._view.index.rows([identifier])[0], error)


def _take(entries: bytes, ids: list[ChunkId], sizes: list[int]) -> int:
    """Append the chunks of a list, holes left out; return the bytes that the list stands for."""
    total = 0
    for chunk, size in iter_entries(entries):
        total += size
        if chunk != HOLE:
            ids.append(chunk)
            sizes.append(size)
    return total


def _below(page: ListPage, limit: bytes | None) -> Iterator[tuple[TreeId, int, _Bounds]]:
    """Yield the references of a list page with what is to be expected under each."""
    labels = page.labels
    for place, (identifier, size) in enumerate(iter_refs(page.entries)):
        last = labels[place + 1] if place + 1 < len(labels) else limit
        yield identifier, size, (labels[place : place + 1], last)


def _are_within(labels: tuple[bytes, ...], bounds: _Bounds) -> bool:
    if bounds is None:
        return True
    first, limit = bounds
    return labels[:1] == first and (limit is None or not labels or labels[-1] <= limit)


def _wrong_labels(page: TreeId) -> ObjectDamaged:
    return ObjectDamaged(
        f"chunk list page {short(page)} does not have the labels that are said of it: restore what it hurts "
        "as a whole, or from another snapshot",
        id=page,
    )


def _wrong_sum(page: TreeId) -> ObjectDamaged:
    return ObjectDamaged(
        f"chunk list page {short(page)} does not hold as many bytes as is said of it: restore what it hurts "
        "from another snapshot",
        id=page,
    )
