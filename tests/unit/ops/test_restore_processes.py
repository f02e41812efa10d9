"""Restores in processes of their own: killed at any moment, without privileges, on a full disk."""

import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from restore_samples import (
    OLD,
    assert_clean,
    bring,
    differences,
    make_repository,
    messages,
    names_under,
    nasty_tree,
    take,
)

from dedupstore.errors import StoreFull
from dedupstore.objectstore.url import open_store
from dedupstore.ops.restore.restorer import RestoreOptions

CHILD = Path(__file__).with_name("restore_child.py")
ROOT = Path(__file__).parents[3]
SOMEBODY = 4000
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else, or mount")
NEEDS_RSYNC = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


def start(where: Path, target: Path, user: int = 0) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        str(CHILD),
        str(where / "store"),
        str(where / f"cache{user}"),
        str(target),
        str(user),
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{CHILD.parent}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd="/")


def back_up(where: Path, source: Path) -> None:
    (where / "store").mkdir()
    with make_repository(where / "cache0", open_store(str(where / "store"), create=True)) as repo:
        take(repo, source)


@NEEDS_RSYNC
def test_killed_at_any_moment(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    nasty_tree(source)
    rng = Random(5)
    for number in range(300):
        folder = source / f"many/{number % 17}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(rng.randbytes(rng.choice([10, 1000, 30_000, 200_000])))
    back_up(tmp_path, source)
    target = tmp_path / "target"
    copy = tmp_path / f"target{source}"
    for turn in range(8):
        child = start(tmp_path, target)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.02 * turn * rng.random())
        child.kill()
        child.wait()
        child.stdout.close()
        for path in copy.rglob("*"):  # what has a name is whole
            if stat.S_ISREG(path.lstat().st_mode) and not path.name.startswith(".dstore-"):
                assert path.read_bytes() == (source / path.relative_to(copy)).read_bytes()
        if turn % 3 == 2:
            shutil.rmtree(target, ignore_errors=True)
    child = start(tmp_path, target)
    output, _ = child.communicate()
    assert len(output.splitlines()) == 4, output
    assert differences(source, copy) == []
    assert_clean(target)


@NEEDS_ROOT
@NEEDS_RSYNC
def test_without_privileges(tmp_path: Path) -> None:
    where = Path("/tmp") / f"dstore-test-{os.getpid()}"  # pytest's own folder is closed to others
    where.mkdir(mode=0o755)
    try:
        source = where / "source"
        source.mkdir()
        nasty_tree(source)
        back_up(where, source)
        for name in ("cache4000", "target"):
            (where / name).mkdir()
            os.chown(where / name, SOMEBODY, SOMEBODY)
        for folder in (where / "store").rglob("*"):
            folder.chmod(0o755)
        (where / "store").chmod(0o777)
        for _ in range(2):
            child = start(where, where / "target", SOMEBODY)
            output, _ = child.communicate()
            assert child.returncode == 0
            _, _, _, incomplete, *findings = output.splitlines()
            assert int(incomplete) > 0
            devices = [line for line in findings if "/z/null" in line or "/z/block" in line]
            assert len(devices) == 2, output
            others = [line for line in findings if line not in devices]
            assert len(others) == 1, output
            assert "a/deep/unreadable can not be read back (Permission denied)" in others[0]
        copy = where / f"target{source}"
        assert (copy / "a/large").read_bytes() == (source / "a/large").read_bytes()
        status = (copy / "a/deep/er/set-id").stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (SOMEBODY, 0o755)
        for name in ("locked", "sticky", "empty", "a/deep", "a"):
            ours, theirs = (copy / name).stat(), (source / name).stat()
            assert ours.st_mtime_ns == theirs.st_mtime_ns
            assert stat.S_IMODE(ours.st_mode) | 0o6000 == stat.S_IMODE(theirs.st_mode) | 0o6000
        assert os.getxattr(copy / "a/read-only with attributes", "user.a") == b"1" * 500
        assert (copy / "a/large").stat().st_ino == (copy / "z/second name").stat().st_ino
        assert_clean(where / "target")
    finally:
        shutil.rmtree(where)


@NEEDS_ROOT
def test_a_full_disk_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(200):
        (source / f"{number}").write_bytes(os.urandom(40_000 if number % 3 else 1500))
        os.utime(source / f"{number}", ns=(OLD, OLD + number))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3M", "tmpfs", target], check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with make_repository(tmp_path / "cache") as repo:
            snapshot = take(repo, source)
            with pytest.raises(StoreFull, match=str(target)):
                bring(repo, snapshot, target, RestoreOptions(threads=2))
            copy = tmp_path / f"target{source}"
            kept = names_under(copy)
            assert kept
            assert_clean(target)
            for name in kept:
                assert (copy / name).read_bytes() == (source / name).read_bytes()
            subprocess.run(["mount", "-o", "remount,size=30M", target], check=True)
            result = bring(repo, snapshot, target)
    finally:
        # Lazily: an error's traceback may still hold on to the folders it went through.
        subprocess.run(["umount", "--lazy", target], check=True)
    assert not messages(result)
    assert (result.files, result.skipped) == (200 - len(kept), len(kept))


@NEEDS_ROOT
def test_owners_go_by_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("")
    os.chown(source / "f", 1, 2)
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        # As if the other machine had given the names of 1 and 2 to 4711 and 4712.
        moved = _renumber(snapshot, {1: b"nobody"}, {2: b"no such group here"})
        bring(repo, moved, tmp_path / "by name")
        bring(repo, moved, tmp_path / "by number", RestoreOptions(numeric_owner=True))
    found = (tmp_path / f"by name{source}/f").stat()
    assert (found.st_uid, found.st_gid) == (65534, 2)
    found = (tmp_path / f"by number{source}/f").stat()
    assert (found.st_uid, found.st_gid) == (1, 2)


def _renumber(snapshot, users, groups):
    return replace(snapshot, users=users, groups=groups)
