"""The checksum of messages: CRC-32C (Castagnoli), which `zlib` does not have. Some MB/s; pure."""

from dedupstore.model import Data

_POLYNOMIAL = 0x82F63B78


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(_row(byte) for byte in range(256))


def crc32c(data: Data) -> int:
    """Return the checksum of bytes."""
    value = 0xFFFF_FFFF
    table = _TABLE
    for byte in bytes(data):
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFF_FFFF
