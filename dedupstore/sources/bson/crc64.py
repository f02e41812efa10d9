"""CRC-64/XZ, the checksum of each namespace in an archive of mongodump (Go calls it ``crc64.ECMA``).

Polynomial 0x42F0E1EBA9EA3693 reflected, register and result inverted: ``123456789`` gives 0x995DC9BBDF1939FA.
The Python is the definition, at some 10 MB/s; ``_crc64.c`` gives the same at some GB/s without the
interpreter's lock. Pure functions, safe from any thread.
"""

from types import ModuleType

from dedupstore.model import Data

_native: ModuleType | None
try:
    from dedupstore.sources.bson import _crc64 as _native
except ImportError:
    _native = None

_POLYNOMIAL = 0xC96C5795D7870F42
_ONES = 0xFFFF_FFFF_FFFF_FFFF


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_row(byte) for byte in range(256))


def crc64_plain(data: Data, crc: int = 0) -> int:
    """Return the checksum of what has the checksum ``crc``, followed by ``data``: the definition."""
    state, table = crc ^ _ONES, _TABLE
    for byte in memoryview(data).cast("B"):
        state = state >> 8 ^ table[(state ^ byte) & 0xFF]
    return state ^ _ONES


def crc64(data: Data, crc: int = 0) -> int:
    """Return the same, by the native code if it was built."""
    return int(_native.crc64(data, crc)) if _native is not None else crc64_plain(data, crc)
