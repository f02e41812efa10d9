"""Restoring over what is there: every mode with everything that can stand in the way."""

import os
import stat
from pathlib import Path

import pytest
from restore_samples import NEW, OLD, SUFFIX, bring, make_repository, messages, names_under, take

from dedupstore.errors import UsageError
from dedupstore.model import Snapshot
from dedupstore.ops.restore.restorer import Overwrite, RestoreOptions
from dedupstore.repository.repository import Repository

ALWAYS, CHANGED, NEWER = Overwrite.ALWAYS, Overwrite.IF_CHANGED, Overwrite.IF_NEWER
NEVER, BOTH = Overwrite.NEVER, Overwrite.KEEP_BOTH
BETWEEN = (OLD + NEW) // 2


class World:
    """A snapshot with ``f`` (a file), ``l`` (a link), ``d/inner``; and the folder it lands in."""

    def __init__(self, tmp_path: Path) -> None:
        self.source = tmp_path / "source"
        (self.source / "d").mkdir(parents=True)
        (self.source / "f").write_bytes(b"ours")
        (self.source / "d/inner").write_bytes(b"ours")
        (self.source / "l").symlink_to("aim")
        for name in ("f", "d/inner", "l", "d"):
            os.utime(self.source / name, ns=(BETWEEN, BETWEEN), follow_symlinks=False)
        self.target = tmp_path / "target"
        self.copy = tmp_path / f"target{self.source}"
        self.copy.mkdir(parents=True)
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        (self.outside / "precious").write_text("precious")
        self.repo: Repository = make_repository(tmp_path / "cache")
        self.snapshot: Snapshot = take(self.repo, self.source)

    def put(self, name: str, content: bytes, stamp: int) -> None:
        (self.copy / name).write_bytes(content)
        os.utime(self.copy / name, ns=(stamp, stamp))

    def bring(self, mode: Overwrite, **options: bool):
        result = bring(self.repo, self.snapshot, self.target, RestoreOptions(overwrite=mode, **options))
        assert (self.outside / "precious").read_text() == "precious"
        return result


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    with world.repo:
        yield world


@pytest.mark.parametrize(
    ("content", "stamp", "replacing"),
    [
        (b"ours", BETWEEN, set()),
        (b"OURS", BETWEEN, {ALWAYS}),
        (b"larger than ours", BETWEEN, {ALWAYS, CHANGED}),
        (b"ours", OLD, {ALWAYS, CHANGED, NEWER}),
        (b"else", OLD, {ALWAYS, CHANGED, NEWER}),
        (b"else", NEW, {ALWAYS, CHANGED}),
    ],
    ids=["same", "same at a glance", "other size", "older", "older and other", "newer"],
)
@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_file_where_a_file_stands(
    world: World, mode: Overwrite, content: bytes, stamp: int, replacing: set[Overwrite]
) -> None:
    world.put("f", content, stamp)
    before = (world.copy / "f").stat().st_ino
    result = world.bring(mode)
    assert not messages(result)
    replaced = mode in replacing
    status = (world.copy / "f").stat()
    assert (world.copy / "f").read_bytes() == (b"ours" if replaced else content)
    assert status.st_mtime_ns == (BETWEEN if replaced else stamp)
    assert (status.st_ino != before) == replaced
    beside = world.copy / f"f{SUFFIX}"
    looks_same = (len(content), stamp) == (4, BETWEEN)
    assert beside.exists() == (mode is BOTH and not looks_same)
    if beside.exists():
        assert (beside.read_bytes(), beside.stat().st_mtime_ns) == (b"ours", BETWEEN)
    assert result.skipped == (0 if replaced or beside.exists() else 1)


@pytest.mark.parametrize("mode", list(Overwrite))
def test_where_nothing_stands(world: World, mode: Overwrite) -> None:
    result = world.bring(mode)
    assert (messages(result), result.files, result.skipped) == ([], 3, 0)
    assert names_under(world.copy) == {"f", "l", "d", "d/inner"}


