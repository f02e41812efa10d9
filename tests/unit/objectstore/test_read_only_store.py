"""`ReadOnlyStore` reads and refuses."""

import pytest

from dedupstore.errors import ReadOnlyError
from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.objectstore.readonly import ReadOnlyStore

PACK = ObjectKey(ObjectKind.PACK, "00" * 32)


def test_reads_pass_and_writes_do_not() -> None:
    inner = MemoryStore()
    inner.put(CONFIG_KEY, [b"c"])
    store: ObjectStore = ReadOnlyStore(inner)
    assert store.get(CONFIG_KEY) == b"c"
    assert store.get_ranges(CONFIG_KEY, [(0, 1)]) == [b"c"]
    assert store.stat(CONFIG_KEY) == inner.stat(CONFIG_KEY)
    assert list(store.listing(ObjectKind.CONFIG)) == [inner.stat(CONFIG_KEY)]
    for write in (
        lambda: store.put(PACK, [b"x"]),
        lambda: store.replace(CONFIG_KEY, b"d", expect=b"c"),
        lambda: store.replace(CONFIG_KEY, None, expect=b"c"),
        lambda: store.delete([CONFIG_KEY]),
    ):
        with pytest.raises(ReadOnlyError, match="open it for writing"):
            write()
    store.delete([])
    store.close()
    assert inner.get(CONFIG_KEY) == b"c"
    assert list(inner.listing(ObjectKind.PACK)) == []
