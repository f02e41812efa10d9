"""Chunk lists: what a file is made of, from a few entries to a tree of list pages.

A content entry is a chunk id and that chunk's plaintext length. Up to `LIST_INLINE_MAX` entries lie
in the node itself. A longer list is cut into pages, tree chunks of their own; above them pages of
references, with the bytes under each, until one page is left. So a read at any offset is O(log n).
A page ends where a chunk id says so: ids are keyed hashes already, no further key is needed.

A list may be labelled: each chunk has a name of a few bytes, in ascending order over the whole list, and a
reference has that of the first chunk under it. So a chunk is found by label as fast as by offset. What
a label means is for whoever gave it. Page version 1 has no labels, version 2 has them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from operator import le
from typing import cast

from dedupstore.errors import FormatError, ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.ids import ID_SIZE, ChunkId, TreeId
from dedupstore.model import Data

_TOP = 3
"""Which byte of an id is the highest of the number that `cut_list_after` compares."""
assert c.LIST_THRESHOLD < 1 << 8 * _TOP


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page: at level 0 ``entries`` are content entries, above it references."""

    level: int
    entries: bytes
    labels: tuple[bytes, ...] = ()
    """One an entry, none descending; empty for a list without labels."""


def pack_entries(entries: Iterable[tuple[ChunkId, int]]) -> bytes:
    """Return content entries as bytes; lengths are bytes of plaintext."""
    pack = c.LIST_ENTRY.pack
    return b"".join([pack(chunk, length) for chunk, length in entries])


def iter_entries(content: Data) -> Iterator[tuple[ChunkId, int]]:
    """Yield (chunk id, length); raises `ObjectDamaged` if there is not a whole number of entries."""
    if len(content) % c.LIST_ENTRY_SIZE:
        raise _damaged("ends inside an entry")
    # The struct gives exactly this; the cast spares a call for each of millions of entries.
    return cast("Iterator[tuple[ChunkId, int]]", c.LIST_ENTRY.iter_unpack(content))


def content_size(content: Data) -> int:
    """Return how many bytes of plaintext the entries stand for; raises as `iter_entries` does."""
    return sum([length for _, length in iter_entries(content)])


def pack_refs(refs: Iterable[tuple[TreeId, int]]) -> bytes:
    """Return references as bytes: list page id, and bytes of plaintext under it."""
    pack = c.LIST_REF.pack
    return b"".join([pack(page, size) for page, size in refs])


def iter_refs(entries: Data) -> Iterator[tuple[TreeId, int]]:
    """Yield (list page id, bytes under it); raises `ObjectDamaged` as `iter_entries` does."""
    if len(entries) % c.LIST_REF_SIZE:
        raise _damaged("ends inside a reference")
    return cast("Iterator[tuple[TreeId, int]]", c.LIST_REF.iter_unpack(entries))


def cut_list_after(last: ChunkId, entries_in_page: int) -> bool:
    """Tell whether a list page ends after the entry with this id; the count includes it."""
    if entries_in_page >= c.LIST_MAX_ENTRIES:
        return True
    if entries_in_page < c.LIST_MIN_ENTRIES:
        return False
    return int.from_bytes(last[:4], "little") < c.LIST_THRESHOLD


def find_list_cut(entries: bytes, first: int, entries_in_page: int) -> int | None:
    """Find the end of a page that has so many entries and goes on with those from ``first`` on.

    Returns the position behind its last one, ``None`` if it does not end among them: what asking
    `cut_list_after` for each would give, but almost all are ruled out at once.
    """
    # An id below the threshold has a top byte that is none above the threshold's, which is 0.
    tops = entries[_TOP :: c.LIST_ENTRY_SIZE]
    before = entries_in_page - first
    at = first + max(0, c.LIST_MIN_ENTRIES - entries_in_page - 1)
    longest = first + c.LIST_MAX_ENTRIES - entries_in_page
    while (at := tops.find(0, at, longest)) >= 0:
        start = at * c.LIST_ENTRY_SIZE
        at += 1
        if cut_list_after(ChunkId(entries[start : start + ID_SIZE]), before + at):
            return at
    return longest if longest <= len(tops) else None


def encode_list_page(page: ListPage) -> bytes:
    """Return the bytes of a list page; raises `ValueError` for a page that could not be read back."""
    size = c.LIST_ENTRY_SIZE if page.level == 0 else c.LIST_REF_SIZE
    count, rest = divmod(len(page.entries), size)
    if rest or not 0 < count <= c.LIST_MAX_ENTRIES or not 0 <= page.level < c.LIST_DEPTH_MAX:
        raise ValueError(f"{len(page.entries)} bytes are no list page of level {page.level}")
    if not page.labels:
        return c.LIST_HEADER.pack(c.LIST_MAGIC, c.LIST_VERSION, page.level, count) + page.entries
    lengths = [len(label) for label in page.labels]
    if len(lengths) != count or not _are_labels(page.labels, lengths):
        raise ValueError(f"{len(lengths)} labels do not fit a list page of {count} entries")
    header = c.LIST_HEADER.pack(c.LIST_MAGIC, c.LIST_LABELLED, page.level, count)
    return b"".join((header, page.entries, bytes(lengths), *page.labels))


def decode_list_page(data: Data) -> ListPage:
    """Read a list page; raises `FormatError` for a later version, `ObjectDamaged` otherwise."""
    if len(data) < c.LIST_HEADER_SIZE:
        raise _damaged("is cut off")
    magic, version, level, count = c.LIST_HEADER.unpack_from(data)
    if magic != c.LIST_MAGIC:
        raise _damaged("does not begin as one")
    if version not in {c.LIST_VERSION, c.LIST_LABELLED}:
        raise FormatError(f"chunk list version {version} is unknown: a newer dstore is needed")
    size = c.LIST_ENTRY_SIZE if level == 0 else c.LIST_REF_SIZE
    if not 0 < count <= c.LIST_MAX_ENTRIES or level >= c.LIST_DEPTH_MAX:
        raise _damaged(f"claims level {level} and {count} entries")
    end = c.LIST_HEADER_SIZE + count * size
    labels = _read_labels(data, end, count) if version == c.LIST_LABELLED else ()
    if not labels and len(data) != end:
        raise _damaged("has a wrong length")
    page = ListPage(level, bytes(data[c.LIST_HEADER_SIZE : end]), labels)
    # Pages may repeat below each other, 4096 to the power of the depth: only lengths bound a walk.
    if 0 in [length for _, length in (iter_refs if level else iter_entries)(page.entries)]:
        raise _damaged("has an entry of no length")
    return page


def _read_labels(data: Data, start: int, count: int) -> tuple[bytes, ...]:
    """Read the labels behind the entries: all lengths, then all labels."""
    lengths = bytes(data[start : start + count])
    ends = list(accumulate(lengths, initial=0))
    text = bytes(data[start + count :])
    if len(lengths) != count or len(text) != ends[-1]:
        raise _damaged("has labels of a wrong length")
    labels = tuple([text[first:last] for first, last in pairwise(ends)])
    if not _are_labels(labels, lengths):
        raise _damaged("has labels out of order")
    return labels


def _are_labels(labels: Sequence[bytes], lengths: Sequence[int]) -> bool:
    """Tell whether none is empty, too long, or less than the one before it."""
    if min(lengths) < 1 or max(lengths) > c.LIST_LABEL_MAX:
        return False
    return all(map(le, labels, islice(labels, 1, None)))


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"a chunk list {how}: run a verify of the repository")
