"""Files with several names: the first one restored leads, the others become links to it.

Memory: about 250 bytes for each such file of the whole restore (a node does not say how many names there
are, so none can be forgotten).
"""

from dataclasses import dataclass

from dedupstore.model import Node
from dedupstore.sources.files.beneath import Place


@dataclass(slots=True)
class Leader:
    """The name of a file that has others."""

    kind: int
    place: Place
    name: bytes


class Leaders:
    """Which name leads in each group of hard links. One thread."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Leader] = {}

    def find(self, node: Node) -> Leader | None:
        """Return the leader of a node's group; None if the node has but one name, or is the first."""
        if not node.link:
            return None
        leader = self._leaders.get(node.link)
        # Names of one file are of one kind; a tree that says otherwise gets two files.
        return leader if leader is not None and leader.kind == node.kind else None

    def lead(self, node: Node, place: Place, name: bytes) -> None:
        """Note where the first name of a group is restored."""
        if node.link:
            self._leaders[node.link] = Leader(node.kind, place, name)
