"""Every store against the store contract."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dedupstore.objectstore.base import ObjectStore
from dedupstore.objectstore.local import LocalStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.objectstore.url import open_store
from dedupstore.testing.contracts import STORE_CONTRACT
from dedupstore.testing.stores import CrashStore, FaultyStore

STORES: dict[str, Callable[[Path], ObjectStore]] = {
    "memory": lambda _: MemoryStore(),
    "local": lambda path: LocalStore.create(path / "store"),
    "local-buffered": lambda path: LocalStore.create(path / "store", direct=False),
    "local-named": lambda path: LocalStore.create(path / "store", anonymous=False),
    "url": lambda path: open_store(f"file://{path}/store", create=True),
    "faulty-without-fault": lambda _: FaultyStore(MemoryStore()),
    "crash-without-crash": lambda _: CrashStore(MemoryStore()),
}


@pytest.mark.parametrize("check", STORE_CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", STORES)
def test_contract(name: str, check: Callable[[ObjectStore], None], tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    check(store)
    store.close()
    store.close()
