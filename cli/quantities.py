"""Sizes as people write them."""

import re

from dedupstore.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Return bytes for a size such as ``512K``, ``1.5 GiB`` or ``4096``; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size: write it like 64K, 512 KiB, 1.5G or 4096")
    return int(float(match[1]) * _FACTORS[match[2].upper()])
