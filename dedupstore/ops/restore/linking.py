"""Files with several names: the first one restored leads, the others become links to it.

A group is a device's and an inode's number, and device numbers are given out anew at every boot or mount:
what was taken over unseen from an earlier snapshot may bear the number of another file that was read in
this one. So only what has the same content too is one file.

Memory: about 300 bytes for each such file of the whole restore (a node does not say how many names there
are, so none can be forgotten).
"""

import hashlib
from dataclasses import dataclass

from dedupstore.model import Node
from dedupstore.sources.files.beneath import Place


@dataclass(slots=True)
class Leader:
    """The name of a file that has others."""

    place: Place
    name: bytes


class Leaders:
    """Which name leads in each group of hard links. One thread."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Leader] = {}

    def find(self, node: Node) -> Leader | None:
        """Return the leader of a node's group; None if the node has but one name, or is the first."""
        return self._leaders.get(_identity(node)) if node.link else None

    def lead(self, node: Node, place: Place, name: bytes) -> None:
        """Note where the first name of a group is restored."""
        if node.link:
            self._leaders[_identity(node)] = Leader(place, name)


def _identity(node: Node) -> bytes:
    """Return what is equal in all names of one file, and in no other's."""
    state = hashlib.blake2b(node.link, digest_size=16)
    state.update(b"\0%d %d %d %d\0" % (node.kind, node.size, node.depth, node.rdev))
    state.update(node.content or node.target)
    return state.digest()
