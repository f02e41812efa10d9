"""Files that change between the listing and the last byte."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dedupstore.errors import SourceChanged, SourceVanished
from dedupstore.sources.files.folder import FileFolder
from dedupstore.sources.files.listing import Lister, Reading
from dedupstore.sources.files.scan import FilesSource
from tests.unit.sources.source_walks import descend, into, read_stream, the_item


@pytest.fixture
def source(tmp_path: Path, lister: Lister, descriptors: None) -> FilesSource:
    return FilesSource([os.fsencode(tmp_path)], lister=lister)


class Meddling:
    """The lister under test, with something done to the file after each of the first reads."""

    def __init__(self, lister: Lister, *deeds: Callable[[], object]) -> None:
        self._read_files = lister.read_files
        self._deeds = list(deeds)
        self.reads = 0
        self.lister = replace(lister, read_files=self._read)

    def _read(
        self, dirfd: int, wanted: tuple[tuple[bytes, int], ...], into: memoryview | bytearray, dev: int
    ) -> Sequence[Reading | int]:
        self.reads += 1
        answer = self._read_files(dirfd, wanted, into, dev)
        if self._deeds:
            self._deeds.pop(0)()
        return answer


def meddled(tmp_path: Path, lister: Lister, *deeds: Callable[[], object]) -> tuple[Meddling, FilesSource]:
    meddling = Meddling(lister, *deeds)
    return meddling, FilesSource([os.fsencode(tmp_path)], lister=meddling.lister)


def nothing() -> None:
    pass


def test_a_file_at_rest_is_read_once(tmp_path: Path, lister: Lister, descriptors: None) -> None:
    (tmp_path / "file").write_bytes(b"first")
    meddling, source = meddled(tmp_path, lister)
    folder = descend(source, tmp_path)
    folder.read(the_item(folder, b"file"), into())
    assert meddling.reads == 1
    assert folder.unstable == set()
    source.close()


def test_a_file_that_changed_after_its_listing_is_read_twice_and_trusted(
    tmp_path: Path, lister: Lister, descriptors: None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    meddling, source = meddled(tmp_path, lister)
    folder = descend(source, tmp_path)
    item = the_item(folder, b"file")
    path.write_bytes(b"the second")
    os.utime(path, ns=(0, 77))
    view = into()
    node, size = folder.read(item, view)
    assert (bytes(view[:size]), node.size, node.mtime) == (b"the second", 10, 77)
    assert meddling.reads == 2
    assert folder.unstable == set()
    source.close()


def test_a_file_that_keeps_changing_is_named(tmp_path: Path, lister: Lister, descriptors: None) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    meddling, source = meddled(tmp_path, lister, lambda: path.write_bytes(b"second one"))
    folder = descend(source, tmp_path)
    item = the_item(folder, b"file")
    path.write_bytes(b"another")
    view = into()
    node, size = folder.read(item, view)
    assert (bytes(view[:size]), node.size) == (b"second one", 10)
    assert meddling.reads == 2
    assert folder.unstable == {b"file"}
    source.close()


def test_a_run_reads_what_is_as_it_was_listed(tmp_path: Path, lister: Lister, descriptors: None) -> None:
    for name in ("a", "b", "changed", "d", "empty", "gone", "grown", "h", "less"):
        (tmp_path / name).write_bytes(b"" if name == "empty" else name.encode() * 3)
    source = FilesSource([os.fsencode(tmp_path)], lister=lister)
    folder = descend(source, tmp_path)
    assert isinstance(folder, FileFolder)
    items = [item for segment in folder.listing() for item in folder.items(segment)]
    (tmp_path / "changed").write_bytes(b"changed again"[: 3 * len("changed")])
    os.utime(tmp_path / "changed", ns=(0, 77))
    (tmp_path / "gone").unlink()
    (tmp_path / "grown").write_bytes(b"grown" * 100)
    (tmp_path / "less").write_bytes(b"l")
    view = into()
    nodes = folder.read_run(items, view)
    start = 0
    for item, node in zip(items, nodes, strict=True):
        if item.name in (b"changed", b"gone", b"grown", b"less"):
            assert node is None
        else:
            assert node is not None
            assert (node.name, node.size, node.mtime) == (item.name, item.size, item.mtime)
            assert bytes(view[start : start + item.size]) == item.name * (item.size // len(item.name))
        start += item.size
    assert folder.unstable == set()
    source.close()


def test_a_run_in_a_folder_that_is_gone_reads_nothing(tmp_path: Path, lister: Lister) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "file").write_bytes(b"x")
    source = FilesSource([os.fsencode(tmp_path)], lister=lister)
    folder = descend(source, inner)
    assert isinstance(folder, FileFolder)
    items = [item for segment in folder.listing() for item in folder.items(segment)]
    (inner / "file").unlink()
    inner.rmdir()
    assert folder.read_run(items, into()) == [None]
    source.close()


def test_a_file_that_grows_beyond_the_buffer_is_for_the_stream(source: FilesSource, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    folder = descend(source, tmp_path)
    item = the_item(folder, b"file")
    path.write_bytes(b"x" * 1000)
    assert folder.read(item, memoryview(bytearray(100)))[1] == -1
    assert read_stream(folder, item, 300)[1].size == 1000
    source.close()


def test_a_file_that_vanishes_says_so(tmp_path: Path, lister: Lister, descriptors: None) -> None:
    path = tmp_path / "a\nb"
    path.write_bytes(b"first")
    _, source = meddled(tmp_path, lister, nothing, path.unlink)
    folder = descend(source, tmp_path)
    item = the_item(folder, b"a\nb")
    folder.read(item, into())
    path.write_bytes(b"touched")  # read again, and gone in between
    with pytest.raises(SourceVanished, match=r"a\\nb was gone") as caught:
        folder.read(item, into())
    assert caught.value.data["path"] == os.fsencode(path)
    with pytest.raises(SourceVanished):
        folder.open(item)
    with pytest.raises(SourceVanished):
        folder.node(item._replace(mode=stat.S_IFLNK))
    source.close()


def test_a_file_that_becomes_something_else_is_not_followed(source: FilesSource, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    folder = descend(source, tmp_path)
    item = the_item(folder, b"file")
    for make in (os.mkfifo, lambda p: os.symlink("/etc/passwd", p), os.mkdir):
        path.unlink()
        make(path)
        with pytest.raises(SourceChanged, match="became something else"):
            folder.read(item, into())
        with pytest.raises(SourceChanged):
            folder.open(item)
    source.close()


def test_a_file_that_shrinks_while_it_streams_is_kept_as_read(source: FilesSource, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    folder = descend(source, tmp_path)
    stream = folder.open(the_item(folder, b"file"))
    view = memoryview(bytearray(6000))
    assert stream.read_next(view) == 6000
    os.truncate(path, 7000)
    assert stream.read_next(view) == 1000
    assert stream.read_next(view) == 0
    assert stream.finish().size == 7000
    assert stream.changed
    assert folder.unstable == {b"file"}
    stream.close()
    source.close()


def test_a_sparse_file_that_shrinks_or_grows_ends_well(source: FilesSource, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open(path, "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x" * 4096)
    folder = descend(source, tmp_path)
    stream = folder.open(the_item(folder, b"file"))
    view = memoryview(bytearray(100))
    assert stream.read_next(view) == -(1 << 19)
    os.truncate(path, 1000)
    assert stream.read_next(view) == 0
    assert stream.finish().size == 1 << 19
    assert stream.changed
    stream.close()
    source.close()
