"""In which way a file of documents is read: as a collection if it can be, as bytes if it can not.

What a file is shows only while it is read: that its documents are not in order, that one has no ``_id``, that
the end is missing. Then reading starts again in another way, and what was read is forgotten; a leaf that is
the same in both ways is stored once all the same. A way leads only to later ones, so that comes to an end.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from dedupstore.errors import SourceError
from dedupstore.model import Data
from dedupstore.sources.base import StartAgain
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionFacts, CollectionInfo
from dedupstore.sources.bson.leaves import LEAF_MAX, LeafCutter, id_in_front


class Way(IntEnum):
    """How a file is read."""

    AS_FOUND = 1
    """Leaves, and the documents are in order of ``_id`` as they stand."""
    SORTED = 2
    """Leaves, of the documents put in order."""
    NATURAL = 3
    """Leaves without labels, in the order that is found: capped collections, documents without ``_id``."""
    BYTES = 4
    """No documents as far as we can tell; gzip is undone."""
    PACKED = 5
    """Damaged gzip, byte for byte."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """What of the repository decides where leaves end."""

    key: bytes = field(repr=False)
    """16 bytes, the same for all sources of one repository."""
    max_size: int
    """Bytes: its longest chunk."""
    k_of: Callable[[CollectionInfo], int | None] = lambda _: None
    """What the last snapshot of a collection says of ``k``, if there is one."""


class Attempt:
    """How one file is read now, and what was wrong with it.

    ``where`` names it in messages; without ``info`` it is read as bytes; ``doubt`` is what was wrong before.
    """

    def __init__(
        self, where: str, info: CollectionInfo | None, leaves: Leaves, *, doubt: SourceError | None = None
    ) -> None:
        self.where = where
        self._info = info
        self._leaves = leaves
        self.way = Way.BYTES
        if info is not None:
            self.way = Way.NATURAL if is_capped(info) else Way.AS_FOUND
        self.doubt = doubt
        """What is wrong with the file though it is stored."""
        self._told = doubt is None

    def tell(self) -> None:
        """Raise `StartAgain` with what was wrong before, once."""
        if not self._told:
            self._told = True
            raise StartAgain(self.doubt)

    def cutter(self) -> "CollectionCutter | None":
        """Return what cuts the file this time; None for bytes."""
        if self._info is None or self.way >= Way.BYTES:
            return None
        leaves = LeafCutter(
            self._leaves.key,
            k=self._leaves.k_of(self._info),
            sorted=self.way != Way.NATURAL,
            max_size=self._leaves.max_size,
        )
        return CollectionCutter(leaves, self, self._info)

    def misread(self, error: SourceError, window: Data = b"", at: int = 0) -> StartAgain:
        """Choose another way after ``error``; return what to raise. ``window[at:]`` is what it is about."""
        before = self.way
        self.way = self._after(before, window, at)
        if self.way >= Way.BYTES:
            self.doubt = _doubt(self.where, error)
        return StartAgain(self.doubt)

    def unpacked_badly(self, error: SourceError) -> StartAgain:
        """Read what is damaged gzip as it is; return what to raise."""
        self.way, self.doubt = Way.PACKED, error
        return StartAgain(error)

    def _after(self, way: Way, window: Data, at: int) -> Way:
        if way >= Way.NATURAL or len(window) - at < raw.DOCUMENT_MIN:
            return Way.BYTES
        (length,) = struct.unpack_from("<i", window, at)
        if not raw.DOCUMENT_MIN <= length <= raw.DOCUMENT_MAX:
            return Way.BYTES
        if not id_in_front(bytes(window[at : at + min(LEAF_MAX, self._leaves.max_size)])):
            return Way.NATURAL
        return Way.SORTED if way == Way.AS_FOUND else Way.BYTES


class CollectionCutter:
    """A `Cutter` that has the file read in another way where it meets what it can not cut."""

    def __init__(self, leaves: LeafCutter, attempt: Attempt, info: CollectionInfo) -> None:
        self.max_size = leaves.max_size
        self._leaves = leaves
        self._attempt = attempt
        self._info = info
        self._passed = 0

    def cuts(self, data: memoryview, *, final: bool) -> list[tuple[int, bytes]]:
        """Return where leaves end; raises `StartAgain` instead of `SourceError`."""
        try:
            found = self._leaves.cuts(data, final=final)
        except SourceError as error:
            offset = error.data.get("offset")
            at = offset - self._passed if isinstance(offset, int) else len(data)
            raise self._attempt.misread(error, data, at) from error
        if found:
            self._passed += found[-1][0]
        return found

    def facts(self) -> CollectionFacts:
        """Return what is to be kept with the content, after the end."""
        return CollectionFacts(
            k=self._leaves.k or 0,
            in_order=self._attempt.way != Way.NATURAL,
            documents=self._leaves.documents,
            db=self._info.db,
            name=self._info.name,
            uuid=self._info.uuid,
        )


def begin(where: str, read_info: Callable[[], CollectionInfo] | None, leaves: Leaves) -> Attempt:
    """Return the first attempt at a file: as documents if there is something to say of their collection.

    Where that can not be read, the file is stored as bytes, with a finding.
    """
    if read_info is None:
        return Attempt(where, None, leaves)
    try:
        return Attempt(where, read_info(), leaves)
    except SourceError as error:
        doubt = SourceError(
            f"{where} was stored as a file, not as a collection, since its metadata can not be used: {error}"
        )
        return Attempt(where, None, leaves, doubt=doubt)


def is_capped(info: CollectionInfo) -> bool:
    """Tell whether the order of insertion is part of the data."""
    found = raw.field(info.options, b"capped")
    return found is not None and any(info.options[found.start : found.end])


def _doubt(where: str, error: SourceError) -> SourceError:
    offset, how = error.data.get("offset"), error.data.get("how")
    what = f"BSON {how} at byte {offset}" if how is not None else error.message
    return SourceError(
        f"{where} was stored as plain bytes, for it is no collection ({what}): take the dump again",
        offset=offset,
    )
