"""The way down to where a restore is: one level for each folder, and what it knows of the disk.

A folder that the restore makes has nothing in it, so nothing needs to be looked at there. One that was
there is listed once, and its names are merged with those of the snapshot, both being in order: what the
snapshot does not have falls out. Memory: the names of the existing folders on the way down.
"""

import os
import stat

from dedupstore.model import Node
from dedupstore.sources.files.beneath import Place


class Level:
    """A folder of the snapshot that the restore is inside of."""

    __slots__ = (
        "_at",
        "_listing",
        "blocked",
        "extras",
        "fresh",
        "inside",
        "last",
        "lost",
        "mode",
        "name",
        "node",
        "obstacle",
        "parent",
        "passage",
        "path",
        "place",
        "virtual",
    )

    def __init__(self, parent: "Level | None", path: bytes, node: Node, *, inside: bool) -> None:
        self.parent = parent
        self.path = path
        """In the snapshot; empty for its root."""
        self.node = node
        self.name = node.name
        """On the disk."""
        self.inside = inside
        """Whether everything in it is asked for."""
        self.passage = False
        """Whether it is only on the way to what is asked for."""
        self.place: Place | None = None
        """On the disk, once it is there."""
        self.fresh = True
        """Whether nothing can stand in it but what this run makes."""
        self.obstacle: os.stat_result | None = None
        """What stands in its place and is no folder."""
        self.blocked = False
        """Whether it can not be made, which has been reported."""
        self.virtual = False
        """Whether it counts as made, in a dry run."""
        self.lost = False
        """Whether some of its entries could not be read, so that nobody knows what is surplus."""
        self.mode: int | None = None
        """Permission bits to give back, if it stays as it was."""
        self.last = b""
        """The name that came last."""
        self.extras: list[bytes] = []
        """Names on the disk that the snapshot does not have."""
        self._listing: list[bytes] = []
        self._at = 0

    def found(self, place: Place, status: os.stat_result, names: list[bytes]) -> None:
        """It is there already, with these names in it, sorted."""
        self.place = place
        self.fresh = False
        self.mode = stat.S_IMODE(status.st_mode)
        self._listing = names

    def has(self, name: bytes) -> bool:
        """Whether the name stands on the disk; to be asked in the order of names."""
        listing = self._listing
        at = self._at
        while at < len(listing) and listing[at] < name:
            self.extras.append(listing[at])
            at += 1
        there = at < len(listing) and listing[at] == name
        self._at = at + 1 if there else at
        return there

    def rest(self) -> list[bytes]:
        """Return every name on the disk that the snapshot does not have; the folder is done."""
        self.extras += self._listing[self._at :]
        self._listing = []
        return self.extras
