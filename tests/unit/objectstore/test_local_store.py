"""What `LocalStore` promises beyond the contract: layout, foreign files, permissions, the page cache."""

import errno
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dedupstore.errors import (
    AccessError,
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ReadOnlyError,
    StoreError,
)
from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind
from dedupstore.objectstore.local import LocalStore
from dedupstore.testing.contracts import key_of

GEN = ObjectKey(ObjectKind.GC, "gen")
NOBODY = 65534


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


def fill(store: LocalStore) -> None:
    for kind in ObjectKind:
        store.put(key_of(kind, 1, first=0xAB), [b"x"])


def test_layout(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalStore.create(root)
    fill(store)
    store.replace(GEN, b"1", expect=None)
    name = key_of(ObjectKind.PACK, 1, first=0xAB).name
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == {
        "config",
        "lock",
        f"keys/{name}",
        f"packs/ab/{name}",
        f"index/{name}",
        f"sessions/{name}",
        f"snapshots/{name}",
        f"gc/{name}",
        "gc/gen",
    }
    assert str(root) in repr(store)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    ("root_mode", "folder", "file"), [(None, 0o700, 0o600), (0o2770, 0o2770, 0o660), (0o755, 0o750, 0o640)]
)
@pytest.mark.parametrize("anonymous", [True, False])
def test_modes_follow_the_root(
    umask: int, root_mode: int | None, folder: int, file: int, anonymous: bool, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    if root_mode is not None:
        root.mkdir()
        root.chmod(root_mode)
    before = os.umask(umask)
    try:
        store = LocalStore.create(root, anonymous=anonymous)
        fill(store)
        store.replace(GEN, b"1", expect=None)
        store.replace(GEN, b"2", expect=b"1")
    finally:
        os.umask(before)
    found = modes(root)
    assert {mode for name, mode in found.items() if (root / name).is_file()} == {file}
    assert {mode for name, mode in found.items() if (root / name).is_dir()} == {folder}
    if root_mode is None:
        assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_create_again_after_it_was_cut_short(tmp_path: Path) -> None:
    root = tmp_path / "store"
    (root / "keys").mkdir(parents=True)
    (root / "lost+found").mkdir()
    LocalStore.create(root).put(CONFIG_KEY, [b"c"])
    with pytest.raises(ObjectExists, match="choose a new or an empty folder"):
        LocalStore.create(root)


@pytest.mark.parametrize("name", ["file", "packs/ab", "keys/x", "other/"])
def test_create_refuses_what_is_in_use(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.mkdir() if name.endswith("/") or "packs" in name else place.write_bytes(b"")
    with pytest.raises(ObjectExists):
        LocalStore.create(tmp_path)


def test_create_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        LocalStore.create(tmp_path / "file")


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """An unmounted disk is never an empty store, nor filled as if it were one."""
    store = LocalStore(tmp_path / "absent")
    with pytest.raises(ObjectNotFound, match="config is not in"):
        store.get(CONFIG_KEY)
    for kind in set(ObjectKind) - {ObjectKind.CONFIG}:
        with pytest.raises(StoreError, match="is not there"):
            list(store.listing(kind))
    for write in (
        lambda: store.put(key_of(ObjectKind.PACK, 1), [b"x"]),
        lambda: store.put(CONFIG_KEY, [b"x"]),
        lambda: store.replace(GEN, b"x", expect=None),
        lambda: store.delete([key_of(ObjectKind.PACK, 1)]),
    ):
        with pytest.raises(StoreError, match="is not there"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_mount_point_does_not_fill(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for kind in (ObjectKind.PACK, ObjectKind.INDEX):
        with pytest.raises(StoreError, match="is not there"):
            store.put(key_of(kind, 1), [b"x"])
    with pytest.raises(StoreError, match="is not there"):
        store.replace(GEN, b"x", expect=None)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_copy_dropped_come_back(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    store.put(CONFIG_KEY, [b"c"])
    for folder in ("packs", "gc", "snapshots"):
        (tmp_path / "store" / folder).rmdir()
    copy = LocalStore(tmp_path / "store")
    assert list(copy.listing(ObjectKind.PACK)) == list(copy.listing(ObjectKind.SNAPSHOT)) == []
    fill_without_config = set(ObjectKind) - {ObjectKind.CONFIG}
    for kind in fill_without_config:
        copy.put(key_of(kind, 1), [b"x"])
        assert [info.key for info in copy.listing(kind)] == [key_of(kind, 1)]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalStore.create(root)
    fill(store)
    name = key_of(ObjectKind.PACK, 1, first=0xAB).name
    foreign = [
        root / "README",
        root / "index/.nfs000001",
        root / "index/.tmp-1234",
        root / f"index/{name}.part",
        root / f"index/{name.upper()}",
        root / "packs/README",
        root / "packs/a",
        root / f"packs/{name}",
        root / f"packs/ab/cd{name[2:]}",
    ]
    for path in foreign:
        path.write_bytes(b"foreign")
    (root / "packs/abcd").mkdir()
    (root / f"packs/abcd/{name}").write_bytes(b"foreign")
    (root / f"index/{'0' * 64}").mkdir()
    for kind in ObjectKind:
        assert [info.key for info in store.listing(kind)] == [key_of(kind, 1, first=0xAB)]
    assert list(store.listing(ObjectKind.PACK, "a/")) == []
    assert all(path.exists() for path in foreign)


def test_what_is_no_file_is_damage(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    folder, pipe = key_of(ObjectKind.INDEX, 1), key_of(ObjectKind.INDEX, 2)
    (tmp_path / "store" / str(folder)).mkdir()
    os.mkfifo(tmp_path / "store" / str(pipe))
    for key in (folder, pipe):
        for read in (store.get, store.stat, lambda key: store.get_ranges(key, [(0, 1)])):
            with pytest.raises(ObjectDamaged, match="no regular file"):
                read(key)


def test_a_pack_folder_that_is_a_file(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    (tmp_path / "store/packs/ab").write_bytes(b"")
    key = key_of(ObjectKind.PACK, 1, first=0xAB)
    with pytest.raises(ObjectNotFound):
        store.get(key)
    with pytest.raises(StoreError):
        store.put(key, [b"x"])
    assert list(store.listing(ObjectKind.PACK)) == []


def test_a_deleted_lock_file_comes_back(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    store.replace(GEN, b"1", expect=None)
    (tmp_path / "store/lock").unlink()
    store.replace(GEN, b"2", expect=b"1")
    assert store.get(GEN) == b"2"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    before = sorted(os.listdir("/proc/self/fd"))
    fill(store)
    for again in (
        lambda: fill(store),
        lambda: store.get(key_of(ObjectKind.PACK, 9)),
        lambda: store.get_ranges(CONFIG_KEY, [(5, 5)]),
        lambda: store.replace(GEN, b"1", expect=b"0"),
    ):
        with pytest.raises((StoreError, ObjectNotFound, ObjectDamaged)):
            again()
    iterator = store.listing(ObjectKind.PACK)
    next(iterator)
    assert sorted(os.listdir("/proc/self/fd")) == before


def in_page_cache(path: Path) -> bool:
    """Tell whether the first block of a file is in memory, by a read that must not wait."""
    with path.open("rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
    return True


def test_large_writes_pass_by_the_page_cache(tmp_path: Path) -> None:
    buffer = mmap.mmap(-1, 2 << 20)
    buffer[:] = b"ab" * (1 << 20)
    (tmp_path / "probe").write_bytes(b"x")
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_DIRECT))
        in_page_cache(tmp_path / "probe")
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            pytest.skip("this file system has no direct writes")
        raise
    for direct in (True, False):
        root = tmp_path / f"direct-{direct}"
        store = LocalStore.create(root, direct=direct)
        for parts in ([memoryview(buffer)], [memoryview(buffer), b"tail"]):
            key = key_of(ObjectKind.INDEX, len(parts))
            store.put(key, parts)
            assert in_page_cache(root / str(key)) is not direct
            assert store.get(key) == b"".join(parts)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Do without the powers of root for a while."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_group_that_may_read() -> None:
    """Reading needs no lock and no write permission; writing is refused with the right error."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        root = Path(scratch) / "store"
        root.mkdir()
        os.chown(root, 0, NOBODY)
        root.chmod(0o2750)
        fill(LocalStore.create(root))
        with as_nobody():
            store = LocalStore(root)
            for kind in ObjectKind:
                assert [store.get(info.key) for info in store.listing(kind)] == [b"x"]
            for write in (
                lambda: store.put(key_of(ObjectKind.PACK, 2, first=0xAB), [b"x"]),
                lambda: store.put(key_of(ObjectKind.PACK, 2, first=0xCD), [b"x"]),
                lambda: store.replace(GEN, b"x", expect=None),
                lambda: store.replace(CONFIG_KEY, b"y", expect=b"x"),
                lambda: store.delete([key_of(ObjectKind.PACK, 1, first=0xAB)]),
                lambda: LocalStore.create(root / "inside"),
            ):
                with pytest.raises(ReadOnlyError, match="correct its permissions"):
                    write()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_store_that_is_closed_to_us() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        root = Path(scratch) / "store"
        fill(LocalStore.create(root))
        with as_nobody():
            store = LocalStore(root)
            for read in (
                lambda: store.get(CONFIG_KEY),
                lambda: store.stat(CONFIG_KEY),
                lambda: list(store.listing(ObjectKind.PACK)),
                lambda: list(store.listing(ObjectKind.CONFIG)),
            ):
                with pytest.raises(AccessError, match="cannot read"):
                    read()
