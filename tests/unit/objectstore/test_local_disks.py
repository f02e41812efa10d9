"""`LocalStore` on disks that fill up, refuse writes, or lose power. Needs root, to mount them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dedupstore.errors import ReadOnlyError, StoreError, StoreFull
from dedupstore.objectstore.base import CONFIG_KEY, ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.local import LocalStore
from dedupstore.testing.contracts import STORE_CONTRACT, key_of

GEN = ObjectKey(ObjectKind.GC, "gen")
Mount = Callable[..., Path]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount something with the options given, on a folder of its own; skip where that is not allowed."""
    mounted: list[Path] = []

    def do(*options: str | Path) -> Path:
        place = tmp_path / f"mounted-{len(mounted)}"
        place.mkdir()
        done = run("mount", *options, place)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield do
    for place in reversed(mounted):
        run("umount", place)


@pytest.fixture
def small(mount: Mount) -> Path:
    return mount("-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs")


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_a_full_disk(small: Path, anonymous: bool, direct: bool) -> None:
    store = LocalStore.create(small, anonymous=anonymous, direct=direct)
    store.replace(GEN, b"before", expect=None)
    store.put(key_of(ObjectKind.PACK, 1), [bytes(1 << 20)])
    for _ in range(3):
        with pytest.raises(StoreFull, match="free space there"):
            store.put(key_of(ObjectKind.PACK, 2), [bytes(1 << 20), b"x" * 500_000])
    with pytest.raises(StoreFull):
        store.replace(GEN, bytes(2 << 20), expect=b"before")
    assert [info.key for info in store.listing(ObjectKind.PACK)] == [key_of(ObjectKind.PACK, 1)]
    assert store.get(GEN) == b"before"
    assert not list(small.rglob(".tmp-*"))
    store.delete([key_of(ObjectKind.PACK, 1)])
    store.put(key_of(ObjectKind.PACK, 2), [bytes(1 << 20), b"x" * 500_000])
    assert store.get(key_of(ObjectKind.PACK, 2)) == bytes(1 << 20) + b"x" * 500_000


def test_a_disk_without_inodes(mount: Mount) -> None:
    store = LocalStore.create(mount("-t", "tmpfs", "-o", "size=2m,nr_inodes=12", "tmpfs"))
    errors = []
    for number in range(20):
        try:
            store.put(key_of(ObjectKind.PACK, number, first=number), [b"x"])
        except StoreFull as error:
            errors.append(error)
    whole = list(store.listing(ObjectKind.PACK))
    assert whole
    assert len(whole) + len(errors) == 20
    assert all(info.size == 1 for info in whole)


def test_a_disk_mounted_read_only(small: Path) -> None:
    store = LocalStore.create(small)
    store.put(CONFIG_KEY, [b"c"])
    store.put(key_of(ObjectKind.PACK, 1), [b"x"])
    assert run("mount", "-o", "remount,ro", small).returncode == 0
    for reopened in (store, LocalStore(small)):
        assert reopened.get(CONFIG_KEY) == b"c"
        assert reopened.get_ranges(key_of(ObjectKind.PACK, 1), [(0, 1)]) == [b"x"]
        assert [info.size for info in reopened.listing(ObjectKind.PACK)] == [1]
        for write in (
            lambda store=reopened: store.put(key_of(ObjectKind.PACK, 2), [b"x"]),
            lambda store=reopened: store.put(key_of(ObjectKind.PACK, 2, first=9), [b"x"]),
            lambda store=reopened: store.replace(GEN, b"x", expect=None),
            lambda store=reopened: store.replace(CONFIG_KEY, b"d", expect=b"c"),
            lambda store=reopened: store.delete([key_of(ObjectKind.PACK, 1)]),
        ):
            with pytest.raises(ReadOnlyError, match="mount it writable"):
                write()
    with pytest.raises(ReadOnlyError):
        LocalStore.create(small / "new")


@pytest.mark.parametrize("check", STORE_CONTRACT, ids=lambda check: check.__name__)
def test_the_contract_in_memory_backed_files(mount: Mount, check: Callable[[ObjectStore], None]) -> None:
    """A file system unlike the one the other tests run on."""
    check(LocalStore.create(mount("-t", "tmpfs", "-o", "size=64m", "tmpfs")))


class Machine:
    """A disk image mounted through a loop device. What reached the image is what a power failure leaves."""

    def __init__(self, folder: Path, mount: Mount) -> None:
        self._folder = folder
        self._mount = mount
        self._image = folder / "disk"
        with self._image.open("wb") as file:
            file.truncate(48 << 20)
        made = run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", self._image)
        if made.returncode:
            pytest.skip(f"cannot make a file system: {made.stderr.strip()}")
        # A long commit interval: nothing gets to the disk because time passed, only because it was flushed.
        self.root = mount("-o", "loop,commit=300", self._image)
        self._cuts = 0

    def after_power_failure(self) -> Path:
        """Return the folder as the next start finds it, by mounting a copy of the image."""
        self._cuts += 1
        copy = self._folder / f"disk-{self._cuts}"
        copy.write_bytes(self._image.read_bytes())
        return self._mount("-o", "loop", copy)


@pytest.fixture
def machine(tmp_path: Path, mount: Mount) -> Machine:
    return Machine(tmp_path, mount)


def test_the_machine_does_lose_what_was_not_flushed(machine: Machine) -> None:
    (machine.root / "file").write_bytes(b"x" * 5000)
    found = machine.after_power_failure() / "file"
    assert not found.exists() or found.read_bytes() != b"x" * 5000


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_what_was_written_survives_a_power_failure(machine: Machine, anonymous: bool, direct: bool) -> None:
    """Each step is durable the moment it returns, from the folder itself on."""
    root = machine.root / "store"
    store = LocalStore.create(root, anonymous=anonymous, direct=direct)
    assert (machine.after_power_failure() / "store/packs").is_dir()
    pack = key_of(ObjectKind.PACK, 1, first=0xAB)
    content = [os.urandom(2 << 20), b"tail"]
    store.put(pack, content)
    assert LocalStore(machine.after_power_failure() / "store").get(pack) == b"".join(content)
    store.replace(GEN, b"one", expect=None)
    assert LocalStore(machine.after_power_failure() / "store").get(GEN) == b"one"
    store.replace(GEN, b"two" * 1000, expect=b"one")
    assert LocalStore(machine.after_power_failure() / "store").get(GEN) == b"two" * 1000
    store.replace(GEN, None, expect=b"two" * 1000)
    store.delete([pack])
    after = LocalStore(machine.after_power_failure() / "store")
    assert list(after.listing(ObjectKind.GC)) == list(after.listing(ObjectKind.PACK)) == []


def test_a_disk_that_vanishes(small: Path) -> None:
    """The disk is unmounted under an open store: errors, and nothing lands in the empty mount point."""
    store = LocalStore.create(small)
    store.put(CONFIG_KEY, [b"c"])
    store.put(key_of(ObjectKind.PACK, 1), [b"x"])
    assert run("umount", small).returncode == 0
    for write in (
        lambda: store.put(key_of(ObjectKind.PACK, 2), [b"x"]),
        lambda: store.replace(GEN, b"x", expect=None),
    ):
        with pytest.raises(StoreError, match="is not there"):
            write()
    assert list(small.iterdir()) == []