@pytest.mark.parametrize("stamp", [OLD, NEW])
@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_file_where_a_link_stands(world: World, mode: Overwrite, stamp: int) -> None:
    (world.copy / "f").symlink_to(world.outside / "precious")
    os.utime(world.copy / "f", ns=(stamp, stamp), follow_symlinks=False)
    result = world.bring(mode)
    assert not messages(result)
    replaced = mode in {ALWAYS, CHANGED} or (mode is NEWER and stamp == OLD)
    assert (world.copy / "f").is_symlink() != replaced
    if replaced:
        assert (world.copy / "f").read_bytes() == b"ours"


@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_link_where_another_stands(world: World, mode: Overwrite) -> None:
    (world.copy / "l").symlink_to("elsewhere")
    os.utime(world.copy / "l", ns=(BETWEEN, BETWEEN), follow_symlinks=False)
    result = world.bring(mode)
    assert not messages(result)
    replaced = mode in {ALWAYS, CHANGED}
    assert (world.copy / "l").readlink() == Path("aim" if replaced else "elsewhere")
    if mode is BOTH:
        assert (world.copy / f"l{SUFFIX}").readlink() == Path("aim")


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("mode", [ALWAYS, CHANGED, NEWER, NEVER])
def test_a_file_where_a_folder_stands(world: World, mode: Overwrite, filled: bool, delete: bool) -> None:
    (world.copy / "f").mkdir()
    (world.copy / "f/to").symlink_to(world.outside)
    if not filled:
        (world.copy / "f/to").unlink()
    os.utime(world.copy / "f", ns=(OLD, OLD))
    result = world.bring(mode, delete=delete)
    if mode is NEVER:
        assert (world.copy / "f").is_dir()
    elif filled and not delete:
        assert (world.copy / "f").is_dir()
        assert "--delete" in messages(result)[0]
    else:
        assert (world.copy / "f").read_bytes() == b"ours"
        assert not messages(result)


@pytest.mark.parametrize("what", ["file", "link to a folder", "dangling link", "fifo"])
@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_folder_where_something_else_stands(world: World, mode: Overwrite, what: str) -> None:
    at = world.copy / "d"
    if what == "file":
        at.write_text("")
    elif what == "fifo":
        os.mkfifo(at)
    else:
        at.symlink_to(world.outside if what == "link to a folder" else "nowhere")
    result = world.bring(mode)
    assert not (world.outside / "inner").exists()
    assert (world.copy / "f").exists()
    assert (world.copy / "l").is_symlink()
    if mode in {ALWAYS, CHANGED}:
        assert not at.is_symlink()
        assert (at / "inner").read_bytes() == b"ours"
        assert not messages(result)
    elif mode is BOTH:
        assert (world.copy / f"d{SUFFIX}/inner").read_bytes() == b"ours"
        again = world.bring(mode)
        assert (again.files, messages(again)) == (0, [])
    else:
        assert not (at / "inner").exists()
        assert [found.where for found in result.findings] == [str(world.source / "d")]
        assert "is a folder in the snapshot" in messages(result)[0]


def test_keeping_both_again_and_again(world: World) -> None:
    world.put("f", b"mine", OLD)
    for _ in range(2):
        world.bring(BOTH)
        assert names_under(world.copy) == {"f", f"f{SUFFIX}", "l", "d", "d/inner"}
    world.put(f"f{SUFFIX}", b"edited", NEW)
    world.bring(BOTH)
    assert (world.copy / f"f{SUFFIX}").read_bytes() == b"edited"
    assert (world.copy / f"f{SUFFIX}-2").read_bytes() == b"ours"
    with pytest.raises(UsageError, match="keep-both"):
        world.bring(BOTH, delete=True)


def test_deleting_what_is_surplus(world: World) -> None:
    (world.copy / "d").mkdir()
    for name in ("0", "e", "z", "d/0", "d/z"):
        world.put(name, b"surplus", OLD)
    (world.copy / "folder/in folder").mkdir(parents=True)
    world.put("folder/in folder/file", b"", OLD)
    (world.copy / "to").symlink_to(world.outside)
    (world.copy.parent / "beside").write_text("not in a restored folder")
    result = world.bring(ALWAYS)
    assert (world.copy / "d/0").exists()
    result = world.bring(ALWAYS, delete=True)
    assert (messages(result), result.files, result.deleted) == ([], 0, 9)
    assert names_under(world.copy) == {"f", "l", "d", "d/inner"}
    assert (world.copy.parent / "beside").exists()
    assert (world.copy / "d").stat().st_mtime_ns == BETWEEN


