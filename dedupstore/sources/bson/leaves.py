"""Leaves: where the chunks of a collection end, and what each is called.

A collection is stored as its documents one after another, cut into leaves of whole documents. Where a leaf
ends is decided by its last document's ``_id`` alone: an update moves no boundary (but where a leaf would get
too short or too long by it), and the same collection read from another server gives the same leaves.

The rule. Let ``h`` be SipHash-2-4 of a document's identity (type byte and raw value of ``_id``; of the whole
document if it has none) under the repository's key. A leaf ends after a document if ``h`` begins with ``k``
zero bits and the leaf has at least `LEAF_MIN` bytes; and before one that would make it longer than
`LEAF_MAX`. A longer document stands alone, in pieces of `LEAF_MAX` bytes that all have one label. ``k``
follows from the mean length of the first documents (`choose_k`), is kept with the collection, and stays.

A leaf's label is that of its first document's ``_id`` (`order.label`), if the documents are sorted by it.

`walk` is the definition; ``_leaves.c`` does the same without the interpreter's lock. Where the C finds
anything wrong it says no more than that, and `walk` finds the words.
"""

import functools
import importlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from dedupstore.errors import SourceError, UsageError
from dedupstore.model import Data
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import label, sort_key
from dedupstore.sources.bson.siphash import KEY_SIZE, siphash

LEAF_TARGET = 8 << 10
"""Bytes that leaves have on average, or up to 1.4 times more or less (``docs/decisions``, 9)."""
LEAF_MIN = 2 << 10
LEAF_MAX = 64 << 10
SAMPLE = 256 << 10
"""Bytes at the start of a collection that decide its ``k``."""
MAX_SIZE_MIN = 1 << 10
"""A cutter that must keep its chunks below this makes no sense."""

_length_at = struct.Struct("<i").unpack_from


@dataclass(frozen=True, slots=True)
class LeafRule:
    """After which documents a leaf may end. Holds no state."""

    key: bytes
    """16 bytes, of the repository: to one without it leaf lengths tell nothing of ``_id`` values."""
    k: int
    """Bits; one document in ``2**k`` may end a leaf."""

    def ends_after(self, identity: bytes) -> bool:
        """Tell whether a leaf may end after the document of that identity."""
        return not siphash(self.key, identity) >> (64 - self.k)


def choose_k(first: Data) -> int:
    """Return the ``k`` whose leaves are nearest, as a ratio, to `LEAF_TARGET` bytes on average.

    ``first`` is the start of the collection; the lengths of the documents that begin in its first `SAMPLE`
    bytes count. What does not look like documents counts for nothing: cutting finds that out.
    """
    size, at, count = min(len(first), SAMPLE), 0, 0
    while size - at >= 4:
        (length,) = _length_at(first, at)
        if not raw.DOCUMENT_MIN <= length <= raw.DOCUMENT_MAX:
            break
        at += length
        count += 1
    mean = at // count if count else LEAF_TARGET
    # Documents until the minimum is reached, the last of them with a chance, then one chance each.
    before, k = (LEAF_MIN - 1) // mean, 0
    while mean**2 * (before + (1 << k)) * (before + (2 << k)) < LEAF_TARGET**2:
        k += 1
    return k


class Walked(NamedTuple):
    """What `walk` found in a window."""

    ends: list[int]
    """Where leaves end, bytes from the start of the window."""
    labels: Sequence[bytes | None]
    """Their labels, empty without an order; None where one is still to be made."""
    documents: int
    """How many documents these leaves hold."""
    last: int
    """Where the last of these documents begins; -1 if there is none."""
    seen: int
    """Where the last document that was looked at ends: perhaps behind the last leaf."""
    large: bool
    """A document longer than a leaf begins at the last end, or where the walk began."""
    order: int
    """One of `ASCENDING`, `BROKEN`, `UNDECIDED`: how the identities looked at follow each other."""


ASCENDING, BROKEN, UNDECIDED = range(3)
Walk: TypeAlias = Callable[[Data, int, bool, bytes, int, int, int, bytes, bool], Walked | None]


