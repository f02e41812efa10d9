"""What is restored is what was backed up, to the last attribute; rsync is the judge."""

import os
import shutil
import stat
from pathlib import Path

import pytest
from restore_samples import (
    assert_clean,
    bring,
    chunk_node,
    differences,
    forge,
    make_repository,
    messages,
    names_under,
    nasty_tree,
    reopen,
    take,
)

from dedupstore.errors import NotFoundError, TargetError, UsageError
from dedupstore.findings import printable
from dedupstore.model import Node, NodeKind
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.restore import planner
from dedupstore.ops.restore.restorer import Overwrite, RestoreOptions

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    nasty_tree(path)
    return path


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("window", [1, 7, 8192])
def test_everything_comes_back(
    source: Path, tmp_path: Path, threads: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "WINDOW_CHUNKS", window)
    monkeypatch.setattr(planner, "WORK_BYTES", 4096 * window)
    old = os.umask(0o077)
    try:
        with make_repository(tmp_path / "cache") as repo:
            snapshot = take(repo, source)
            result = bring(repo, snapshot, tmp_path / "target", RestoreOptions(threads=threads, verify=True))
    finally:
        os.umask(old)
    assert not messages(result)
    copy = tmp_path / f"target{source}"
    assert differences(source, copy) == []
    assert result.files == sum(1 for p in source.rglob("*") if not p.is_dir() or p.is_symlink())
    assert result.bytes == snapshot.statistics.bytes
    assert (result.skipped, result.deleted, result.failed, result.incomplete) == (0, 0, 0, 0)
    assert_clean(tmp_path / "target")
    for name in ("z/sparse", "a/large"):
        assert (copy / name).stat().st_blocks <= (source / name).stat().st_blocks
    assert (copy / "a/large").stat().st_ino == (copy / "z/second name").stat().st_ino


@pytest.mark.parametrize("mode", list(Overwrite))
def test_doing_it_again_changes_nothing(source: Path, tmp_path: Path, mode: Overwrite) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        first = bring(repo, snapshot, tmp_path / "target")
        copy = tmp_path / f"target{source}"
        before = {path: path.lstat().st_ino for path in copy.rglob("*")}
        again = bring(repo, snapshot, tmp_path / "target", RestoreOptions(overwrite=mode, verify=True))
    assert not messages(again)
    assert (again.files, again.skipped) == (0, first.files)
    assert {path: path.lstat().st_ino for path in copy.rglob("*")} == before
    assert differences(source, copy) == []


