"""Which entries of a snapshot are wanted: paths and patterns.

Paths choose subtrees and cost a look-up each; patterns are asked about every entry on the way. The
entries come in path order, so a restore's memory is the way down to one of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from dedupstore.errors import UsageError
from dedupstore.findings import printable
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind
from dedupstore.sources.patterns import PatternSet
from dedupstore.tree.walk import LoadPage, Lost, components, find_in, lookup, subtree_of, walk

_DIR = int(NodeKind.DIR)


@dataclass(frozen=True, slots=True)
class Choice:
    """Include and exclude patterns; None where there are none."""

    include: PatternSet | None
    exclude: PatternSet | None

    @classmethod
    def of(cls, include: Sequence[str], exclude: Sequence[str]) -> "Choice":
        """Compile patterns; raises `UsageError` naming a bad one."""
        return cls(_compiled(include), _compiled(exclude))

    def includes(self, path: bytes, is_dir: bool) -> bool:
        """Whether an entry is asked for by itself; what lies in a folder that is, is too."""
        return self.include is None or self.include.excluded(path, is_dir)

    def excludes(self, path: bytes, is_dir: bool) -> bool:
        """Whether an entry, with all that is in it, is left out."""
        return self.exclude is not None and self.exclude.excluded(path, is_dir)


def _compiled(patterns: Sequence[str]) -> PatternSet | None:
    return PatternSet([os.fsencode(pattern) for pattern in patterns]) if patterns else None


def normal_paths(paths: Iterable[bytes]) -> list[tuple[bytes, ...]]:
    """Return paths as components, in path order, without those that lie in another one.

    Raises `UsageError` for one that is not absolute or climbs.
    """
    found: list[tuple[bytes, ...]] = []
    for path in paths:
        parts = components(path)
        if not path.startswith(b"/") or b".." in parts or b"." in parts:
            raise UsageError(
                f"{printable(path)} is not an absolute path inside the snapshot: give it as `ls` shows it",
                path=path,
            )
        found.append(parts)
    chosen: list[tuple[bytes, ...]] = []
    for parts in sorted(found):
        if not chosen or parts[: len(chosen[-1])] != chosen[-1]:
            chosen.append(parts)
    return chosen


def entries(
    load: LoadPage, root: TreeId, chosen: Sequence[tuple[bytes, ...]], descend: Callable[[bytes, Node], bool]
) -> Iterator[tuple[bytes, Node | Lost, bool]]:
    """Yield what is wanted in path order: path, entry, and whether it is only a folder on the way.

    ``descend`` is asked once a wanted folder, after it was yielded. Raises `NotFoundError` for a path
    that is not in the snapshot, when it is reached: `require` asks for all of them before.
    """
    if not chosen or chosen == [()]:
        for path, entry in walk(load, root, descend=descend):
            yield path, entry, False
        return
    before: tuple[bytes, ...] = ()
    for parts in chosen:
        folder, path = root, b""
        for depth, name in enumerate(parts):
            node = find_in(load, folder, name)
            path += b"/" + name
            if node is None:
                lookup(load, root, path)  # raises, and says what is missing
                return
            last = depth == len(parts) - 1
            if last or parts[: depth + 1] != before[: depth + 1]:
                yield path, node, not last
            if not last:
                folder = subtree_of(node)
            elif node.kind == _DIR and descend(path, node):
                for where, inner in walk(load, subtree_of(node), base=path, descend=descend):
                    yield where, inner, False
        before = parts


def leads_to(sources: Iterable[bytes], chosen: Sequence[tuple[bytes, ...]]) -> frozenset[bytes]:
    """Return the paths of folders that are only on the way: above all sources, or above what is chosen.

    The root's path is empty.
    """
    roots = [components(path) for path in sources] or [(b"?",)]
    above = {parts[:depth] for parts in roots for depth in range(len(parts))}
    leads = {parts for parts in above if not any(parts[: len(root)] == root for root in roots)}
    leads |= {parts[:depth] for parts in chosen for depth in range(len(parts))}
    return frozenset(b"".join([b"/" + name for name in parts]) for parts in leads)


def require(load: LoadPage, root: TreeId, chosen: Sequence[tuple[bytes, ...]]) -> None:
    """Raise `NotFoundError` if one of the paths is not in the snapshot."""
    for parts in chosen:
        lookup(load, root, b"/" + b"/".join(parts))
