import errno
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dedupstore.errors import UsageError
from dedupstore.sources.files import listing
from dedupstore.sources.files.listing import Lister, make_lister
from dedupstore.sources.segments import unpack_record, unpack_segment


@contextmanager
def opened(path: Path | bytes) -> Iterator[int]:
    fd = os.open(path, listing.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def native() -> Lister:
    try:
        return make_lister(native=True)
    except UsageError as error:
        pytest.skip(str(error))


def fill(folder: bytes, chance: random.Random, entries: int) -> None:
    for _ in range(entries):
        length = chance.choice([1, 2, 3, 20, 255])
        name = bytes(chance.choice(b"\x01\n .-aAzZ\x7f\x80\xc3\xa4\xff") for _ in range(length))
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            continue
        kind = chance.randrange(6)
        if kind == 0:
            os.mkdir(path, chance.choice([0o755, 0o1777, 0o700]))
        elif kind == 1:
            os.symlink(bytes(chance.choice(b"ab\xff") for _ in range(5)), path)
        elif kind == 2:
            os.mkfifo(path)
        else:
            Path(os.fsdecode(path)).write_bytes(chance.randbytes(chance.randrange(3000)))
            os.utime(path, ns=(0, chance.randrange(-(2**61), 2**62)))
            if kind == 3:
                os.link(path, path[:-1] + b"!" if len(name) > 1 else path + b"!")


@pytest.mark.parametrize("seed", range(12))
def test_both_give_the_same_segments(native: Lister, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    folder = os.fsencode(tmp_path)
    with suppress(FileExistsError):  # two links wanted the same name; what is there is enough
        fill(folder, chance, chance.choice([0, 1, 5, 60]))
    with opened(folder) as fd:
        for limit in (1, 3, 4096):
            assert native.list_folder(fd, limit) == listing.list_folder(fd, limit)


def test_both_agree_about_the_machine(native: Lister) -> None:
    for path in (b"/", b"/etc", b"/dev", b"/usr/bin"):
        with opened(path) as fd:
            assert native.list_folder(fd, 100) == listing.list_folder(fd, 100), path


def test_entries_are_in_byte_order_across_segments(lister: Lister, tmp_path: Path) -> None:
    names = sorted({b"n%d" % n for n in range(100)} | {b"\xff", b"A", b"a b", b"\n", b"-"})
    for name in names:
        open(os.path.join(os.fsencode(tmp_path), name), "x").close()
    with opened(tmp_path) as fd:
        segments = lister.list_folder(fd, 7)
    assert len(segments) == 15
    assert [item.name for segment in segments for item in unpack_segment(segment, 0)] == names


def test_an_empty_folder_has_no_segments(lister: Lister, tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        assert lister.list_folder(fd, 4096) == []


def test_errors_carry_their_number(lister: Lister, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with opened(gone) as fd:
        gone.rmdir()
        with pytest.raises(FileNotFoundError):
            lister.list_folder(fd, 4096)
        with pytest.raises(FileNotFoundError):
            lister.read_file(fd, b"file", bytearray(1), 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lister.list_folder(-1, 4096)


def test_listing_a_folder_leaves_no_descriptor(lister: Lister, tmp_path: Path, descriptors: None) -> None:
    with opened(tmp_path) as fd:
        lister.list_folder(fd, 4096)
        with pytest.raises(FileNotFoundError):
            lister.read_file(fd, b"nothing", bytearray(10), 0)


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_file_that_fits_is_read_whole(lister: Lister, tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    into = bytearray(100)
    with opened(tmp_path) as fd:
        n, record, xattrs = lister.read_file(fd, b"file", into, os.stat(tmp_path).st_dev)
    assert (n, bytes(into[:n])) == (size, content)
    assert not xattrs
    assert unpack_record(b"file", record, 0).size == size


def test_a_file_that_does_not_fit_says_so_and_fills_the_buffer(lister: Lister, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abcdef")
    into = bytearray(5)
    with opened(tmp_path) as fd:
        assert lister.read_file(fd, b"file", into, 0)[0] == -1
    assert into == b"abcde"


def test_several_files_are_read_each_into_its_room(lister: Lister, tmp_path: Path, descriptors: None) -> None:
    (tmp_path / "a").write_bytes(b"aaa")
    (tmp_path / "long").write_bytes(b"0123456789")
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.symlink("a", tmp_path / "link")
    into = bytearray(20)
    wanted = ((b"a", 3), (b"long", 4), (b"gone", 2), (b"none", 0), (b"folder", 1), (b"link", 1), (b"a", 5))
    with opened(tmp_path) as fd:
        found = lister.read_files(fd, wanted, into, os.stat(tmp_path).st_dev)
        assert lister.read_files(fd, (), into, 0) == []
    sizes = [one if isinstance(one, int) else (one[0], unpack_record(b"", one[1], 0).size) for one in found]
    folder = os.stat(tmp_path / "folder").st_size
    assert sizes == [(3, 3), (-1, 10), errno.ENOENT, (0, 0), (0, folder), errno.ELOOP, (3, 3)]
    assert into[:7] == b"aaa0123"
    assert into[11:14] == b"aaa"


@pytest.mark.parametrize("wanted", [((b"a", 11),), ((b"a", 6), (b"a", 5)), ((b"a", -1),)])
def test_files_that_have_no_room_are_refused(
    lister: Lister, tmp_path: Path, wanted: tuple[tuple[bytes, int], ...]
) -> None:
    (tmp_path / "a").write_bytes(b"a" * 11)
    with opened(tmp_path) as fd, pytest.raises(ValueError, match="do not fit"):
        lister.read_files(fd, wanted, bytearray(10), 0)


def test_nothing_but_regular_files_is_read(lister: Lister, tmp_path: Path, descriptors: None) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/etc/passwd", tmp_path / "link")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.fspath(tmp_path / "socket"))
    with opened(tmp_path) as fd:
        for name, mode in ((b"fifo", 0o010000), (b"folder", 0o040000)):
            n, record, _ = lister.read_file(fd, name, bytearray(10), 0)
            assert n == 0
            assert unpack_record(name, record, 0).mode & 0o170000 == mode
        for name in (b"link", b"socket"):
            with pytest.raises(OSError, match=r"Too many levels|No such device"):
                lister.read_file(fd, name, bytearray(10), 0)


def test_both_read_the_same_attributes(native: Lister, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    values = {f"user.{n}".encode(): os.urandom(n * 20) for n in range(12)}
    try:
        for name, value in values.items():
            os.setxattr(path, name, value)
    except OSError as error:
        pytest.skip(f"no user attributes here: {error}")
    with opened(tmp_path) as fd:
        answers = [
            use.read_file(fd, b"file", bytearray(10), 0) for use in (native, make_lister(native=False))
        ]
    assert answers[0] == answers[1]
    assert answers[0][2] == tuple(sorted(values.items()))


def test_reading_leaves_the_access_time_alone(lister: Lister, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(1_000_000_000, 2_000_000_000))
    with opened(tmp_path) as fd:
        lister.read_file(fd, b"file", bytearray(10), 0)
    assert os.stat(path).st_atime_ns == 1_000_000_000


_LIST_ONCE = """
import os, resource, sys
from dedupstore.sources.files.listing import make_lister
fd = os.open(sys.argv[1], os.O_PATH)
empty = os.open(sys.argv[2], os.O_PATH)
lister = make_lister(native=True)
lister.list_folder(empty, 4096)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segments = lister.list_folder(fd, 4096)
print(sum(map(len, segments)), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_folder_of_100_000_entries_costs_what_it_says(native: Lister, tmp_path: Path) -> None:
    count = 100_000
    many, empty = tmp_path / "many", tmp_path / "empty"
    many.mkdir()
    empty.mkdir()
    first = many / "entry-000000"
    first.touch()
    for n in range(1, count):  # names of one file, in pieces: a link is cheaper than a file
        if n % 50_000 == 0:
            first = many / f"entry-{n:06}"
            first.touch()
        else:
            os.link(first, many / f"entry-{n:06}")
    out = subprocess.run(
        [sys.executable, "-c", _LIST_ONCE, many, empty], check=True, capture_output=True, text=True
    ).stdout
    size, growth = map(int, out.split())
    assert size < 100 * count
    # The segments, the names once more, a pointer each, and what the allocator rounds up.
    assert growth < 200 * count


def test_the_fallback_is_there_without_a_compiler() -> None:
    assert make_lister(native=False).name == "python"
