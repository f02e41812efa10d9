"""Names and keys; what a type may do."""

import pytest

from dedupstore.errors import UsageError
from dedupstore.objectstore import base
from dedupstore.objectstore.base import ObjectKey, ObjectKind, is_valid_name, require_mutable

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("kind", [kind for kind in ObjectKind if kind is not ObjectKind.CONFIG])
def test_hex_names(kind: ObjectKind) -> None:
    for name in (HEX, HEX[:8], HEX * 2, "00000000"):
        assert str(ObjectKey(kind, name)) == f"{kind.value}/{name}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../config",
        "/etc/passwd",
        HEX[:7],
        HEX * 2 + "0",
        HEX.upper(),
        HEX[:10] + "/" + HEX[:10],
        HEX + "\n",
        HEX + "\0",
        " " + HEX,
        HEX + ".tmp",
        ".tmp-" + HEX,
        "lock",
        "\u0660" * 8,
        "a" * 7 + "g",
    ],
)
@pytest.mark.parametrize("kind", ObjectKind)
def test_bad_names(kind: ObjectKind, name: str) -> None:
    assert not is_valid_name(kind, name)
    with pytest.raises(UsageError) as caught:
        ObjectKey(kind, name)
    assert repr(name) in caught.value.message


def test_fixed_names() -> None:
    assert str(ObjectKey(ObjectKind.CONFIG, "config")) == "config"
    assert str(ObjectKey(ObjectKind.GC, "gen")) == "gc/gen"
    for kind, name in (
        (ObjectKind.CONFIG, HEX),
        (ObjectKind.CONFIG, "gen"),
        (ObjectKind.GC, "config"),
        (ObjectKind.PACK, "gen"),
    ):
        with pytest.raises(UsageError):
            ObjectKey(kind, name)


def test_mutable_kinds() -> None:
    for kind in ObjectKind:
        key = ObjectKey(kind, "config" if kind is ObjectKind.CONFIG else HEX)
        if kind in {ObjectKind.CONFIG, ObjectKind.SESSION, ObjectKind.GC}:
            require_mutable(key, b"x", None)
        else:
            with pytest.raises(UsageError):
                require_mutable(key, b"x", None)


def test_power_is_a_type() -> None:
    """A reader can not write, a writer can not delete."""

    def methods(protocol: type) -> set[str]:
        return {name for name in dir(protocol) if not name.startswith("_")}

    assert methods(base.ObjectReader) == {"get", "get_ranges", "stat", "listing", "close"}
    assert methods(base.ObjectWriter) - methods(base.ObjectReader) == {"put", "replace"}
    assert methods(base.ObjectStore) - methods(base.ObjectWriter) == {"delete"}
