"""Hypothesis strategies for trees, and the plain model they are compared with.

A tree is a nested dict, name → `Node` or dict; its model is a flat dict, path → `Node`, in path order.
"""

from collections.abc import Iterator

from hypothesis import strategies as st

from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import Folder

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"aa", b"a!", b"b.", b"\xff", b"...", b"\n"])

LEAVES = st.builds(
    Node,
    name=st.just(b"?"),
    kind=st.sampled_from([int(NodeKind.FILE), int(NodeKind.SYMLINK)]),
    mtime=st.integers(0, 1),
    size=st.integers(0, 1),
)


def _folders(children: st.SearchStrategy[Node | Folder]) -> st.SearchStrategy[Folder]:
    return st.dictionaries(NAMES, children, max_size=9)


TREES: st.SearchStrategy[Folder] = _folders(st.recursive(LEAVES, _folders, max_leaves=12))
"""Trees of up to a few dozen entries."""


def named(folder: Folder) -> Folder:
    """Return the tree with each entry's name written into its node."""
    return {
        name: Node(name, entry.kind, mode=entry.mode, mtime=entry.mtime, size=entry.size)
        if isinstance(entry, Node)
        else named(entry)
        for name, entry in folder.items()
    }


def flat(folder: Folder, base: bytes = b"") -> Iterator[tuple[bytes, Node | None]]:
    """Yield every path with its node, or None for a folder; depth first, names bytewise."""
    for name in sorted(folder):
        entry = folder[name]
        path = base + b"/" + name
        if isinstance(entry, Node):
            yield path, entry
        else:
            yield path, None
            yield from flat(entry, path)