def walk(
    data: Data,
    start: int,
    final: bool,
    key: bytes,
    k: int,
    leaf_min: int,
    leaf_max: int,
    previous: bytes,
    sorted_: bool,
) -> Walked:
    """Find the leaves of the documents from ``start`` on, up to a document longer than ``leaf_max``.

    ``previous`` is the identity of the document before ``start``, ``b""`` for none. With ``sorted_``
    identities that do not ascend are an error, otherwise they are `BROKEN`. With ``final`` the tail is a leaf
    too, and must be whole. Raises `SourceError` with ``offset`` (in the window) and ``how``.
    """
    rule, size = LeafRule(key, k), len(data)
    ends: list[int] = []
    labels: list[bytes | None] = []
    leaf = at = start
    documents = counted = 0
    last = newest = -1
    large, order, before = False, ASCENDING, sort_key(previous)

    def cut() -> None:
        nonlocal leaf, documents, last
        ends.append(at)
        labels.append(label(raw.id_of(data, leaf)) if sorted_ else b"")
        leaf, documents, last = at, counted, newest

    while at < size:
        length = _document_length(data, at, size)
        if length and at > leaf and at - leaf + length > leaf_max:
            cut()
        if length > leaf_max:
            large = True
            break
        if not length or length > size - at:
            if final:
                raise raw.damaged(at, "ends inside a document")
            break
        identity = raw.id_of(data, at)
        following = _key_of(identity, at)
        if not identity or following < before:
            if sorted_:
                raise disorder(at, identity)
            order = BROKEN
        before, newest, at, counted = following, at, at + length, counted + 1
        if at - leaf > leaf_max - raw.DOCUMENT_MIN or (
            at - leaf >= leaf_min and rule.ends_after(identity or bytes(data[newest:at]))
        ):
            cut()
    if final and leaf < at:
        cut()
    return Walked(ends, labels, documents, last, at, large, order)


def _document_length(data: Data, at: int, size: int) -> int:
    """Return the length that the document at ``at`` states; 0 if it is not in the window yet."""
    if size - at < 4:
        return 0
    length = int(_length_at(data, at)[0])
    if not raw.DOCUMENT_MIN <= length <= raw.DOCUMENT_MAX:
        raise raw.damaged(at, f"has a document of impossible length {length}")
    return length


def _key_of(identity: bytes, at: int) -> bytes:
    """Return the sort key of the document at ``at``, and say so if its ``_id`` has none."""
    try:
        return sort_key(identity)
    except SourceError as error:
        raise raw.damaged(at, "has a document whose _id is damaged") from error


def disorder(offset: int, identity: bytes) -> SourceError:
    """Return the error for a document at ``offset`` that must not stand there in a sorted collection."""
    if not identity:
        return raw.damaged(offset, "has a document without an _id among sorted ones")
    return raw.damaged(offset, "has a document whose _id is less than the one before it")


@functools.cache
def _native() -> Walk | None:
    """Return the compiled walk, if it was built."""
    try:
        module = importlib.import_module("dedupstore.sources.bson._leaves")
    except ImportError:
        return None

    def native(*arguments: object) -> Walked | None:
        found = module.walk(*arguments)
        return None if found is None else Walked(*found)

    return native


def kernels() -> tuple[str, ...]:
    """Return the names of the walks that work here, best first; for tests and measurements."""
    return ("c", "python") if _native() else ("python",)