def test_only_attributes_differ(source: Path, tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        bring(repo, snapshot, tmp_path / "target")
        copy = tmp_path / f"target{source}"
        os.setxattr(copy / "a/middling", "user.surplus", b"1")
        os.setxattr(copy / "a", "user.surplus", b"1")
        stamp = (copy / "a/large").stat().st_mtime_ns
        (copy / "a/large").chmod(0o777)
        (copy / "a/deep").chmod(0o700)
        os.utime(copy / "empty", (1, 1))
        again = bring(repo, snapshot, tmp_path / "target")
    assert (copy / "a/large").stat().st_mtime_ns == stamp
    assert (again.files, messages(again)) == (0, [])
    assert differences(source, copy) == []


def test_same_size_and_time_but_other_content(source: Path, tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        bring(repo, snapshot, tmp_path / "target")
        copy = tmp_path / f"target{source}"
        for name in ("a/large", "a/small", "z/sparse"):
            stamp = (copy / name).stat().st_mtime_ns
            with (copy / name).open("r+b") as file:
                file.seek(3)
                (byte,) = file.read(1)
                file.seek(3)
                file.write(bytes([byte ^ 1]))  # the content is random: any fixed byte may be there already
            os.utime(copy / name, ns=(stamp, stamp))
        trusting = bring(repo, snapshot, tmp_path / "target", RestoreOptions(overwrite=Overwrite.IF_CHANGED))
        assert trusting.files == 0
        seen = bring(
            repo, snapshot, tmp_path / "target", RestoreOptions(overwrite=Overwrite.NEVER, verify=True)
        )
        assert not seen.failed  # what is not ours is not judged
        doubting = bring(
            repo, snapshot, tmp_path / "target", RestoreOptions(overwrite=Overwrite.IF_CHANGED, verify=True)
        )
        assert sorted(os.path.basename(f.where) for f in doubting.findings) == [
            "small",
            "sparse",
            "third name",
        ]
        assert all("read back" in message for message in messages(doubting))
        again = bring(repo, snapshot, tmp_path / "target")
    assert again.files == 3 + 2  # and the two other names of the large one
    assert differences(source, copy) == []


def test_chosen_paths_land_at_their_full_length(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    raw = os.fsencode(source)
    wanted = [raw + b"/z", raw + b"/a/small", raw + b"/a//deep/", raw + b"/a/deep/er/set-id"]
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        result = bring(repo, snapshot, target, paths=wanted)
        with pytest.raises(NotFoundError, match="missing"):
            bring(repo, snapshot, tmp_path / "other", paths=[raw + b"/missing"])
        for path in (b"relative", raw + b"/../x"):
            with pytest.raises(UsageError):
                bring(repo, snapshot, tmp_path / "other", paths=[path])
    assert not (tmp_path / "other").exists()
    assert not messages(result)
    copy = tmp_path / f"target{source}"
    assert {p.name for p in copy.iterdir()} == {"a", "z"}
    assert {p.name for p in (copy / "a").iterdir()} == {"deep", "small"}
    assert (copy / "a").stat().st_mtime_ns == (source / "a").stat().st_mtime_ns
    for name in ("z", "a/deep"):
        assert [line for line in differences(source / name, copy / name) if not line.startswith("hf")] == []


def test_a_folder_on_the_way_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    copy = tmp_path / f"target{source}"
    (copy / "a").mkdir(parents=True)
    (copy / "a").chmod(0o701)
    (copy / "a/other").write_text("mine")
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        options = RestoreOptions(delete=True)
        bring(repo, snapshot, target, options, [os.fsencode(source) + b"/a/small"])
    assert stat.S_IMODE((copy / "a").stat().st_mode) == 0o701
    assert (copy / "a/other").read_text() == "mine"


def test_include_and_exclude(source: Path, tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        copy = tmp_path / f"target{source}"
        bring(repo, snapshot, tmp_path / "target", RestoreOptions(include=("er", "l*"), exclude=("link",)))
        assert names_under(copy) == {"a", "a/large", "a/deep", "a/deep/er", "a/deep/er/set-id", "locked"}
        assert (copy / "a").stat().st_mtime_ns == (source / "a").stat().st_mtime_ns
        bring(repo, snapshot, tmp_path / "none", RestoreOptions(include=("nothing like this",)))
        assert names_under(tmp_path / "none") == set()
        bring(repo, snapshot, tmp_path / "all", RestoreOptions(exclude=("a/", "*fifo*")))
        assert "a" not in names_under(tmp_path / f"all{source}")
        with pytest.raises(UsageError):
            bring(repo, snapshot, tmp_path / "bad", RestoreOptions(include=("[",)))


def test_hard_links_when_the_first_name_is_not_wanted(source: Path, tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        bring(repo, snapshot, tmp_path / "target", RestoreOptions(exclude=("large",)))
    copy = tmp_path / f"target{source}"
    status = (copy / "z/second name").stat()
    assert status.st_nlink == 2
    assert (copy / "a/deep/third name").read_bytes() == (source / "a/large").read_bytes()


def test_a_dry_run_touches_nothing(source: Path, tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        heard: list = []
        dry = bring(repo, snapshot, tmp_path / "target", RestoreOptions(dry_run=True), heard=heard)
        assert not (tmp_path / "target").exists()
        heard_for_real: list = []
        done = bring(repo, snapshot, tmp_path / "target", heard=heard_for_real)
        assert sorted(heard, key=str) == sorted(heard_for_real, key=str)
        assert (dry.files, dry.bytes) == (done.files, done.bytes)
        copy = tmp_path / f"target{source}"
        (copy / "a/small").write_text("other")
        (copy / "z/fifo").unlink()
        (copy / "surplus").mkdir()
        (copy / "surplus/file").write_text("")
        before = _state(tmp_path / "target")
        heard.clear()
        options = RestoreOptions(dry_run=True, delete=True)
        dry = bring(repo, snapshot, tmp_path / "target", options, heard=heard)
    assert _state(tmp_path / "target") == before
    told = {(action.value, os.path.basename(path)) for action, path in heard if action.value != "keep"}
    assert told == {("replace", b"small"), ("create", b"fifo"), ("delete", b"surplus")}
    assert (dry.files, dry.skipped) == (2, done.files - 2)


def _state(root: Path) -> list[tuple[object, ...]]:
    return sorted(
        (str(path), s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_mode, s.st_size)
        for path in [root, *root.rglob("*")]
        for s in [path.lstat()]
    )


def test_damage_names_the_files_it_hurts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}").write_bytes(os.urandom(60_000))
    store = MemoryStore()
    with make_repository(tmp_path / "cache", store) as repo:
        snapshot = take(repo, source)
        packs = [info.key for info in store.listing(ObjectKind.PACK)]
        data = max(packs, key=lambda key: len(store.get(key)))
        content = bytearray(store.get(data))
        content[len(content) // 3] ^= 1
        store.delete([data])
        store.put(ObjectKey(ObjectKind.PACK, data.name), [content])
        result = bring(repo, snapshot, tmp_path / "target")
    copy = tmp_path / f"target{source}"
    assert 1 <= result.failed < 40
    assert result.files == 40 - result.failed
    hurt = {os.path.basename(found.where) for found in result.findings}
    assert len(hurt) == result.failed
    assert {p.name for p in source.iterdir()} - {p.name for p in copy.iterdir()} == hurt
    for path in copy.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()
    for found in result.findings:
        assert found.where.startswith(str(source))
        assert data.name[:8] in str(found.error)
        assert "the snapshot of host at 2026-03-04 05:06:07 UTC" in str(found.error)
        assert found.error.code == "chunk-damaged"
    assert_clean(tmp_path / "target")


def test_a_pack_that_is_gone(source: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    with make_repository(tmp_path / "cache", store) as repo:
        snapshot = take(repo, source)
        data = max((info for info in store.listing(ObjectKind.PACK)), key=lambda info: info.size)
        store.delete([data.key])
        result = bring(repo, snapshot, tmp_path / "target")
    assert result.failed
    copy = tmp_path / f"target{source}"
    assert (copy / "z/fifo").exists()
    assert (copy / "empty").stat().st_mtime_ns == (source / "empty").stat().st_mtime_ns
    assert_clean(tmp_path / "target")


def test_chunks_nobody_has_and_sizes_that_do_not_add_up(tmp_path: Path) -> None:
    with make_repository(tmp_path / "cache") as repo:
        good = chunk_node(repo, b"good", b"content")
        nodes = [
            chunk_node(repo, b"absent", b"no pack has this"),
            Node(b"excess", NodeKind.FILE, size=70, content=good.content * 11),
            good,
            Node(b"longer", NodeKind.FILE, size=8, content=good.content),
            Node(b"none", NodeKind.FILE, size=8),
            Node(b"shorter", NodeKind.FILE, size=6, content=good.content),
            Node(b"stream", NodeKind.STREAM, size=14, content=good.content * 2),
        ]
        snapshot = forge(repo, [(b"", nodes)], [b"content"])
        result = bring(repo, snapshot, tmp_path / "target")
    assert sorted(f.where for f in result.findings) == ["/absent", "/excess", "/longer", "/none", "/shorter"]
    assert (tmp_path / "target/good").read_bytes() == b"content"
    assert (tmp_path / "target/stream").read_bytes() == b"contentcontent"
    assert stat.S_IMODE((tmp_path / "target/stream").stat().st_mode) == 0o600
    assert names_under(tmp_path / "target") == {"good", "stream"}


def test_a_page_that_is_gone_costs_only_what_is_under_it(source: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    with make_repository(tmp_path / "cache", store) as repo:
        (source / "extra").mkdir()
        (source / "extra/x").write_text("")
        nodes = [
            Node(b"a", NodeKind.DIR, 0o755, subtree=bytes(31) + b"1"),
            chunk_node(repo, b"b", b"content"),
        ]
        snapshot = forge(repo, [(b"", nodes)], [b"content"])
        target = tmp_path / "target"
        (target / "a").mkdir(parents=True)
        (target / "a/mine").write_text("")
        result = bring(repo, snapshot, target, RestoreOptions(delete=True))
    assert [f.where for f in result.findings] == ["/a"]
    assert names_under(target) == {"a", "a/mine", "b"}


def test_deeper_than_any_path(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for level in range(40):
        os.mkdir(b"d" * 150, dir_fd=fd)
        inner = os.open(b"d" * 150, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        leaf = os.open(b"leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        os.write(leaf, b"%d" % level)
        os.close(leaf)
    os.close(fd)
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        result = bring(repo, snapshot, tmp_path / "target", RestoreOptions(verify=True))
        again = bring(repo, snapshot, tmp_path / "target", RestoreOptions(delete=True))
        assert (again.files, again.skipped) == (0, 40)
    assert (result.files, messages(result)) == (40, [])


def test_a_new_process_can_restore(source: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    with make_repository(tmp_path / "cache", store) as repo:
        snapshot = take(repo, source)
    with reopen(tmp_path / "another cache", store) as repo:
        result = bring(repo, snapshot, tmp_path / "target")
    assert not messages(result)
    assert differences(source, tmp_path / f"target{source}") == []


def test_a_target_that_is_no_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with make_repository(tmp_path / "cache") as repo:
        snapshot = take(repo, source)
        for options in (RestoreOptions(), RestoreOptions(dry_run=True)):
            with pytest.raises(TargetError, match=printable(os.fsencode(tmp_path / "file"))):
                bring(repo, snapshot, tmp_path / "file", options)
