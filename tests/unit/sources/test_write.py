"""The target by itself: nothing outside it changes, no name shows a partial file."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.model import Node, NodeKind
from dedupstore.sources.files import write
from dedupstore.sources.files.beneath import Beneath, Place
from dedupstore.sources.files.deposit import deposit, failure
from dedupstore.sources.files.metadata_apply import Owners
from dedupstore.sources.files.write import Draft, Target

TIME = 1_600_000_000_123_456_789
BAD_NAMES = [b"", b".", b"..", b"a/b", b"/etc", b"../x", b"a\0b"]


def node(name: bytes, kind: NodeKind = NodeKind.FILE, **fields: object) -> Node:
    defaults: dict[str, object] = {"mode": 0o640, "uid": os.getuid(), "gid": os.getgid(), "mtime": TIME}
    return Node(name, kind, **(defaults | fields))  # type: ignore[arg-type]


@pytest.fixture
def target(tmp_path: Path):
    path = tmp_path / "target"
    path.mkdir()
    with Target(path, Owners({}, {}), SYSTEM_CLOCK.random) as opened:
        yield opened


def path_of(place: Place) -> Path:
    return Path(os.fsdecode(place.path))


def test_folders_are_closed_to_others_until_they_are_finished(target: Target) -> None:
    place = target.make_folder(target.root, b"\xff folder")
    assert stat.S_IMODE(path_of(place).stat().st_mode) == 0o700
    assert not target.finish_folder(place, node(b"\xff folder", NodeKind.DIR, mode=0o1755), fresh=True)
    status = path_of(place).stat()
    assert stat.S_IMODE(status.st_mode) == 0o1755
    assert status.st_mtime_ns == TIME


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere_are_refused(target: Target, name: bytes) -> None:
    draft = Draft(target.root, 1)
    target.write(draft, memoryview(b"x"), 0)
    for attempt in (
        lambda: target.make_folder(target.root, name),
        lambda: target.enter_folder(target.root, name),
        lambda: target.make_other(target.root, name, node(name, NodeKind.FIFO), replace=False),
        lambda: target.make_other(target.root, name, node(name, NodeKind.SYMLINK), replace=True),
        lambda: target.link((target.root, b"x"), target.root, name),
        lambda: target.finish(draft, name, node(name)),
    ):
        with pytest.raises(OSError):
            attempt()
    job = (target.open(target.root), name, 0, 1, 0o600, 0, 0, 0, ())
    assert deposit(b"x", b".dstore-00000000.tmp", [job]) == [errno.EINVAL]
    target.abandon(draft)
    assert not list(path_of(target.root).iterdir())


def test_a_link_is_not_a_folder(target: Target, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (path_of(target.root) / "link").symlink_to(outside)
    with pytest.raises(OSError):
        target.enter_folder(target.root, b"link")
    with pytest.raises(OSError):
        target.read(target.root, b"link")


def test_a_folder_exchanged_for_a_link_is_not_entered_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    beneath = Beneath(tmp_path)
    place = Place(beneath.root, b"in")
    beneath.open(place)
    beneath.drop(place)
    (tmp_path / "in").rmdir()
    (tmp_path / "in").symlink_to("out")
    with pytest.raises(OSError):
        beneath.open(place)
    (tmp_path / "in").unlink()
    (tmp_path / "out").rename(tmp_path / "in")
    with pytest.raises(OSError, match=r"[Ss]tale"):
        beneath.open(place)
    beneath.close()


def test_deeper_than_any_path_with_few_descriptors(tmp_path: Path) -> None:
    beneath = Beneath(tmp_path, limit=3)
    place = beneath.root
    for _ in range(60):
        name = b"d" * 200
        os.mkdir(name, dir_fd=beneath.open(place))
        place = Place(place, name)
    assert len(place.path) > 4096 * 2
    held = beneath.open(place)
    assert os.listdir(held) == []
    before = len(os.listdir("/proc/self/fd"))
    del held
    beneath.close()
    assert len(os.listdir("/proc/self/fd")) <= before - 3


def test_pieces_in_any_order_with_holes(target: Target) -> None:
    draft = Draft(target.root, 3 << 20)
    target.write(draft, memoryview(b"end"), (3 << 20) - 3)
    target.write(draft, memoryview(b"begin"), 0)
    (temp,) = path_of(target.root).iterdir()
    assert stat.S_IMODE(temp.stat().st_mode) == 0o600
    assert not target.finish(draft, b"file", node(b"file", mode=0o444))
    (found,) = path_of(target.root).iterdir()
    content = found.read_bytes()
    assert (len(content), content[:5], content[-3:]) == (3 << 20, b"begin", b"end")
    assert content.strip(b"beginend") == bytes((3 << 20) - 8)
    assert found.stat().st_blocks * 512 <= 64 << 10
    assert stat.S_IMODE(found.stat().st_mode) == 0o444


def test_more_drafts_than_are_kept_open(target: Target) -> None:
    drafts = [Draft(target.root, 8) for _ in range(write.DRAFTS + 20)]
    for offset in (4, 0):
        for number, draft in enumerate(drafts):
            target.write(draft, memoryview(b"%04d" % number), offset)
    for number, draft in enumerate(drafts):
        assert not target.finish(draft, b"%04d" % number, node(b""))
    for number in range(len(drafts)):
        assert (path_of(target.root) / f"{number:04}").read_bytes() == b"%04d" % number * 2


def test_a_draft_exchanged_while_it_was_closed_is_not_written(target: Target, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    draft = Draft(target.root, 8)
    target.write(draft, memoryview(b"1234"), 0)
    draft.descriptor = None
    (temp,) = path_of(target.root).iterdir()
    temp.unlink()
    os.link(victim, temp)
    with pytest.raises(OSError, match="replaced"):
        target.write(draft, memoryview(b"1234"), 4)
    assert victim.read_bytes() == b"precious"


def test_leaving_removes_what_was_not_finished(tmp_path: Path) -> None:
    with Target(tmp_path, Owners({}, {}), SYSTEM_CLOCK.random) as target:
        target.write(Draft(target.root, 4), memoryview(b"1234"), 0)
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_many_threads_write_one_draft(target: Target) -> None:
    draft = Draft(target.root, 4000)
    gate = threading.Barrier(8)

    def run(number: int) -> None:
        gate.wait()
        for at in range(number, 1000, 8):
            target.write(draft, memoryview(b"%04d" % at), at * 4)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not target.finish(draft, b"f", node(b"f"))
    (found,) = path_of(target.root).iterdir()
    assert found.read_bytes() == b"".join(b"%04d" % at for at in range(1000))


def test_links_fifos_and_their_replacement(target: Target) -> None:
    root = path_of(target.root)
    target.make_other(target.root, b"l", node(b"l", NodeKind.SYMLINK, target=b"\xff/../x"), replace=False)
    assert os.readlink(os.fsencode(root) + b"/l") == b"\xff/../x"
    assert (root / "l").lstat().st_mtime_ns == TIME
    with pytest.raises(FileExistsError):
        target.make_other(target.root, b"l", node(b"l", NodeKind.FIFO), replace=False)
    target.make_other(target.root, b"l", node(b"l", NodeKind.FIFO, mode=0o622), replace=True)
    assert stat.S_ISFIFO((root / "l").lstat().st_mode)
    assert stat.S_IMODE((root / "l").lstat().st_mode) == 0o622
    assert [entry.name for entry in root.iterdir()] == ["l"]


def test_second_names(target: Target) -> None:
    root = path_of(target.root)
    (root / "one").write_text("1")
    (root / "other").write_text("2")
    first = (target.root, b"one")
    assert target.link(first, target.root, b"two")
    assert not target.link(first, target.root, b"two")
    assert target.link(first, target.root, b"other")
    assert {entry.name: entry.read_text() for entry in root.iterdir()} == dict.fromkeys(
        ("one", "two", "other"), "1"
    )


def test_removing_a_folder_does_not_follow_links(target: Target, tmp_path: Path) -> None:
    root = path_of(target.root)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("1")
    (root / "d" / "e" / "f").mkdir(parents=True)
    (root / "d" / "e" / "to").symlink_to(outside)
    (root / "d" / "e" / "keep").write_text("1")
    (root / "d" / "file").write_text("1")
    count = target.remove(target.root, b"d", lambda path, is_dir: path == b"/s/d/e/keep", b"/s/d")
    assert count == 3
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*")) == ["d", "d/e", "d/e/keep"]
    assert target.remove(target.root, b"d") == 3
    assert target.remove(target.root, b"d") == 0
    assert (outside / "precious").exists()


def test_a_tree_deeper_than_any_path_is_removed(target: Target) -> None:
    place = target.root
    for _ in range(50):
        place = target.make_folder(place, b"d" * 200)
    assert target.remove(target.root, b"d" * 200) == 50
    assert not list(path_of(target.root).iterdir())


def test_only_our_own_stale_names_are_removed(target: Target) -> None:
    root = path_of(target.root)
    stale = [".dstore-0123abcd.tmp", ".dstore-ffffffff.tmp"]
    others = [".dstore-0123ABCD.tmp", ".dstore-123.tmp", "x.dstore-0123abcd.tmp", ".dstore-0123abcd.tmp2"]
    for name in stale + others:
        (root / name).write_text("")
    (root / ".dstore-00000001.tmp").mkdir()
    draft = Draft(target.root, 1)
    target.write(draft, memoryview(b"x"), 0)
    gone = list(target.remove_stale(target.root, target.names(target.root)))
    assert gone == [name.encode() for name in stale]
    assert {entry.name for entry in root.iterdir()} >= {*others, os.fsdecode(draft.temp)}


def test_umask_and_default_acls_do_not_matter(target: Target) -> None:
    root = path_of(target.root)
    acl = bytes.fromhex(
        "0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff"
    )
    try:
        os.setxattr(root, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("this file system has no ACLs")
    old = os.umask(0o777)
    try:
        with Target(root, Owners({}, {}), SYSTEM_CLOCK.random) as again:
            place = again.make_folder(again.root, b"d")
            draft = Draft(again.root, 1)
            again.write(draft, memoryview(b"x"), 0)
            assert not again.finish(draft, b"f", node(b"f", mode=0o666))
            mode = again.job_mode(again.root, 0o604)
            job = (again.open(again.root), b"g", 0, 1, mode, os.getuid(), os.getgid(), TIME, ())
            assert [failure(o) for o in deposit(b"x", again.temp_name(), [job])] == [0]
            again.finish_folder(place, node(b"d", NodeKind.DIR, mode=0o777), fresh=True)
    finally:
        os.umask(old)
    found = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in root.iterdir()}
    assert found == {"d": 0o777, "f": 0o666, "g": 0o604}
    assert not any(name.startswith("system.") for entry in root.iterdir() for name in os.listxattr(entry))
