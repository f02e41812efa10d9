"""FORMAT.md and constants.py say the same."""

import ast
import re
import struct
from pathlib import Path

from dedupstore.format import constants

PAGE = Path(constants.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
STATED = re.findall(r"`([A-Z][A-Z0-9_]+) = ([^`]+)`", PAGE)
VALUES = {name: value for name, value in vars(constants).items() if name.isupper()}


def test_every_stated_value_is_the_constants() -> None:
    assert len(STATED) > 90
    for name, text in STATED:
        value = VALUES[name]
        found = value.format if isinstance(value, struct.Struct) else value
        assert found == ast.literal_eval(text), name


def test_every_constant_is_on_the_page() -> None:
    stated = {name for name, _ in STATED} | {"NO_BASE", "KIB", "MIB", "GIB"}
    assert set(VALUES) - stated == set()


def test_every_capital_name_is_a_constant() -> None:
    for name in re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`", PAGE):
        assert name in VALUES


def test_sizes_are_those_of_the_layouts() -> None:
    layouts = {name: value for name, value in VALUES.items() if isinstance(value, struct.Struct)}
    assert len(layouts) == 12
    for name, layout in layouts.items():
        assert layout.size == VALUES[f"{name}_SIZE"], name


def test_byte_tables_add_up() -> None:
    """Each table of offsets follows its layout's name; fields must lie as the layout says."""
    checked = []
    for table in re.finditer(r"\| offset \| size \| field \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE):
        before = PAGE[: table.start()]
        name, text = re.findall(r'`([A-Z0-9_]+) = "(<[^"]+)"`', before)[-1]
        rows = [[int(cell) for cell in re.findall(r"\d+", row)[:2]] for row in table[1].splitlines()]
        offset, expected = 0, []
        for repeat, code in re.findall(r"(\d*)([a-zA-Z])", text):
            size = struct.calcsize(f"<{repeat}{code}")
            expected.append([offset, size])
            offset += size
        assert rows == expected, name
        checked.append(name)
    assert checked == [
        "SLOT_HEADER",
        "CONFIG_HEADER",
        "ENVELOPE_HEADER",
        "PACK_HEADER",
        "RECORD_AD",
        "PACK_TRAILER",
        "LIST_HEADER",
    ]
