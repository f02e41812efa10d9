"""Tree pages: a folder's entries as a B-tree whose page ends depend on names alone.

A page of level 0 holds nodes; a page above holds references to pages. Which names end a page is
decided by a keyed hash of each name, so equal folders give equal pages, a change costs one page a
level, and page sizes tell an observer nothing about the names.

Hot: pages decode straight into `Node` values, then a few passes refuse what must not be believed
(a page is authenticated, but its writer may have been hostile). Memory: about 400 bytes a node.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import lt

import msgspec

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.crypto import keyed_number
from dedupstore.format.payload import check_version
from dedupstore.ids import TreeId
from dedupstore.model import Data, Node, NodeKind, Summary


class PageRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a page above level 0 knows of a page below it."""

    first: bytes
    """Name of the first entry under it, all the way down."""
    id: TreeId
    summary: Summary
    entries: int
    """Nodes under it, all the way down."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as decoded: ``nodes`` at level 0, ``refs`` above; the other one is empty."""

    level: int
    summary: Summary
    nodes: tuple[Node, ...] = ()
    refs: tuple[PageRef, ...] = ()


class _Leaf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    summary: Summary
    nodes: tuple[Node, ...]


class _Branch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    summary: Summary
    refs: tuple[PageRef, ...]


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_LEAF_DECODER = msgspec.msgpack.Decoder(_Leaf)
_BRANCH_DECODER = msgspec.msgpack.Decoder(_Branch)

_FILE, _DIR, _SYMLINK, _BLOCK = NodeKind.FILE, NodeKind.DIR, NodeKind.SYMLINK, NodeKind.BLOCK_DEVICE
_STREAM = NodeKind.STREAM


def encode_page(page: Page) -> bytes:
    """Return the bytes of a page, the same for equal pages.

    Half the time would go into checking, so the caller keeps the rules of `check_page` or calls it.
    """
    prefix = c.PAGE_PREFIX.pack(c.PAGE_VERSION, page.level)
    if page.level == 0:
        return prefix + _ENCODER.encode(_Leaf(page.summary, page.nodes))
    return prefix + _ENCODER.encode(_Branch(page.summary, page.refs))


def decode_page(data: Data) -> Page:
    """Read a page; raises `FormatError` for a later version, `ObjectDamaged` for a bad page.

    What it returns is safe to walk and to make names from: names are unique, ascending and single
    path components; sizes are not negative; folders have a subtree.
    """
    check_version(c.PAGE_VERSION, data, "tree page")
    if len(data) <= c.PAGE_PREFIX_SIZE:
        raise _damaged("is cut off")
    level = data[1]
    if level > c.PAGE_LEVEL_MAX:
        raise _damaged(f"claims level {level}")
    body = memoryview(data)[c.PAGE_PREFIX_SIZE :]
    try:
        if level == 0:
            leaf = _LEAF_DECODER.decode(body)
            page = Page(0, leaf.summary, leaf.nodes)
        else:
            branch = _BRANCH_DECODER.decode(body)
            page = Page(level, branch.summary, (), branch.refs)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _damaged(f"is garbled ({error})") from error
    check_page(page)
    return page


def check_page(page: Page) -> None:
    """Refuse a page that breaks a rule of the format: raises `ObjectDamaged`, naming the rule."""
    _check_summary(page.summary)
    if page.level == 0:
        _check_names([node.name for node in page.nodes])
        _check_nodes(page.nodes)
    else:
        _check_refs(page.refs)


def _check_names(names: list[bytes]) -> None:
    # Passes in C over the whole list: a loop over names would double the cost of decoding.
    if not names:
        return
    if not all(map(lt, names, islice(names, 1, None))):
        raise _damaged("has names out of order or twice")
    joined = b"/".join(names)
    if not names[0] or joined.count(b"/") != len(names) - 1 or b"\0" in joined:
        raise _damaged("has a name that is empty or holds a slash or a zero byte")
    for special in (b".", b".."):
        place = bisect_left(names, special)
        if place < len(names) and names[place] == special:
            raise _damaged(f"has an entry named {special.decode()!r}")


def _check_nodes(nodes: Sequence[Node]) -> None:
    entry = c.LIST_ENTRY_SIZE
    for node in nodes:
        kind = node.kind
        if node.size < 0:
            raise _damaged(f"has an entry of negative size, {node.name!r}")
        if kind in (_FILE, _STREAM):
            depth = node.depth
            length = len(node.content)
            if length % entry if depth == 0 else (length != c.HASH_SIZE or not 0 < depth <= c.LIST_DEPTH_MAX):
                raise _damaged(f"has a bad list of chunks for {node.name!r}")
        elif kind == _DIR:
            if node.subtree is None or len(node.subtree) != c.HASH_SIZE:
                raise _damaged(f"has no subtree for the folder {node.name!r}")
            if node.summary is not None:
                _check_summary(node.summary)
        elif not _SYMLINK <= kind <= _BLOCK:
            raise _damaged(f"has an entry of unknown kind {kind}, {node.name!r}")


def _check_refs(refs: Sequence[PageRef]) -> None:
    if not refs:
        raise _damaged("refers to no page")
    _check_names([ref.first for ref in refs])
    for ref in refs:
        if len(ref.id) != c.HASH_SIZE or ref.entries < 1:
            raise _damaged(f"has a bad reference to the page from {ref.first!r} on")
        _check_summary(ref.summary)


def _check_summary(summary: Summary) -> None:
    if summary.files < 0 or summary.bytes < 0:
        raise _damaged("counts less than nothing")


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"a tree page {how}: run a verify of the repository")


class PageSplitter:
    """Decides where a page ends. Stateless but for the key; any thread may use it.

    At level 0 the names are those of the nodes, above it the ``first`` names of the references.
    """

    def __init__(self, names_key: bytes) -> None:
        """``names_key`` is the epoch's ``names`` key."""
        self._key = names_key

    def cut_after(self, name: bytes, entries_in_page: int, size: int = 0) -> bool:
        """Tell whether the page ends after ``name``.

        ``entries_in_page`` counts ``name`` too; ``size`` is what they encode to, in bytes, if known.
        """
        if entries_in_page >= c.PAGE_MAX_ENTRIES or size >= c.PAGE_MAX_BYTES:
            return True
        if entries_in_page < c.PAGE_MIN_ENTRIES:
            return False
        return keyed_number(self._key, name) < c.PAGE_THRESHOLD
