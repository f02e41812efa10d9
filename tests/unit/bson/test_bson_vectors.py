"""Leaves and keys written down once: whoever changes one of them has changed the format."""

import functools
import hashlib
import itertools
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dedupstore.sources.bson.leaves import LeafCutter, kernels
from dedupstore.sources.bson.order import sort_key
from tests.unit.bson.bson_values import Value, document, text
from tests.unit.bson.leaf_inputs import made, noise, object_id

FOLDER = Path(__file__).parents[2] / "vectors" / "bson"


def identity(kind: str, number: int) -> Value:
    if kind == "int":
        return 0x10, struct.pack("<i", number)
    if kind == "string":
        return 0x02, text(b"key %06d" % number)
    if kind == "uuid":
        return 0x05, b"\x10\0\0\0\4" + struct.pack(">I", number) + noise(12, f"uuid {number}")
    if kind == "compound":
        return 0x03, document([(b"a", (0x02, text(b"x"))), (b"b", (0x12, struct.pack("<q", number)))])
    return object_id(number)


def build(parts: Sequence[dict[str, Any]]) -> bytes:
    data = b""
    for part in parts:
        if part["id"] == "none":
            data += b"".join(
                document([(b"f", (0x02, text(noise(part["size"], f"{part['seed']} {number}"))))])
                for number in range(part["count"])
            )
            continue
        first = part.get("first", 0)
        identities = (identity(part["id"], number) for number in range(first, first + part["count"]))
        data += b"".join(made(identities, part["size"], part["seed"]))
    return data


@functools.cache
def cases() -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads((FOLDER / "leaves.json").read_text("utf-8"))["cases"]}


@pytest.mark.parametrize("kernel", kernels())
@pytest.mark.parametrize("name", cases())
def test_leaves_as_written(name: str, kernel: str) -> None:
    case = cases()[name]
    data = build(case["input"])
    assert hashlib.sha256(data).hexdigest() == case["input_sha256"]
    cutter = LeafCutter(bytes.fromhex(case["key"]), kernel=kernel, **case["options"])
    found = cutter.cuts(memoryview(data), final=True)
    assert [[end, name.hex()] for end, name in found] == case["cuts"]
    assert (cutter.k, cutter.documents, cutter.in_order) == (case["k"], case["documents"], case["in_order"])


def test_keys_as_written() -> None:
    """They are listed in MongoDB's order, equals next to each other."""
    rows = json.loads((FOLDER / "order.json").read_text("utf-8"))["keys"]
    for row in rows:
        assert sort_key(bytes.fromhex(row["id"])).hex() == row["key"], row["name"]
    assert all(a["key"] <= b["key"] for a, b in itertools.pairwise(rows))
    equal = {
        tuple(sorted((a["name"], b["name"]))) for a, b in itertools.pairwise(rows) if a["key"] == b["key"]
    }
    assert equal == {
        ("NaN", "decimal NaN"),
        ("-inf", "decimal -inf"),
        ("-0.0", "0"),
        ("-0.0", "decimal 0E+3"),
        ("1", "1.0"),
        ("1.0", "long 1"),
        ("decimal 1.00", "long 1"),
        ("a", "symbol a"),
    }