class LeafCutter:
    """Cuts one collection; a `Cutter`. One stream, one thread.

    ``key`` is 16 bytes. ``k`` is that of the collection's last snapshot; None: it is chosen from the first
    window. ``sorted`` says that the documents come in order of ``_id``: leaves get labels, and a document out
    of order is an error; otherwise labels are empty. ``max_size`` (bytes) is the longest chunk that the
    repository takes. ``kernel`` forces one of `kernels`.

    After the end: ``k``; ``documents``, how many there were; ``in_order``, whether every document had an
    ``_id`` not less than the one before.
    """

    def __init__(
        self,
        key: bytes,
        *,
        k: int | None = None,
        sorted: bool = True,  # noqa: A002 - what a caller says is what it means
        max_size: int = 1 << 20,
        kernel: str | None = None,
    ) -> None:
        if len(key) != KEY_SIZE:
            raise UsageError(
                f"a leaf key has {KEY_SIZE} bytes, this one has {len(key)}: derive it from the epoch's secret"
            )
        if max_size < MAX_SIZE_MIN:
            raise UsageError(
                f"chunks of {max_size} bytes are too small for leaves: choose {MAX_SIZE_MIN} or more"
            )
        if k is not None and not 0 <= k <= 32:
            raise UsageError(f"k={k} is no number of bits for leaves: choose 0 to 32, or none")
        if kernel not in {None, *kernels()}:
            raise UsageError(
                f"leaf kernel {kernel!r} does not work here: choose one of {', '.join(kernels())}"
            )
        self.max_size = max_size
        self.k = k
        self.documents = 0
        self.in_order = True
        self._key = key
        self._sorted = sorted
        self._walk = _native() if kernel != "python" else None
        self._leaf_max = min(LEAF_MAX, max_size)
        self._leaf_min = min(LEAF_MIN, self._leaf_max // 4)
        self._previous = b""
        self._offset = 0
        """Bytes of the stream before the window."""
        self._rest = 0
        """Bytes that are missing of a large document."""
        self._label = b""
        """Of that document."""

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        """Return (end, label) of the leaves in a window; see `dedupstore.sources.base.Cutter`.

        Raises `SourceError` that names the byte of the stream.
        """
        sample = min(SAMPLE, self.max_size)
        if self.k is None:
            if len(data) < sample and not final:
                return []
            self.k = choose_k(data[:sample])
        found: list[tuple[int, bytes]] = []
        try:
            self._cut(data, final, found)
        except SourceError as error:
            offset, how = error.data.get("offset"), error.data.get("how")
            if isinstance(offset, int) and isinstance(how, str):
                raise raw.damaged(self._offset + offset, how) from error
            raise
        if found:
            self._offset += found[-1][0]
        return found

    def _cut(self, data: memoryview, final: bool, found: list[tuple[int, bytes]]) -> None:
        at = 0
        while True:
            at = self._take_pieces(data, at, final, found)
            if self._rest:
                return
            walked = self._find(data, at, final)
            for end, made in zip(walked.ends, walked.labels, strict=True):
                found.append((end, label(raw.id_of(data, at)) if made is None else made))
                at = end
            if walked.last >= 0:
                self._previous = raw.id_of(data, walked.last)
            self.documents += walked.documents
            if not walked.large or not self._begin_large(data, at, final):
                return

    def _find(self, data: memoryview, start: int, final: bool) -> Walked:
        """Walk with what is fastest and leave to the definition what that can not do."""
        assert self.k is not None
        arguments = (data, start, final, self._key, self.k, self._leaf_min, self._leaf_max, self._previous)
        walked = self._walk(*arguments, self._sorted) if self._walk else None
        if walked is None:
            walked = walk(*arguments, self._sorted)
        elif walked.order == UNDECIDED:
            order = self._order(data, start, walked.seen) if self.in_order else BROKEN
            walked = walked._replace(order=order)
        if walked.order == BROKEN:
            self.in_order = False
        return walked

    def _order(self, data: memoryview, at: int, end: int) -> int:
        """Compare the identities of the documents from ``at`` to ``end``."""
        before = sort_key(self._previous)
        while at < end:
            identity = raw.id_of(data, at)
            following = sort_key(identity)
            if not identity or following < before:
                if self._sorted:
                    raise disorder(at, identity)
                return BROKEN
            before, at = following, at + int(_length_at(data, at)[0])
        return ASCENDING

    def _begin_large(self, data: memoryview, at: int, final: bool) -> bool:
        """Start on a document longer than a leaf; False if its first piece is not all there."""
        if len(data) - at < self._leaf_max:
            if final:
                raise raw.damaged(at, "ends inside a document")
            return False
        (length,) = _length_at(data, at)
        identity = id_in_front(bytes(data[at : at + self._leaf_max]))
        if not identity and self._sorted:
            raise raw.damaged(
                at, f"has a document of {length} bytes without an _id in its first {self._leaf_max}"
            )
        key = _key_of(identity, at)
        if not identity or key < sort_key(self._previous):
            if self._sorted:
                raise disorder(at, identity)
            self.in_order = False
        self._previous, self._rest = identity, int(length)
        self._label = label(identity) if self._sorted else b""
        return True

    def _take_pieces(self, data: memoryview, at: int, final: bool, found: list[tuple[int, bytes]]) -> int:
        """Cut as much of a large document as is there; return where that ends."""
        while self._rest:
            size = min(self._rest, self._leaf_max)
            if len(data) - at < size:
                if final:
                    raise raw.damaged(at, "ends inside a document")
                break
            at += size
            self._rest -= size
            if not self._rest:
                if data[at - 1]:
                    raise raw.damaged(at - 1, "has a document that does not end in NUL")
                self.documents += 1
            found.append((at, self._label))
        return at


def id_in_front(piece: bytes) -> bytes:
    """Return the identity of a document of which only the beginning is there; ``b""`` if that lacks it."""
    at, end = 4, len(piece)
    try:
        while at < end:
            kind, stop = piece[at], piece.find(0, at + 1)
            if stop < 0:
                break
            following = raw.value_end(piece, kind, stop + 1, end)
            if piece[at + 1 : stop] == b"_id":
                return bytes((kind,)) + piece[stop + 1 : following]
            at = following
    except SourceError:
        pass
    return b""
