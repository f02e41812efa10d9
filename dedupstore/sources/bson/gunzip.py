"""Undoing gzip as it comes in: members one after the other, each checked by its own CRC and length.

Memory: the window of 32 KiB, `_INPUT` bytes of input, and no more output than was asked for. One thread.
"""

import zlib

from dedupstore.errors import SourceError
from dedupstore.sources.bson.feed import Fill

MAGIC = b"\x1f\x8b\x08"
"""How a gzip member begins: its two magic bytes, and the one method there is."""

_INPUT = 256 * 1024
_WINDOW = 31  # zlib's word for "gzip, any window"


class Gunzip:
    """What ``fill`` brings, unpacked. ``where`` names it in messages.

    Zeros behind the last member are passed over (tapes pad with them); anything else there is damage.
    """

    def __init__(self, fill: Fill, where: str) -> None:
        self._fill = fill
        self._where = where
        self._member = zlib.decompressobj(_WINDOW)
        self._buffer = memoryview(bytearray(_INPUT))
        self._input = b""
        self._read = 0
        self._begun = False  # inside a member
        self._ended = False

    def fill(self, view: memoryview) -> int:
        """Go on; returns 0 at the end. Raises `SourceError` for what is no whole gzip, naming the offset."""
        while view and not self._ended:
            if not self._input and not self._next_input():
                break
            if not self._begun and not self._begin():
                continue
            try:
                found = self._member.decompress(self._input, len(view))
            except zlib.error as error:
                raise self._damaged(f"is damaged gzip ({error})") from error
            self._input = self._member.unconsumed_tail
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = zlib.decompressobj(_WINDOW)
                self._begun = False
            if found:
                view[: len(found)] = found
                return len(found)
        return 0

    def _next_input(self) -> bool:
        size = self._fill(self._buffer)
        self._read += size
        self._input = bytes(self._buffer[:size])
        if size:
            return True
        self._ended = True
        if self._begun:
            # What zlib holds back of the last input is output that fits no view, never a whole end.
            raise self._damaged("ends in the middle of its gzip")
        if not self._read:
            raise self._damaged("is empty, and should be gzip")
        return False

    def _begin(self) -> bool:
        """Look for the next member; says whether one begins here."""
        first = self._read == len(self._input)
        if not first:
            self._input = self._input.lstrip(b"\0")
        if not self._input:
            return False
        if self._input[:1] != MAGIC[:1]:
            raise self._damaged("is no gzip" if first else "has other bytes behind its gzip")
        self._begun = True
        return True

    def _damaged(self, how: str) -> SourceError:
        offset = self._read - len(self._input)
        return SourceError(
            f"{self._where} {how} (byte {offset}): take the dump again, or a copy from elsewhere",
            offset=offset,
        )
