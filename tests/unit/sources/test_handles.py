import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dedupstore.errors import SourceVanished
from dedupstore.model import Node
from dedupstore.sources.base import Folder
from dedupstore.sources.files.handles import Handle, HandlePool
from dedupstore.sources.files.listing import Lister
from dedupstore.sources.files.scan import FilesSource

NAME = b"d" * 100


def open_now() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Callable[[int], bytes]]:
    """Makes a chain of folders with a file in each, and takes it away again without recursion."""
    base = os.fsencode(tmp_path / "deep")
    os.mkdir(base)
    made = 0

    def make(depth: int) -> bytes:
        nonlocal made
        fd = os.open(base, os.O_RDONLY)
        made = depth
        for _ in range(depth):
            os.mkdir(NAME, dir_fd=fd)
            below = os.open(NAME, os.O_RDONLY, dir_fd=fd)
            os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
            os.close(fd)
            fd = below
        os.close(fd)
        return base

    yield make
    # Fold the chain up: each round lifts the folder below the top one beside it.
    fd = os.open(base, os.O_RDONLY)
    for _ in range(made):
        with suppress(FileNotFoundError):
            os.unlink(b"file", dir_fd=fd)
        os.rename(NAME, b"top", src_dir_fd=fd, dst_dir_fd=fd)
        with suppress(FileNotFoundError):
            os.rename(b"top/" + NAME, NAME, src_dir_fd=fd, dst_dir_fd=fd)
        with suppress(FileNotFoundError):
            os.unlink(b"top/file", dir_fd=fd)
        os.rmdir(b"top", dir_fd=fd)
    os.close(fd)


def test_a_depth_of_3000_needs_few_descriptors_and_no_recursion(
    deep: Callable[[int], bytes], lister: Lister, descriptors: None
) -> None:
    depth = 3000
    source = FilesSource([deep(depth)], lister=lister, open_folders=50)
    before, most, files = open_now(), 0, 0
    into = memoryview(bytearray(10))
    stack: list[tuple[Folder, bytes]] = [(source.top(), b"")]
    climbing: list[Folder] = []
    while stack:
        folder, _ = stack.pop()
        climbing.append(folder)
        for segment in folder.listing():
            stack.extend((folder.folder(item), item.name) for item in folder.folders(segment))
        most = max(most, open_now() - before)
    assert len(climbing) > depth
    for folder in reversed(climbing):  # on the way up every folder is needed once more
        for segment in folder.listing():
            for item in folder.items(segment):
                if item.name == b"file":
                    folder.read(item, into)
                    files += 1
        most = max(most, open_now() - before)
        folder.close()
    assert files == depth
    assert most <= 50
    source.close()


def test_keys_are_hashes_of_paths_at_any_depth(deep: Callable[[int], bytes], lister: Lister) -> None:
    source = FilesSource([deep(60)], lister=lister, open_folders=4)
    folder: Folder = source.top()
    while True:
        assert folder.key == hashlib.blake2b(folder.path, digest_size=16).digest()
        below = [folder.folder(item) for segment in folder.listing() for item in folder.folders(segment)]
        if not below:
            break
        folder = below[0]
    assert folder.path.endswith(NAME + b"/" + NAME)
    source.close()


def chain(pool: HandlePool, path: Path, *names: bytes) -> list[Handle]:
    handles = [pool.root(os.fsencode(path))]
    for name in names:
        handles.append(handles[-1].child(name))
    return handles


def test_what_is_closed_twice_or_never_opened_is_closed(tmp_path: Path, descriptors: None) -> None:
    (tmp_path / "a").mkdir()
    pool = HandlePool()
    top, a = chain(pool, tmp_path, b"a")
    a.close()
    top.acquire()
    top.release()
    top.close()
    top.close()
    with pytest.raises(ValueError, match="closed"):
        top.acquire()


def test_a_folder_closed_while_in_use_stays_open_until_released(tmp_path: Path, descriptors: None) -> None:
    pool = HandlePool()
    (top,) = chain(pool, tmp_path)
    fd = top.acquire()
    top.close()
    os.fstat(fd)
    top.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_is_in_use_is_never_evicted(tmp_path: Path, descriptors: None) -> None:
    (tmp_path / "a" / "b" / "c" / "d").mkdir(parents=True)
    pool = HandlePool(2)
    handles = chain(pool, tmp_path, b"a", b"b", b"c", b"d")
    inodes = [os.fstat(handle.acquire()).st_ino for handle in handles]
    assert [os.fstat(handle.fd).st_ino for handle in handles] == inodes
    for handle in handles:
        handle.release()
    pool.close()


def test_a_child_outlives_its_closed_parent_without_a_leak(tmp_path: Path, descriptors: None) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    pool = HandlePool(2)
    top, a, b = chain(pool, tmp_path, b"a", b"b")
    top.close()
    a.close()
    assert os.fstat(b.acquire()).st_ino == os.stat(tmp_path / "a" / "b").st_ino
    b.release()
    b.close()


def test_a_folder_that_was_replaced_is_not_taken_for_the_old_one(tmp_path: Path, descriptors: None) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    pool = HandlePool(2)
    top, a = chain(pool, tmp_path, b"a")
    a.acquire()
    a.release()
    for name in (b"b", b"c"):  # pushes the first two out
        other = top.child(name)
        other.acquire()
        other.release()
    assert a.fd < 0
    (tmp_path / "a").rename(tmp_path / "old")
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="Stale"):
        a.acquire()
    pool.close()


def test_the_source_says_vanished_for_a_replaced_folder(tmp_path: Path, lister: Lister) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    source = FilesSource([os.fsencode(tmp_path)], lister=lister, open_folders=2)
    folders: list[Folder] = [source.top()]
    for name in os.fsencode(tmp_path / "a" / "b").split(b"/")[1:]:
        items = [i for segment in folders[-1].listing() for i in folders[-1].items(segment)]
        folders.append(folders[-1].folder(next(i for i in items if i.name == name)))
    folders[-1].listing()
    folders[0].listing()
    folders[1].listing()
    (tmp_path / "a").rename(tmp_path / "old")
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceVanished):
        folders[-2].listing()
    source.close()


def test_many_threads_see_their_own_folders(tmp_path: Path, descriptors: None) -> None:
    names = [b"%d" % n for n in range(20)]
    for name in names:
        (tmp_path / os.fsdecode(name)).mkdir()
    pool = HandlePool(3)
    top = pool.root(os.fsencode(tmp_path))
    handles = {name: top.child(name) for name in names}
    inodes = {name: os.stat(os.path.join(os.fsencode(tmp_path), name)).st_ino for name in names}
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for turn in range(300):
            name = names[(turn * (2 * seed + 1)) % len(names)]
            fd = handles[name].acquire()
            if os.fstat(fd).st_ino != inodes[name]:
                wrong.append(name)
            handles[name].release()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert wrong == []


def test_a_walk_leaves_nothing_open(
    tmp_path: Path, lister: Lister, descriptors: None, walk: Callable[[FilesSource], dict[bytes, Node]]
) -> None:
    for n in range(30):
        (tmp_path / f"{n}" / "below").mkdir(parents=True)
        (tmp_path / f"{n}" / "file").write_bytes(b"x")
    assert len(walk(FilesSource([os.fsencode(tmp_path)], lister=lister))) >= 90
