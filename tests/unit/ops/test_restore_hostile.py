"""Trees made to do harm, by somebody who has the keys: nothing outside the target changes."""

import os
import stat
from pathlib import Path

import pytest
from restore_samples import OLD, TIME, bring, chunk_node, forge, make_repository, messages, names_under

from dedupstore.format.tree import Page, PageRef, encode_page
from dedupstore.ids import ChunkId, TreeId
from dedupstore.model import Node, NodeKind, Snapshot, SourceSpec, Statistics, Summary
from dedupstore.ops.restore.restorer import Overwrite, RestoreOptions
from dedupstore.repository.repository import Repository

CONTENT = b"evil"
BAD_NAMES = [b"", b".", b"..", b"../evil", b"a/b", b"/etc/evil", b"a\0b"]


@pytest.fixture
def repo(tmp_path: Path):
    with make_repository(tmp_path / "cache") as repo:
        yield repo


@pytest.fixture
def outside(tmp_path: Path):
    path = tmp_path / "outside"
    path.mkdir()
    (path / "precious").write_text("precious")
    os.utime(path, ns=(OLD, OLD))
    before = path.stat()
    yield path
    after = path.stat()
    assert (path / "precious").read_text() == "precious"
    assert [p.name for p in path.iterdir()] == ["precious"]
    assert (after.st_mtime_ns, after.st_mode, after.st_uid) == (OLD, before.st_mode, before.st_uid)


def folder(name: bytes, **fields: object) -> Node:
    return Node(name, NodeKind.DIR, 0o755, mtime=OLD, **fields)  # type: ignore[arg-type]


def link(name: bytes, to: Path) -> Node:
    return Node(name, NodeKind.SYMLINK, 0o777, mtime=OLD, target=os.fsencode(to))


def two_leaves(repo: Repository, first: list[Node], second: list[Node]) -> Snapshot:
    """A root of two leaf pages, each in order for itself."""
    with repo.writing() as session:
        session.put(CONTENT)
        empty = session.save_page(encode_page(Page(0, Summary(), (chunk_node(repo, b"precious", CONTENT),))))
        refs = []
        for nodes in (first, second):
            filled = tuple(
                folder(n.name, subtree=empty, summary=Summary()) if n.kind == 2 else n for n in nodes
            )
            identifier = session.save_page(encode_page(Page(0, Summary(), filled)))
            refs.append(PageRef(filled[0].name, identifier, Summary(), len(filled)))
        root = session.save_page(encode_page(Page(1, Summary(), (), tuple(refs))))
        source = SourceSpec("files", (b"/",))
        snapshot = Snapshot(TreeId(ChunkId(root)), TIME, "h", "u", source, None, frozenset(), 1, Statistics())
        session.commit(snapshot)
    return snapshot


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", [NodeKind.FILE, NodeKind.DIR, NodeKind.SYMLINK, NodeKind.FIFO])
def test_names_that_lead_elsewhere(repo: Repository, tmp_path: Path, name: bytes, kind: NodeKind) -> None:
    evil = chunk_node(repo, b"inner", CONTENT)
    bad = {
        NodeKind.FILE: chunk_node(repo, name, CONTENT),
        NodeKind.DIR: folder(name),
        NodeKind.SYMLINK: link(name, tmp_path),
        NodeKind.FIFO: Node(name, NodeKind.FIFO, 0o600),
    }[kind]
    snapshot = forge(repo, [(name, [evil]), (b"sub", [bad]), (b"", [folder(b"sub")])], [CONTENT])
    before = names_under(tmp_path) - {"cache"}
    result = bring(repo, snapshot, tmp_path / "in/target")
    assert result.failed == 1
    assert names_under(tmp_path / "in") == {"target", "target/sub"}
    assert {n for n in names_under(tmp_path) - before if not n.startswith(("in", "cache"))} == set()


@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_link_then_a_folder_of_its_name(
    repo: Repository, tmp_path: Path, outside: Path, mode: Overwrite
) -> None:
    good = chunk_node(repo, b"b", CONTENT)
    snapshot = two_leaves(repo, [link(b"a", outside), link(b"x", outside)], [good, folder(b"x")])
    target = tmp_path / "target"
    result = bring(repo, snapshot, target, RestoreOptions(overwrite=mode, delete=mode is Overwrite.ALWAYS))
    assert sorted(f.where for f in result.findings) == ["/b", "/x"]
    assert "stands twice" in messages(result)[0]
    assert names_under(target) == {"a", "x"}
    assert (target / "x").is_symlink()


def test_a_folder_then_a_link_of_its_name(repo: Repository, tmp_path: Path, outside: Path) -> None:
    snapshot = two_leaves(
        repo, [link(b"a", outside), folder(b"x")], [link(b"b", outside), link(b"x", outside)]
    )
    result = bring(repo, snapshot, tmp_path / "target")
    assert sorted(f.where for f in result.findings) == ["/b", "/x"]
    assert (tmp_path / "target/x").is_dir()
    assert not (tmp_path / "target/x").is_symlink()


def test_names_twice(repo: Repository, tmp_path: Path) -> None:
    first = [chunk_node(repo, b"a", CONTENT), chunk_node(repo, b"x", CONTENT)]
    second = [chunk_node(repo, b"b", b""), chunk_node(repo, b"x", b"")]
    result = bring(repo, two_leaves(repo, first, second), tmp_path / "target")
    assert result.failed == 2
    assert (tmp_path / "target/x").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", list(Overwrite))
