import os
import random
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dedupstore.errors import SourceError, SourceVanished
from dedupstore.model import Node, NodeKind
from dedupstore.sources.files import metadata
from dedupstore.sources.files.listing import Lister
from dedupstore.sources.files.scan import FilesSource
from tests.unit.sources.source_walks import descend, into, read_stream, the_item


@pytest.fixture
def source(tmp_path: Path, lister: Lister, descriptors: None) -> FilesSource:
    return FilesSource([os.fsencode(tmp_path)], lister=lister)


def test_every_kind_of_entry(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "folder").mkdir()
    os.symlink(b"wh\xff\nere/ever", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.fspath(tmp_path / "socket"))
    try:
        os.mknod(tmp_path / "char", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(tmp_path / "block", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    except PermissionError as error:
        pytest.skip(f"no devices can be made here: {error}")
    folder = descend(source, tmp_path)
    nodes = {
        item.name: folder.read(item, into())[0] if stat.S_ISREG(item.mode) else folder.node(item)
        for segment in folder.listing()
        for item in folder.items(segment)
    }
    source.close()
    assert {name: node.kind for name, node in nodes.items()} == {
        b"file": NodeKind.FILE, b"folder": NodeKind.DIR, b"link": NodeKind.SYMLINK, b"fifo": NodeKind.FIFO,
        b"socket": NodeKind.SOCKET, b"char": NodeKind.CHAR_DEVICE, b"block": NodeKind.BLOCK_DEVICE,
    }  # fmt: skip
    assert nodes[b"link"].target == b"wh\xff\nere/ever"
    assert (nodes[b"char"].rdev, nodes[b"block"].rdev) == (os.makedev(1, 3), os.makedev(7, 200))
    assert {name: node.size for name, node in nodes.items() if node.size} == {b"file": 7}
    assert not any(node.rdev for name, node in nodes.items() if name not in {b"char", b"block"})


def test_modes_owners_and_times(source: FilesSource, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    if os.geteuid() == 0:
        os.chown(path, 12345, 54321)
    os.chmod(path, 0o6751)
    os.utime(path, ns=(0, -1_234_567_890_123_456_789))
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    os.chmod(sticky, 0o1777)
    folder = descend(source, tmp_path)
    node, _ = folder.read(the_item(folder, b"file"), into())
    status = os.stat(path)
    assert (node.mode, node.uid, node.gid) == (0o6751, status.st_uid, status.st_gid)
    assert node.mtime == status.st_mtime_ns
    assert folder.node(the_item(folder, b"sticky")).mode == 0o1777
    source.close()


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"new\nline", b"tab\t", b"\x01", b" ", b"-rf", b"x" * 255, "ä€😀".encode()]
)
def test_names_are_bytes(source: FilesSource, tmp_path: Path, name: bytes) -> None:
    base = os.fsencode(tmp_path)
    with open(os.path.join(base, name), "wb") as file:
        file.write(name)
    os.mkdir(os.path.join(base, b"folder"))
    with open(os.path.join(base, b"folder", name), "wb") as file:
        file.write(b"below")
    folder = descend(source, tmp_path)
    view = into()
    node, size = folder.read(the_item(folder, name), view)
    assert (node.name, bytes(view[:size])) == (name, name)
    below = descend(source, tmp_path / "folder")
    assert below.read(the_item(below, name), view)[1] == 5
    source.close()


def test_extended_attributes_of_everything_that_has_them(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    os.symlink("nowhere", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    value = bytes(range(256))
    try:
        os.setxattr(tmp_path / "file", "user.b", value)
        os.setxattr(tmp_path / "file", "user.a", b"")
        os.setxattr(tmp_path / "folder", "user.c", b"v")
        os.setxattr(tmp_path / "link", "trusted.d", b"v", follow_symlinks=False)
        os.setxattr(tmp_path / "fifo", "trusted.e", b"v")
    except OSError as error:
        pytest.skip(f"attributes can not be set here: {error}")
    folder = descend(source, tmp_path)
    assert folder.read(the_item(folder, b"file"), into())[0].xattrs == ((b"user.a", b""), (b"user.b", value))
    stream = folder.open(the_item(folder, b"file"))
    assert stream.finish().xattrs == ((b"user.a", b""), (b"user.b", value))
    stream.close()
    assert folder.node(the_item(folder, b"folder")).xattrs == ((b"user.c", b"v"),)
    assert folder.node(the_item(folder, b"link")).xattrs == ((b"trusted.d", b"v"),)
    assert folder.node(the_item(folder, b"fifo")).xattrs == ((b"trusted.e", b"v"),)
    source.close()


def test_more_attributes_than_a_page_can_hold_are_a_finding(
    source: FilesSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    try:
        os.setxattr(tmp_path / "file", "user.a", bytes(300))
        os.setxattr(tmp_path / "folder", "user.a", bytes(300))
    except OSError as error:
        pytest.skip(f"attributes can not be set here: {error}")
    monkeypatch.setattr(metadata, "XATTRS_MAX", 305)
    folder = descend(source, tmp_path)
    stream = folder.open(the_item(folder, b"file"))
    for read in (
        lambda: folder.read(the_item(folder, b"file"), into()),
        lambda: folder.node(the_item(folder, b"folder")),
        stream.finish,
    ):
        with pytest.raises(SourceError, match="extended attributes"):
            read()
    stream.close()
    monkeypatch.setattr(metadata, "XATTRS_MAX", 306)
    assert folder.read(the_item(folder, b"file"), into())[0].xattrs
    source.close()


def test_access_control_lists_are_attributes(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    try:
        subprocess.run(["setfacl", "-m", "u:4321:rw", tmp_path / "file"], check=True, capture_output=True)
        subprocess.run(["setfacl", "-dm", "g:99:rx", tmp_path / "folder"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"setfacl does not work here: {error}")
    folder = descend(source, tmp_path)
    for name, attribute in (("file", "system.posix_acl_access"), ("folder", "system.posix_acl_default")):
        item = the_item(folder, name.encode())
        node = folder.read(item, into())[0] if name == "file" else folder.node(item)
        assert node.xattrs == ((attribute.encode(), os.getxattr(tmp_path / name, attribute)),)
    source.close()


def test_names_of_one_file_are_a_group(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "b")
    os.mkfifo(tmp_path / "p")
    os.link(tmp_path / "p", tmp_path / "q")
    (tmp_path / "single").write_bytes(b"x")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    folder = descend(source, tmp_path)
    links = {name: folder.read(the_item(folder, name), into())[0].link for name in (b"a", b"b", b"single")}
    links |= {name: folder.node(the_item(folder, name)).link for name in (b"p", b"q", b"folder")}
    inode = os.stat(tmp_path / "a").st_ino.to_bytes(8, "little")
    assert links[b"a"] == links[b"b"] == inode
    assert links[b"p"] == links[b"q"] != inode
    assert links[b"single"] == links[b"folder"] == b""
    source.close()


@pytest.mark.parametrize("step", [1000, 4096, 1 << 20])
def test_a_large_file_comes_in_order(source: FilesSource, tmp_path: Path, step: int) -> None:
    content = random.Random(1).randbytes(300_001)
    (tmp_path / "file").write_bytes(content)
    folder = descend(source, tmp_path)
    parts, node, changed = read_stream(folder, the_item(folder, b"file"), step)
    assert parts == [(len(content), content)]
    assert (node.size, node.kind, changed) == (300_001, NodeKind.FILE, False)
    source.close()


def test_holes_are_passed_over(source: FilesSource, tmp_path: Path) -> None:
    block, far = 1 << 16, 3 << 30
    data = random.Random(2).randbytes(block)
    with open(tmp_path / "sparse", "wb") as file:
        file.seek(block)
        file.write(data)
        file.seek(far)
        file.write(data)
        file.truncate(far + 2 * block)
    if os.stat(tmp_path / "sparse").st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    folder = descend(source, tmp_path)
    parts, node, changed = read_stream(folder, the_item(folder, b"sparse"), 5000)
    assert parts == [(block, b""), (block, data), (far - 2 * block, b""), (block, data), (block, b"")]
    assert (node.size, changed) == (far + 2 * block, False)
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(12345)
    assert read_stream(folder, the_item(folder, b"hole"), 100)[0] == [(12345, b"")]
    (tmp_path / "empty").touch()
    assert read_stream(folder, the_item(folder, b"empty"), 100)[0] == []
    source.close()


def test_a_folder_that_vanishes_says_so(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    folder = descend(source, tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    with pytest.raises(SourceVanished, match="folder was gone"):
        folder.listing()
    source.close()


def test_a_folder_that_becomes_a_symlink_is_not_followed(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    folder = descend(source, tmp_path / "folder")
    (tmp_path / "folder").rmdir()
    os.symlink("/etc", tmp_path / "folder")
    with pytest.raises(SourceError):
        folder.listing()
    source.close()


def test_symlinks_in_a_circle_are_only_symlinks(
    tmp_path: Path, lister: Lister, walk: Callable[[FilesSource], dict[bytes, Node]]
) -> None:
    os.symlink(".", tmp_path / "here")
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    base = os.fsencode(tmp_path)
    found = walk(FilesSource([base], lister=lister))
    assert {p: n.target for p, n in found.items() if p.startswith(base + b"/")} == {
        base + b"/here": b".", base + b"/a": b"b", base + b"/b": b"a",
    }  # fmt: skip


def test_times_beyond_64_bits_are_clipped(source: FilesSource, tmp_path: Path) -> None:
    folder = descend(source, tmp_path)
    (tmp_path / "link").symlink_to("x")
    item = the_item(folder, b"link")
    assert folder.node(item._replace(mtime=2**70)).mtime == 2**63 - 1
    assert folder.node(item._replace(mtime=-(2**70))).mtime == -(2**63)
    source.close()


def test_an_entry_that_can_not_be_looked_at_is_a_finding(source: FilesSource, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("x")
    folder = descend(source, tmp_path)
    item = the_item(folder, b"link")._replace(mode=0, rdev=13)
    with pytest.raises(SourceError, match=r"Permission denied.*run as a user who may read it"):
        folder.node(item)
    source.close()
