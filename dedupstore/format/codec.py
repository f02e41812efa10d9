"""Compression: raw, lz4 block, zstd frame; kept only where it pays, expanded only within bounds.

A zstd frame must state its content size, and it must be the record's plain length: the library
ignores its output limit for frames that state one, so that field, not the limit, is what a bomb
would lie in. A delta record is a zstd frame whose raw-content dictionary is the base chunk.

Threads: a `Compressor` and an `Expander` own contexts and belong to one thread each. The
interpreter lock is released while they work.
"""

import re
from dataclasses import dataclass
from typing import Self

import lz4.block
import zstandard

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.format.constants import CODEC_LZ4, CODEC_RAW, CODEC_ZSTD, RECORD_PLAIN_MAX
from dedupstore.model import Data

ZSTD_LEVELS = range(-7, 23)
LZ4_ACCELERATIONS = range(1, 65538)
_KEPT_NUMERATOR, _KEPT_DENOMINATOR = 97, 100
"""Compressed bytes are kept if they are at most this part of the plain ones."""
_TEXT = re.compile(r"(none|lz4|zstd)(?::(-?[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Compression:
    """Which codec new records get, and how hard it tries.

    ``level`` is zstd's level (-7 to 22) or lz4's acceleration (1 to 65537); 0 for raw.
    """

    codec: int
    level: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``none``, ``lz4``, ``lz4:4``, ``zstd``, ``zstd:3`` or ``zstd:-1``; raises `UsageError`."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UsageError(f"compression {text!r} is not known: say none, lz4, lz4:4, zstd or zstd:3")
        name, level = match.groups()
        if name == "none":
            if level is not None:
                raise UsageError("compression 'none' takes no level: leave it out")
            return cls(CODEC_RAW, 0)
        if name == "lz4":
            acceleration = 1 if level is None else int(level)
            if acceleration not in LZ4_ACCELERATIONS:
                raise UsageError(f"lz4 acceleration {acceleration} is out of range: say 1 to 65537")
            return cls(CODEC_LZ4, acceleration)
        number = 1 if level is None else int(level)
        if number not in ZSTD_LEVELS or number == 0:
            raise UsageError(f"zstd level {number} is out of range: say -7 to -1 or 1 to 22")
        return cls(CODEC_ZSTD, number)

    def __str__(self) -> str:
        """Return the text that `parse` reads back."""
        if self.codec == CODEC_RAW:
            return "none"
        return f"{'lz4' if self.codec == CODEC_LZ4 else 'zstd'}:{self.level}"


class Compressor:
    """Compresses records for one thread; holds one zstd context (up to some MiB by level)."""

    def __init__(self, compression: Compression) -> None:
        self._codec = compression.codec
        self._level = compression.level
        self._zstd: zstandard.ZstdCompressor | None = None
        if compression.codec == CODEC_ZSTD:
            # The seal already authenticates; a checksum would be paid for twice.
            self._zstd = zstandard.ZstdCompressor(
                level=compression.level, write_content_size=True, write_checksum=False, write_dict_id=False
            )

    def compress(self, data: Data) -> tuple[int, Data]:
        """Return the codec used and the bytes to seal: ``data`` itself if less than 3 % is saved."""
        packed: bytes
        if self._zstd is not None:
            packed = self._zstd.compress(data)
        elif self._codec == CODEC_LZ4:
            # Any other mode ignores the acceleration.
            packed = lz4.block.compress(data, mode="fast", acceleration=self._level, store_size=False)
        else:
            return CODEC_RAW, data
        if len(packed) * _KEPT_DENOMINATOR > len(data) * _KEPT_NUMERATOR:
            return CODEC_RAW, data
        return self._codec, packed


class Expander:
    """Expands records for one thread; holds one zstd context (about 160 KiB)."""

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor()

    def expand(self, codec: int, data: Data, plain_length: int, base: bytes | None = None) -> bytes:
        """Return the ``plain_length`` bytes that ``data`` stands for.

        Allocates ``plain_length`` bytes, which may be `RECORD_PLAIN_MAX` at most. ``base`` is the
        plaintext of the base chunk of a delta record. Raises `ObjectDamaged` if the bytes are not a
        whole stream of that length, `FormatError` for an unknown codec.
        """
        if not 0 <= plain_length <= RECORD_PLAIN_MAX:
            raise ObjectDamaged(
                f"a record claims {plain_length} bytes of plaintext, the limit is {RECORD_PLAIN_MAX}: "
                "run a verify of the repository"
            )
        if base is not None and codec != CODEC_ZSTD:
            raise ObjectDamaged(f"a record of codec {codec} names a base, which only zstd can use")
        if codec == CODEC_ZSTD:
            return self._expand_zstd(data, plain_length, base)
        if codec == CODEC_LZ4:
            plain = _expand_lz4(data, plain_length)
        elif codec == CODEC_RAW:
            plain = bytes(data)
        else:
            raise FormatError(f"codec number {codec} is unknown: a newer dstore is needed", codec=codec)
        if len(plain) != plain_length:
            raise _wrong_length(plain_length, len(plain))
        return plain

    def _expand_zstd(self, data: Data, plain_length: int, base: bytes | None) -> bytes:
        try:
            stated = zstandard.frame_content_size(data)
            if stated != plain_length:
                raise _wrong_length(plain_length, stated)
            context = self._zstd
            if base is not None:
                dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
                context = zstandard.ZstdDecompressor(dict_data=dictionary)
            plain = context.decompress(data, max_output_size=plain_length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ObjectDamaged(f"a zstd record does not expand ({error}): run a verify") from error
        if len(plain) != plain_length:
            raise _wrong_length(plain_length, len(plain))
        return plain


def expand(codec: int, data: Data, plain_length: int, base: bytes | None = None) -> bytes:
    """Expand one record with a context of its own (17 µs more than a kept `Expander`)."""
    return Expander().expand(codec, data, plain_length, base)


def _expand_lz4(data: Data, plain_length: int) -> bytes:
    try:
        plain: bytes = lz4.block.decompress(data, uncompressed_size=plain_length)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise ObjectDamaged(f"an lz4 record does not expand ({error}): run a verify") from error
    return plain


def _wrong_length(wanted: int, found: int) -> ObjectDamaged:
    return ObjectDamaged(f"a record expands to {found} bytes instead of {wanted}: run a verify")
