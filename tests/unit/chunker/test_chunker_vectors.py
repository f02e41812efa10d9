"""Cuts written down once: whoever changes one of them has changed the format."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dedupstore.chunker.base import Params, kernel_name, kernels, make_chunker

VECTORS = Path(__file__).parents[2] / "vectors" / "chunker" / "aes_window.json"
LIMIT = {"python": 10_000, "numpy": 1 << 20, "c": 2 << 20}
"""Bytes of input that a slow kernel is asked for."""


def build(parts: Sequence[dict[str, Any]]) -> bytes:
    data = b""
    for part in parts:
        size = part["size"]
        if "shake128" in part:
            data += hashlib.shake_128(part["shake128"].encode()).digest(size)
        else:
            unit = bytes.fromhex(part["repeat"])
            data += (unit * (size // len(unit) + 1))[:size]
    return data


@functools.cache
def cases() -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads(VECTORS.read_text("utf-8"))["cases"]}


@functools.cache
def input_of(name: str) -> bytes:
    return build(cases()[name]["input"])


@pytest.mark.parametrize("name", cases())
def test_the_vector_is_whole(name: str) -> None:
    case = cases()[name]
    assert hashlib.sha256(input_of(name)).hexdigest() == case["input_sha256"]
    packed = b"".join(end.to_bytes(8, "little") for end in case["cuts"])
    assert hashlib.sha256(packed).hexdigest() == case["cuts_sha256"]


def runs() -> list[tuple[str, str]]:
    """Every case by every kernel that is fast enough for it; the best one here does all."""
    sizes = {name: sum(part["size"] for part in case["input"]) for name, case in cases().items()}
    return [
        (name, kernel)
        for name, size in sizes.items()
        for kernel in kernels()
        if kernel == kernel_name() or size <= LIMIT.get(kernel, size)
    ]


@pytest.mark.parametrize(("name", "kernel"), runs())
def test_every_kernel_cuts_as_written(name: str, kernel: str) -> None:
    case = cases()[name]
    chunker = make_chunker(bytes.fromhex(case["key"]), Params(**case["params"]), kernel)
    assert chunker.cuts(input_of(name), True) == case["cuts"]
