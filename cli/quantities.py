"""Sizes and durations as people write them."""

import re

from dedupstore.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)", re.IGNORECASE)
_SECONDS = {"": 1, "S": 1, "M": 60, "H": 3600, "D": 86_400}
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Return bytes for a size such as ``512K``, ``1.5 GiB`` or ``4096``; units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size: write it like 64K, 512 KiB, 1.5G or 4096")
    return int(float(match[1]) * _FACTORS[match[2].upper()])


def parse_duration(text: str) -> float:
    """Return seconds for a duration such as ``90``, ``30s``, ``10m``, ``1.5h`` or ``1d``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no duration: write it like 30s, 10m or 1.5h")
    return float(match[1]) * _SECONDS[match[2].upper()]