def test_a_link_that_was_there_before(
    repo: Repository, tmp_path: Path, outside: Path, mode: Overwrite
) -> None:
    inner = [chunk_node(repo, b"new", CONTENT), chunk_node(repo, b"precious", CONTENT)]
    snapshot = forge(repo, [(b"d", inner), (b"", [folder(b"d")])], [CONTENT])
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)
    result = bring(repo, snapshot, target, RestoreOptions(overwrite=mode, delete=mode is Overwrite.ALWAYS))
    if mode in {Overwrite.ALWAYS, Overwrite.IF_CHANGED}:
        assert not (target / "d").is_symlink()
        assert (target / "d/precious").read_bytes() == CONTENT
    elif mode is not Overwrite.KEEP_BOTH:
        assert result.failed == 1


def test_a_hard_link_to_a_link(repo: Repository, tmp_path: Path, outside: Path) -> None:
    victim = link(b"a", outside / "precious")
    nodes = [
        Node(b"a", NodeKind.SYMLINK, 0o777, target=victim.target, link=b"12345678"),
        chunk_node(repo, b"b", CONTENT, link=b"12345678"),
        Node(b"c", NodeKind.SYMLINK, 0o777, target=victim.target, link=b"12345678"),
    ]
    result = bring(repo, forge(repo, [(b"", nodes)], [CONTENT]), tmp_path / "target")
    assert not messages(result)
    found = tmp_path / "target"
    assert (found / "b").read_bytes() == CONTENT
    assert not (found / "b").is_symlink()
    assert (found / "c").is_symlink()
    assert (outside / "precious").stat().st_nlink == 1


def test_two_files_with_one_group_number(repo: Repository, tmp_path: Path) -> None:
    """Device numbers change at a reboot, so an entry taken over from before can bear another file's group."""
    nodes = [
        chunk_node(repo, b"a", b"first", link=b"\1" * 16),
        chunk_node(repo, b"b", b"other", link=b"\1" * 16),
        chunk_node(repo, b"c", b"first", link=b"\1" * 16),
        chunk_node(repo, b"d", b"other", link=b"\1" * 16),
    ]
    result = bring(repo, forge(repo, [(b"", nodes)], [b"first", b"other"]), tmp_path / "target")
    assert not messages(result)
    found = tmp_path / "target"
    assert [(found / name).read_bytes() for name in "abcd"] == [b"first", b"other"] * 2
    assert (found / "a").samefile(found / "c")
    assert (found / "b").samefile(found / "d")


def test_a_file_longer_than_any_file_system_takes(repo: Repository, tmp_path: Path) -> None:
    nodes = [chunk_node(repo, b"b", CONTENT)]
    nodes.insert(0, Node(b"a", NodeKind.FILE, 0o600, size=2**63, content=nodes[0].content))
    result = bring(repo, forge(repo, [(b"", nodes)], [CONTENT]), tmp_path / "target")
    assert [found.where for found in result.findings] == ["/a"]
    assert (tmp_path / "target/b").read_bytes() == CONTENT


def test_numbers_out_of_any_range(repo: Repository, tmp_path: Path) -> None:
    wild = {"uid": 2**40, "gid": -5, "mtime": 2**64 - 1}
    plain = chunk_node(repo, b"a", CONTENT)
    nodes = [
        Node(b"a", NodeKind.FILE, 0xFFFFFFFF, size=4, content=plain.content, **wild),
        Node(b"b", NodeKind.FILE, -1, size=4, content=plain.content, mtime=-(2**63)),
        Node(b"c", NodeKind.FILE, 0o600, size=2**62, content=plain.content),
        Node(b"d", NodeKind.FIFO, 0xFFFFFFFF, **wild),
        Node(b"e", NodeKind.SYMLINK, target=b"", **wild),
        Node(b"f", NodeKind.CHAR_DEVICE, 0o600, rdev=2**63),
        Node(b"g", NodeKind.SYMLINK, target=b"x" * 100_000),
        Node(
            b"h", NodeKind.FILE, 0o600, xattrs=((b"user.\0", b""), (b"", b"x"), (b"user.big", bytes(1 << 20)))
        ),
        Node(b"i", NodeKind.SYMLINK, target=b"a\0b"),
    ]
    result = bring(repo, forge(repo, [(b"", nodes)], [CONTENT]), tmp_path / "target")
    assert {found.where for found in result.findings} >= {"/c", "/f", "/g", "/h", "/i"}
    assert (tmp_path / "target/a").read_bytes() == CONTENT
    assert (tmp_path / "target/b").read_bytes() == CONTENT


def test_a_special_file_is_not_opened(repo: Repository, tmp_path: Path) -> None:
    snapshot = forge(repo, [(b"", [chunk_node(repo, b"a", CONTENT)])], [CONTENT])
    target = tmp_path / "target"
    target.mkdir()
    os.mkfifo(target / "a")  # opening it for reading would wait for ever
    os.utime(target / "a", ns=(OLD, OLD))
    result = bring(repo, snapshot, target)
    assert not messages(result)
    assert stat.S_ISREG((target / "a").lstat().st_mode)
