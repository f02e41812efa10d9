"""`deposit` and `dress`: the definition, and the copy in C that is held to it."""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from dedupstore.sources.files import deposit as module
from dedupstore.sources.files.deposit import (
    STRIP_ACL,
    deposit_defined,
    dress_defined,
    failure,
    was_refused,
    xattr_failure,
)

native = module._native
KERNELS = [pytest.param((deposit_defined, dress_defined), id="defined")]
if native is not None:
    KERNELS.append(pytest.param((native.deposit, native.dress), id="native"))
TEMP = b".dstore-00000000.tmp"
TIME = 1_600_000_000_123_456_789
ME = (os.getuid(), os.getgid())
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_the_compiled_copy_is_there() -> None:
    if native is None:
        pytest.skip("_target is not compiled here")


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest):
    return request.param


@pytest.fixture
def folder(tmp_path: Path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_slices_become_files(kernel, folder: int, tmp_path: Path) -> None:
    jobs = [
        (folder, b"a", 0, 3, 0o640, *ME, TIME, ()),
        (folder, b"\xff", 3, 0, 0o400, *ME, -TIME, ()),
        (folder, b"c", 2, 4, 0o4711, *ME, 0, ((b"user.k", b"v\0v"),)),
    ]
    outcomes = kernel[0](memoryview(b"abcdef"), TEMP, jobs)
    assert list(outcomes) == [0, 0, 0]
    found = {os.fsencode(p.name): p for p in tmp_path.iterdir()}
    assert {name: path.read_bytes() for name, path in found.items()} == {
        b"a": b"abc",
        b"\xff": b"",
        b"c": b"cdef",
    }
    assert [stat.S_IMODE(found[name].stat().st_mode) for name in (b"a", b"\xff", b"c")] == [
        0o640,
        0o400,
        0o4711,
    ]
    assert [found[name].stat().st_mtime_ns for name in (b"a", b"\xff", b"c")] == [TIME, -TIME, 0]
    assert os.getxattr(found[b"c"], "user.k") == b"v\0v"


def test_what_stands_there_is_replaced_not_followed(kernel, folder: int, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / os.fsdecode(TEMP)).symlink_to(victim)
    os.link(victim, tmp_path / "hard")
    jobs = [(folder, name, 0, 1, 0o600, *ME, 0, ()) for name in (b"link", b"hard")]
    assert list(kernel[0](b"x", TEMP, jobs)) == [0, 0]
    assert victim.read_text() == "precious"
    assert (tmp_path / "link").read_text() == (tmp_path / "hard").read_text() == "x"
    assert not (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hard", "link", "victim"]


def test_failures_leave_nothing_and_stop_nobody(kernel, folder: int, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    names = [b"dir", b"n" * 300, b"..", b"a/b", b"good"]
    jobs = [(folder, name, 0, 1, 0o600, *ME, 0, ()) for name in names]
    jobs.append((-1, b"x", 0, 1, 0o600, *ME, 0, ()))
    outcomes = kernel[0](b"x", TEMP, jobs)
    expected = [errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EINVAL, 0, errno.EBADF]
    assert [failure(outcome) for outcome in outcomes] == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir", "good"]


def test_an_attribute_that_can_not_be_set_is_told_of(kernel, folder: int, tmp_path: Path) -> None:
    jobs = [(folder, b"f", 0, 1, 0o600, *ME, 0, ((b"nonsense.k", b"v"), (b"user.k", b"v")))]
    (outcome,) = kernel[0](b"x", TEMP, jobs)
    assert (failure(outcome), was_refused(outcome), xattr_failure(outcome)) == (0, False, errno.ENOTSUP)
    assert os.listxattr(tmp_path / "f") == ["user.k"]


@pytest.mark.parametrize(("start", "size"), [(0, 7), (6, 1), (-1, 2), (7, 0), (0, -1), (2**62, 2**62)])
def test_nothing_outside_the_buffer(kernel, folder: int, start: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        kernel[0](b"abcdef", TEMP, [(folder, b"f", start, size, 0o600, *ME, 0, ())])


@NEEDS_ROOT
def test_both_do_the_same(tmp_path: Path) -> None:
    if native is None:
        pytest.skip("_target is not compiled here")
    cases = list(
        product(
            (0o644, 0o4755, 0o2711, 0o000, 0o644 | STRIP_ACL),
            (0, 77),
            (0, 88),
            (TIME, -1, 2**63 - 1),
            (
                (),
                (
                    (b"user.a", b"1"),
                    (b"security.capability", bytes.fromhex("01000002" + "02040000" + "00" * 12)),
                ),
            ),
        )
    )
    seen = []
    for name, kernel in (("defined", deposit_defined), ("native", native.deposit)):
        path = tmp_path / name
        path.mkdir()
        fd = os.open(path, os.O_RDONLY)
        jobs = [(fd, b"%04d" % n, 0, n % 5, *case[:3], *case[3:]) for n, case in enumerate(cases)]
        outcomes = list(kernel(b"abcde", TEMP, jobs))
        os.close(fd)
        seen.append([(o, *_facts(path / f"{n:04}")) for n, o in enumerate(outcomes)])
    assert seen[0] == seen[1]
    assert not any(outcome for outcome, *_ in seen[0])


def _facts(path: Path) -> tuple[object, ...]:
    status = path.stat()
    names = os.listxattr(path)
    return (
        path.read_bytes(),
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        [(name, os.getxattr(path, name)) for name in names],
    )


@NEEDS_ROOT
def test_without_privileges_set_id_bits_go_with_the_owner(kernel, folder: int, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    fd = folder  # opened before: nobody else may enter pytest's own folder

    def try_it() -> list[int]:
        theirs = ((b"trusted.t", b"1"), (b"user.u", b"1"))
        jobs = [
            (fd, b"own", 0, 1, 0o6755, 4000, 4000, TIME, ()),
            (fd, b"other", 0, 1, 0o6755, 0, 0, TIME, ()),
            (fd, b"group", 0, 1, 0o6755, 0, 4000, TIME, ()),
            (fd, b"theirs", 0, 1, 0o444, 4000, 4000, TIME, theirs),
        ]
        return list(kernel[0](b"x", TEMP, jobs))

    outcomes = as_somebody(try_it)
    assert [failure(o) for o in outcomes] == [0] * 4
    assert [was_refused(o) for o in outcomes] == [False, True, True, True]
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("own", "other", "group", "theirs")]
    assert modes == [0o6755, 0o755, 0o2755, 0o444]
    assert os.listxattr(tmp_path / "theirs") == ["user.u"]


def as_somebody(work: Callable[[], list[int]]) -> list[int]:
    """Run in a child that has given its privileges up."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(4000, 4000, 4000)
            os.setresuid(4000, 4000, 4000)
            os.write(writer, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    return [int(number) for number in text.strip("[]").split(",")]


@pytest.mark.parametrize(
    ("mode", "owner", "xattrs", "most"),
    [
        (0o644, ME, (), 0o644),
        (0o640, ME, (), 0o600),  # the folder may give it another group until it has its own
        (0o4755, ME, (), 0o755),
        (0o644, ME, ((b"user.k", b"v"),), 0o600),
        (0o644 | STRIP_ACL, ME, (), 0o600),
        pytest.param(0o604, (1234, 1234), (), 0o600, marks=NEEDS_ROOT),
    ],
)
def test_nobody_reads_a_file_under_way_who_may_not_in_the_end(
    kernel, folder: int, mode: int, owner: tuple[int, int], xattrs: tuple[tuple[bytes, bytes], ...], most: int
) -> None:
    data = bytes(48 << 20)
    seen: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(TEMP, dir_fd=folder)
                if status.st_size < len(data):
                    seen.add(stat.S_IMODE(status.st_mode))

    old = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(20):  # until it was caught in the act
            assert list(kernel[0](data, TEMP, [(folder, b"f", 0, len(data), mode, *owner, 0, xattrs)])) == [0]
            if seen:
                break
    finally:
        over.set()
        watcher.join()
        os.umask(old)
    assert seen
    assert all(not found & ~most for found in seen), [oct(found) for found in seen]
