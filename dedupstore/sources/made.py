"""Folders that lie in no file system: what the sources that make them up have in common."""

import hashlib
from collections.abc import Sequence

from dedupstore.sources.base import SEGMENT_ENTRIES, Item, Listing
from dedupstore.sources.segments import pack_segment, unpack_folders, unpack_segment


class MadeFolder:
    """The part of `dedupstore.sources.base.Folder` that does not depend on what the entries are.

    It is walked whole, nothing of it is read ahead, and no descriptor is held. ``path`` is absolute.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.key = hashlib.blake2b(path, digest_size=16).digest()
        self.unstable: set[bytes] = set()

    def items(self, segment: bytes) -> list[Item]:
        """Take a segment apart."""
        return unpack_segment(segment, 0)

    def folders(self, segment: bytes) -> list[Item]:
        """Return the folders in a segment."""
        return unpack_folders(segment, 0)

    def expect(self, items: Sequence[Item]) -> None:
        """Nothing can be read ahead."""

    def descends(self, item: Item) -> bool:
        """Go everywhere."""
        del item
        return True

    def close(self) -> None:
        """Nothing is held."""


def segments_of(records: Sequence[tuple[bytes, bytes]]) -> Listing:
    """Return a listing of (name, stat record) in order of names."""
    starts = range(0, len(records), SEGMENT_ENTRIES)
    return tuple(pack_segment(records[start : start + SEGMENT_ENTRIES]) for start in starts)
