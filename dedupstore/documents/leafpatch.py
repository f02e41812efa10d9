"""A collection's leaves after changes to some of its documents, without reading the others.

A leaf that no change falls into stays as it is, unread. From the first one that is touched the documents
are cut anew, until a cut falls where an old leaf ended and the next one is untouched: from there everything
would come out as it was, since where leaves end depends on what lies behind the last end alone. So
the result is, leaf for leaf, that of cutting the whole collection.

One thing looks back: a leaf may have ended where it did only because the next document was too long for
it. So where the first document of a touched leaf gets another length, the leaf before is cut anew as well.

Old leaves may be given by the page of their list (`LeafPage`): one that no change comes near is given back as
it is, and its leaves are not even listed.

One thread. Memory: `READ_AHEAD` leaves and twice the longest document, however many changes there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, Protocol, TypeAlias, TypeVar

from dedupstore.documents.reading import documents_in
from dedupstore.ids import ChunkId
from dedupstore.model import Data
from dedupstore.sources.base import Cutter
from dedupstore.sources.bson.order import LABEL_MAX, sort_key
from dedupstore.sources.bson.raw import DOCUMENT_MIN, id_of

READ_AHEAD = 64
"""Most leaves that are read together, where changes lie close to each other."""
_NEAR = 8
"""Leaves between two touched ones that are cheaper to read than to ask for once more."""
_MARGIN = 3
"""Pages between one that is given back as it is and the next change, that one included."""
_PORTION = 1 << 20
"""Bytes of documents between two looks at where leaves end."""

Leaf: TypeAlias = tuple[ChunkId, int, bytes]
"""A chunk, its bytes, its label."""
Fetch: TypeAlias = Callable[[list[ChunkId]], dict[ChunkId, Data]]


class Keyed(Protocol):
    """A change to one document."""

    @property
    def key(self) -> bytes:
        """Where it belongs: see `sort_key`."""
        ...


C = TypeVar("C", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Fresh:
    """A leaf that was cut anew; it may be equal to an old one."""

    label: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class LeafPage:
    """Leaves in a row, not listed yet: a page of the list of all of them."""

    page: ChunkId
    size: int
    """Bytes of all of them."""
    label: bytes
    """Of the first one."""
    leaves: Callable[[], Iterable[Leaf]]


@dataclass(frozen=True, slots=True)
class _Group:
    """Leaves that can only be read together: one, or all that one long document lies in."""

    number: int
    """Of its first leaf."""
    leaves: list[Leaf]
    following: bytes | None
    """Label of the next leaf; ``None`` for the last one."""

    @property
    def whole(self) -> bool:
        """Whether it is one long document, behind which there is always an end."""
        return len(self.leaves) > 1 and len(self.leaves[0][2]) < LABEL_MAX


class LeafPatch(Generic[C]):
    """The leaves of one collection after its changes. Used once."""

    def __init__(
        self,
        leaves: Iterable[Leaf | LeafPage],
        changes: Iterable[C],
        *,
        fetch: Fetch,
        apply: Callable[[Iterator[bytes], Iterator[C]], Iterator[bytes]],
        cutter: Callable[[], Cutter],
        leaf_max: int,
        where: str,
    ) -> None:
        """``leaves`` are the old ones with their labels; ``changes`` come in order of keys, one for each.

        ``apply`` is the merge join of documents with changes. ``cutter`` makes one with the collection's
        ``k``; ``leaf_max`` (bytes) is the longest leaf that it cuts. ``where`` names it all in errors.
        """
        self._groups = _Groups(leaves, fetch, leaf_max, where)
        self._changes = _Peeking(changes)
        self._apply = apply
        self._cutter = cutter
        self._leaf_max = leaf_max
        self._before: list[Leaf] = []
        """Untouched leaves that are not given yet, since what comes behind may look back."""
        self.added = 0
        """After the end: how many documents there are more than before (negative: fewer)."""

    def leaves(self) -> Iterator[Leaf | LeafPage | Fresh]:
        """Yield the new leaves in order; pages only if some were given.

        Raises what reading and applying raise.
        """
        groups = self._groups
        if groups.empty:
            yield from self._region(self._apply(iter(()), iter(self._changes)))
        while True:
            if (page := groups.take_page(self._changes.label)) is not None:
                yield from self._before
                self._before = []
                yield page
                continue
            if (group := groups.take()) is None:
                break
            if self._changes.falls_into(group):
                yield from self._touched(group)
            else:
                yield from self._before
                self._before = group.leaves
        yield from self._before

    def _touched(self, group: _Group) -> Iterator[Leaf | Fresh]:
        old = self._groups.documents(group)
        new = self._changed(group, old)
        first = next(new, None)
        documents = new if first is None else chain((first,), new)
        before, self._before = self._before, []
        if before and not self._stands(before, old, first):
            kept = self._groups.documents(_Group(group.number - len(before), before, None))
            self.added -= len(kept)
            documents = chain(kept, documents)
        else:
            yield from before
        yield from self._region(documents)

    def _changed(self, group: _Group, old: list[bytes]) -> Iterator[bytes]:
        """Apply to a group's documents the changes that fall into it."""
        self.added -= len(old)
        return self._apply(iter(old), self._changes.into(group, old))

    def _stands(self, before: list[Leaf], old: list[bytes], first: bytes | None) -> bool:
        """Say whether the leaf before surely ends where it did, now that another document follows it."""
        if first is None:
            return False
        size = before[-1][1]
        return (
            len(first) == len(old[0])
            or len(first) + size > self._leaf_max
            or DOCUMENT_MIN + size > self._leaf_max
            or (len(before) > 1 and len(before[0][2]) < LABEL_MAX)
        )

    def _region(self, documents: Iterator[bytes]) -> Iterator[Fresh]:
        """Cut documents, and those of the groups behind, until an old end with nothing touched behind it."""
        groups, cutter, tail = self._groups, self._cutter(), b""
        while True:
            for portion in self._portions(documents):
                fresh, tail = _cut(cutter, tail + portion)
                yield from fresh
            group = groups.peek()
            if group is None:
                fresh, _ = _cut(cutter, tail, final=True)
                yield from fresh
                return
            if not tail and not self._changes.falls_into(group):
                return
            groups.take()
            old = groups.documents(group)
            if self._changes.falls_into(group):
                documents = self._changed(group, old)
                continue
            fresh, rest = _cut(cutter, tail + b"".join(old), until=len(tail))
            yield from fresh
            if sum(len(one.data) for one in fresh) == len(tail):
                self._before = group.leaves
                return
            tail, documents = rest, iter(())

    def _portions(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        portion: list[bytes] = []
        size = 0
        for document in documents:
            self.added += 1
            portion.append(document)
            size += len(document)
            if size >= _PORTION:
                yield b"".join(portion)
                portion, size = [], 0
        if portion:
            yield b"".join(portion)


def _cut(
    cutter: Cutter, data: bytes, *, final: bool = False, until: int | None = None
) -> tuple[list[Fresh], bytes]:
    """Cut what can be cut; return the leaves and the rest.

    If a leaf ends at ``until``, those behind it are left out.
    """
    fresh: list[Fresh] = []
    start = 0
    ends = cutter.cuts(memoryview(data), final=final)
    if any(end == until for end, _ in ends):
        ends = [(end, label) for end, label in ends if until is None or end <= until]
    for end, label in ends:
        fresh.append(Fresh(label, data[start:end]))
        start = end
    return fresh, data[start:]


class _Peeking(Generic[C]):
    """Changes in order, the next of which can be looked at."""

    def __init__(self, changes: Iterable[C]) -> None:
        self._rest = iter(changes)
        self._next = next(self._rest, None)

    def __iter__(self) -> Iterator[C]:
        while (change := self._next) is not None:
            self._next = next(self._rest, None)
            yield change

    @property
    def label(self) -> bytes | None:
        """That of the next change; ``None``: there is none."""
        return None if self._next is None else self._next.key[:LABEL_MAX]

    def falls_into(self, group: _Group) -> bool:
        """Say whether the next change may fall into a group; all that fall before it must have been taken."""
        change = self._next
        if change is None:
            return False
        if group.following is None:
            return True
        label = change.key[:LABEL_MAX]
        # Of two keys with the same cut label nobody knows which is the lesser.
        return label < group.following or (label == group.following and len(label) == LABEL_MAX)

    def into(self, group: _Group, old: list[bytes]) -> Iterator[C]:
        """Yield the changes that fall into a group with these documents, not those that fall behind them."""
        last = b""
        while (change := self._next) is not None and self.falls_into(group):
            if group.following is not None and change.key[:LABEL_MAX] == group.following:
                last = last or sort_key(id_of(old[-1]))
                if change.key > last:
                    return
            self._next = next(self._rest, None)
            yield change


class _Groups:
    """Old leaves in order, in groups; their documents on demand."""

    def __init__(self, leaves: Iterable[Leaf | LeafPage], fetch: Fetch, leaf_max: int, where: str) -> None:
        self._rest = iter(leaves)
        self._pages: deque[Leaf | LeafPage] = deque()
        self._ahead: deque[Leaf] = deque()
        self._fetch = fetch
        self._leaf_max = leaf_max
        self._where = where
        self._taken = 0
        self._peeked: _Group | None = None
        self._chunks: dict[ChunkId, Data] = {}
        self._read_at = -READ_AHEAD
        self._span = 1

    @property
    def empty(self) -> bool:
        """Whether nothing is left."""
        return self._peeked is None and self._label() is None

    def take_page(self, change: bytes | None) -> LeafPage | None:
        """Return the next leaves as a page if neither they nor those near them are touched.

        ``change`` is the label of the next change (``None``: there is none). What it falls into may begin
        before the leaf that has its label, and the leaf before that is looked at. A long document
        may have begun before a page, but not before one that another label follows.
        """
        if self._peeked is not None or self._ahead or not self._look(1):
            return None
        page = self._pages[0]
        if not isinstance(page, LeafPage):
            return None
        if change is not None:
            if not self._look(_MARGIN + 1):
                return None
            second, third, last = (_label_of(self._pages[n]) for n in (1, 2, _MARGIN))
            if change <= last or second == third:
                return None
        self._pages.popleft()
        return page

    def take(self) -> _Group | None:
        """Return the next group."""
        group = self.peek()
        self._peeked = None
        return group

    def peek(self) -> _Group | None:
        """Return the next group without taking it."""
        if self._peeked is None and self._fill(1):
            leaves = [self._ahead.popleft()]
            while self._continues(leaves[-1], self._label()) and self._fill(1):
                leaves.append(self._ahead.popleft())
            self._peeked = _Group(self._taken, leaves, self._label())
            self._taken += len(leaves)
        return self._peeked

    def documents(self, group: _Group) -> list[bytes]:
        """Read the documents of a group that was taken, and where much is read some leaves ahead."""
        wanted = [chunk for chunk, _, _ in group.leaves]
        if not all(chunk in self._chunks for chunk in wanted):
            near = group.number - self._read_at <= _NEAR
            self._span = min(2 * self._span, READ_AHEAD) if near else 1
            self._fill(self._span - 1)
            more = [chunk for chunk, _, _ in islice(self._ahead, self._span - 1)]
            self._chunks = self._fetch(list(dict.fromkeys(wanted + more)))
            self._read_at = group.number + len(wanted) + len(more)
        return list(documents_in((self._chunks[chunk] for chunk in wanted), self._where))

    def _continues(self, before: Leaf, label: bytes | None) -> bool:
        """Say whether a leaf may be another piece of the long document that the one before belongs to."""
        return label == before[2] and (len(label) < LABEL_MAX or before[1] == self._leaf_max)

    def _label(self) -> bytes | None:
        """Return the label of the next leaf; ``None``: there is none."""
        if self._ahead:
            return self._ahead[0][2]
        return _label_of(self._pages[0]) if self._look(1) else None

    def _fill(self, count: int) -> bool:
        """List leaves until there are so many; say whether there are."""
        while len(self._ahead) < count and self._look(1):
            page = self._pages.popleft()
            self._ahead.extend(page.leaves() if isinstance(page, LeafPage) else (page,))
        return len(self._ahead) >= count

    def _look(self, count: int) -> bool:
        """Look ahead until so many pages (or leaves) are known that are not listed; say whether they are."""
        missing = count - len(self._pages)
        if missing > 0:
            self._pages.extend(islice(self._rest, missing))
        return len(self._pages) >= count


def _label_of(one: Leaf | LeafPage) -> bytes:
    return one.label if isinstance(one, LeafPage) else one[2]