def test_what_is_excluded_is_not_deleted(world: World) -> None:
    (world.copy / "surplus/deep").mkdir(parents=True)
    for name in ("a.keep", "surplus/b.keep", "surplus/c", "surplus/deep/d", "other"):
        world.put(name, b"", OLD)
    options = RestoreOptions(delete=True, exclude=("*.keep", "f"))
    world.put("f", b"mine", OLD)
    result = bring(world.repo, world.snapshot, world.target, options)
    assert not messages(result)
    assert names_under(world.copy) == {"a.keep", "surplus", "surplus/b.keep", "f", "l", "d", "d/inner"}
    assert (world.copy / "f").read_bytes() == b"mine"


def test_what_is_not_included_is_not_deleted(world: World) -> None:
    (world.copy / "d").mkdir()
    for name in ("a", "b.log", "d/c", "d/d.log"):
        world.put(name, b"", OLD)
    options = RestoreOptions(delete=True, include=("*.log", "inner"))
    result = bring(world.repo, world.snapshot, world.target, options)
    assert (messages(result), result.deleted) == ([], 2)
    assert names_under(world.copy) == {"a", "d", "d/c", "d/inner"}


def test_stale_temporary_names_go(world: World) -> None:
    (world.copy / "d").mkdir()
    for name in (".dstore-0123abcd.tmp", "d/.dstore-0123abcd.tmp"):
        world.put(name, b"half", OLD)
    world.bring(NEVER)
    assert names_under(world.copy) == {"f", "l", "d", "d/inner"}


def test_second_names_over_what_stands_there(world: World) -> None:
    os.link(world.source / "f", world.source / "g")
    os.link(world.source / "f", world.source / "d/h")
    snapshot = take(world.repo, world.source)
    for name in ("g", "f"):
        world.put(name, b"else", OLD)
    result = bring(world.repo, snapshot, world.target)
    assert not messages(result)
    inodes = {(world.copy / name).stat().st_ino for name in ("f", "g", "d/h")}
    assert len(inodes) == 1
    (world.copy / "g").unlink()
    world.put("g", b"mine", NEW)
    kept = bring(world.repo, snapshot, world.target, RestoreOptions(overwrite=NEVER))
    assert (messages(kept), (world.copy / "g").read_bytes()) == ([], b"mine")
    again = bring(world.repo, snapshot, world.target, RestoreOptions(overwrite=CHANGED))
    assert (messages(again), again.files) == ([], 1)
    assert (world.copy / "g").stat().st_ino in inodes
    assert stat.S_ISREG((world.copy / "g").lstat().st_mode)


@pytest.mark.parametrize("above", [False, True])
def test_nothing_is_deleted_beside_what_was_backed_up(world: World, above: bool) -> None:
    for parent in (world.target, world.copy.parent):
        (parent / "beside").write_text("of no source")
        (parent / "folder beside").mkdir()
    stamp = world.copy.parent.stat().st_mtime_ns
    paths = [os.fsencode(world.source.parent)] if above else []
    result = bring(world.repo, world.snapshot, world.target, RestoreOptions(delete=True), paths)
    assert (messages(result), result.deleted) == ([], 0)
    assert world.copy.parent.stat().st_mtime_ns == stamp


def test_in_place(world: World) -> None:
    before = world.source.parent.stat()
    (world.source / "f").write_bytes(b"changed since")
    (world.source / "d/new").write_bytes(b"new since")
    result = bring(world.repo, world.snapshot, Path("/"), RestoreOptions(delete=True))
    assert (messages(result), result.files, result.deleted) == ([], 1, 1)
    assert (world.source / "f").read_bytes() == b"ours"
    assert names_under(world.source) == {"f", "l", "d", "d/inner"}
    assert world.source.parent.stat().st_mtime_ns == before.st_mtime_ns
