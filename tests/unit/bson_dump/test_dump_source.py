"""Dump folders, from the disk into a repository and what is then in it."""

import gzip
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError, SourceVanished
from dedupstore.format.chunklist import decode_list_page
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import CollectionFacts, read_facts
from dedupstore.sources.bson.folder import DumpFolder
from dedupstore.sources.bson.source import DumpSource
from dedupstore.sources.bson.stream import DocumentStream
from dedupstore.sources.files.options import FilesOptions
from dedupstore.tree.walk import labelled_of
from tests.support import repos
from tests.support.dumps import CAPPED, LEAVES, Dump, made, numbered, numbers, small, write_folder

SMALL = small()
ORDERED = b"".join(numbers(2000))


def settle(*roots: Path) -> None:
    """Make everything look old enough that its times can be relied on."""
    for root in roots:
        for path in [root, *root.rglob("*")]:
            os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def back_up(repo: Repository, root: Path, options: FilesOptions | None = None) -> BackupResult:
    return repos.run(repo, DumpSource([os.fsencode(root)], LEAVES, options))


def files(repo: Repository, snapshot: Snapshot, root: Path) -> dict[bytes, bytes | None]:
    return repos.files_in(repo, snapshot, os.fsencode(root))


def nodes(repo: Repository, snapshot: Snapshot, root: Path) -> dict[bytes, Node]:
    prefix = os.fsencode(root) + b"/"
    return {
        path.removeprefix(prefix): node
        for path, node in repos.walk(repo, snapshot.root)
        if path.startswith(prefix) and node.kind != NodeKind.DIR
    }


def labels(repo: Repository, node: Node) -> list[bytes]:
    return [label for _, _, label in labelled_of(lambda page: decode_list_page(repo.load_tree(page)), node)]


def facts(node: Node) -> CollectionFacts:
    found = read_facts(node)
    assert found is not None
    return found


@pytest.mark.parametrize("packed", [False, True])
def test_collections_are_stored_in_order_and_all_else_as_it_is(
    repo: Repository, tmp_path: Path, packed: bool
) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=packed)
    result = back_up(repo, root)
    assert result.findings == ()
    assert result.snapshot.source.kind == "bson"
    assert result.snapshot.source.paths == (os.fsencode(root),)
    found = files(repo, result.snapshot, root)
    plain = write_folder(SMALL, tmp_path / "plain")
    expected = {
        os.fsencode(f"/{path.relative_to(plain)}"): None if path.is_dir() else path.read_bytes()
        for path in plain.rglob("*")
    }
    expected[b"/shop/shuffled.bson"] = ORDERED
    assert found == expected


def test_what_is_noted_of_each_collection(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump")
    found = nodes(repo, back_up(repo, root).snapshot, root)
    k = facts(found[b"shop/ordered.bson"]).k
    assert facts(found[b"shop/ordered.bson"]) == CollectionFacts(
        k, True, 2000, "shop", "ordered", bytes(range(16))
    )
    assert facts(found[b"shop/shuffled.bson"]) == CollectionFacts(k, True, 2000, "shop", "shuffled", b"")
    capped = facts(found[b"shop/capped+%C3%A9%2F%25.bson"])
    assert (capped.in_order, capped.documents, capped.name) == (False, 300, "capped é/%")
    assert facts(found[b"shop/empty.bson"]).documents == 0
    assert read_facts(found[b"oplog.bson"]) is None
    assert read_facts(found[b"shop/view.metadata.json"]) is None
    assert found[b"shop/ordered.bson"].content == found[b"shop/shuffled.bson"].content
    names = labels(repo, found[b"shop/ordered.bson"])
    assert len(names) > 5
    assert names == sorted(names)
    assert b"" not in names
    assert set(labels(repo, found[b"shop/capped+%C3%A9%2F%25.bson"])) == {b""}


def test_files_keep_what_files_have(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump")
    path = root / "shop" / "shuffled.bson"
    path.chmod(0o640)
    os.utime(path, ns=(5, 1_234_567_890))
    os.link(path, root / "shop" / "other name")
    found = nodes(repo, back_up(repo, root).snapshot, root)
    node = found[b"shop/shuffled.bson"]
    assert (node.kind, node.mode, node.uid, node.mtime) == (NodeKind.FILE, 0o640, os.getuid(), 1_234_567_890)
    assert node.link
    assert node.link == found[b"shop/other name"].link
    assert node.size == len(ORDERED) == path.stat().st_size


def read_bytes() -> int:
    """How many bytes this process has read so far, from files and pipes."""
    text = Path("/proc/self/io").read_text("ascii")
    return int(text.split()[1])


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_as_it_was_is_not_read_again(repo: Repository, tmp_path: Path, packed: bool) -> None:
    root = write_folder(
        Dump([made("d", "c", [numbered(n, 2000) for n in range(2000)])]), tmp_path / "dump", packed=packed
    )
    settle(root)
    os.sync()
    time.sleep(0.05)
    back_up(repo, root)
    before = read_bytes()
    again = back_up(repo, root).snapshot.statistics
    assert (again.files_unchanged, again.bytes_new, again.files) == (3, 0, 3)
    assert read_bytes() - before < 20_000
    (root / "d" / "new").write_bytes(b"x")
    before = read_bytes()
    changed = back_up(repo, root).snapshot.statistics
    assert (changed.files_new, changed.files_unchanged) == (1, 3)
    assert read_bytes() - before < 20_000


def test_the_same_documents_are_stored_once_however_they_come(repo: Repository, tmp_path: Path) -> None:
    back_up(repo, write_folder(SMALL, tmp_path / "dump"))
    packed = back_up(repo, write_folder(SMALL, tmp_path / "packed", packed=True))
    assert packed.snapshot.statistics.bytes_new == 0
    other = Dump([made("other", "shuffled differently", numbers(2000, step=11))])
    added = back_up(repo, write_folder(other, tmp_path / "other")).snapshot.statistics.bytes_new
    assert added < 500  # metadata


def test_an_update_changes_one_leaf(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(20_000))]), tmp_path / "dump")
    back_up(repo, root)
    documents = numbers(20_000)
    documents[10_000] = documents[10_000].replace(b"0", b"1")
    write_folder(Dump([made("d", "c", documents)]), root)
    assert 0 < back_up(repo, root).snapshot.statistics.bytes_new < 100_000


def test_documents_without_an_id_stay_in_their_order(repo: Repository, tmp_path: Path) -> None:
    documents = [numbered(5), raw.document([(b"x", raw.NULL, b"")]), numbered(3)]
    root = write_folder(Dump([made("d", "c", documents)]), tmp_path / "dump")
    result = back_up(repo, root)
    assert result.findings == ()
    assert files(repo, result.snapshot, root)[b"/d/c.bson"] == b"".join(documents)
    node = nodes(repo, result.snapshot, root)[b"d/c.bson"]
    assert (facts(node).in_order, facts(node).documents) == (False, 3)


def test_a_sparse_file_is_a_file_of_zeros(repo: Repository, tmp_path: Path) -> None:
    document = numbered(1, 1 << 20)
    root = write_folder(Dump([made("d", "c", [document])]), tmp_path / "dump")
    start = len(document) - (1 << 20)
    with open(root / "d" / "c.bson", "wb") as file:
        file.write(document[:start])
        file.truncate(len(document) - 1)
        file.seek(len(document) - 1)
        file.write(document[-1:])
    result = back_up(repo, root)
    assert result.findings == ()
    assert files(repo, result.snapshot, root)[b"/d/c.bson"] == document


def the_one(result: BackupResult) -> SourceError:
    (finding,) = result.findings
    assert isinstance(finding.error, SourceError)
    assert "/d/" in finding.where
    return finding.error


DAMAGED = [
    ("cut short", lambda data: data[:-3]),
    ("no terminator", lambda data: data[:-1] + b"x"),
    ("text behind", lambda data: data + b"text"),
    ("text instead", lambda data: b"this is no BSON at all, but it is long enough to be looked at" * 3),
    ("a length", lambda data: data[:5000].replace(numbered(30)[:4], b"\xff\xff\xff\x7f", 40) + data[5000:]),
]


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize(("what", "damage"), DAMAGED, ids=[what for what, _ in DAMAGED])
def test_what_is_no_bson_is_stored_as_it_is_with_a_finding(
    repo: Repository,
    tmp_path: Path,
    what: str,
    damage,
    step: int,  # type: ignore[no-untyped-def]
) -> None:
    root = write_folder(Dump([made("d", "c", numbers(2000, step=step))]), tmp_path / "dump")
    path = root / "d" / "c.bson"
    path.write_bytes(damage(path.read_bytes()))
    settle(root)
    for _ in range(2):  # it is looked at again, and said again
        result = back_up(repo, root)
        assert "plain bytes" in the_one(result).message
        assert files(repo, result.snapshot, root)[b"/d/c.bson"] == path.read_bytes()
        assert read_facts(nodes(repo, result.snapshot, root)[b"d/c.bson"]) is None
    write_folder(Dump([made("d", "c", numbers(2000, step=step))]), root)
    assert back_up(repo, root).findings == ()


def test_damaged_gzip_keeps_its_bytes_and_its_name(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(3000, step=7))]), tmp_path / "dump", packed=True)
    path = root / "d" / "c.bson.gz"
    path.write_bytes(path.read_bytes()[:-5])
    result = back_up(repo, root)
    assert isinstance(the_one(result).data["offset"], int)
    found = files(repo, result.snapshot, root)
    assert found[b"/d/c.bson.gz"] == path.read_bytes()
    assert b"/d/c.bson" not in found
    (root / "d" / "c.bson.extra").touch()  # now a name lies between the two
    found = files(repo, back_up(repo, root).snapshot, root)
    assert found[b"/d/c.bson"] == path.read_bytes()


@pytest.mark.parametrize("text", [b"", b"{", b"null", b'{"type":"unknown"}'])
def test_metadata_that_can_not_be_used_is_a_finding(repo: Repository, tmp_path: Path, text: bytes) -> None:
    root = write_folder(Dump([made("d", "c", numbers(100, step=7))]), tmp_path / "dump")
    (root / "d" / "c.metadata.json").write_bytes(text)
    result = back_up(repo, root)
    assert "metadata" in the_one(result).message
    assert files(repo, result.snapshot, root)[b"/d/c.bson"] == b"".join(numbers(100, step=7))


def test_damaged_metadata_and_prelude_that_are_packed(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(10))]), tmp_path / "dump", packed=True)
    for path in (root / "prelude.json.gz", root / "d" / "c.metadata.json.gz"):
        path.write_bytes(path.read_bytes()[:-1])
    result = back_up(repo, root)
    assert len(result.findings) == 3  # the documents' metadata is one of them
    found = files(repo, result.snapshot, root)
    assert found[b"/prelude.json.gz"] == (root / "prelude.json.gz").read_bytes()
    assert found[b"/d/c.bson"] == b"".join(numbers(10))


def test_a_packed_log_without_a_telling_name_is_unpacked(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=True)
    assert (root / "oplog.bson").read_bytes()[:2] == b"\x1f\x8b"
    found = files(repo, back_up(repo, root).snapshot, root)
    assert found[b"/oplog.bson"] == b"".join(SMALL.oplog)


def test_exclusion_goes_by_the_names_that_files_have(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=True)
    found = files(repo, back_up(repo, root, FilesOptions(exclude=(b"*.json.gz",))).snapshot, root)
    assert b"/shop/ordered.bson" in found
    assert not [path for path in found if path.endswith(b".json")]


def test_things_that_are_no_regular_files_are_left_alone(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(10))]), tmp_path / "dump", packed=True)
    (root / "d" / "folder.bson.gz").mkdir()
    (root / "d" / "link.bson.gz").symlink_to("c.bson.gz")
    (root / "d" / "c2.bson").mkdir()
    (root / "d" / "c2.bson.gz").write_bytes(gzip.compress(b"x"))
    result = back_up(repo, root)
    assert result.findings == ()
    found = files(repo, result.snapshot, root)
    assert found[b"/d/folder.bson.gz"] is None
    assert found[b"/d/link.bson.gz"] == b"c.bson.gz"
    assert found[b"/d/c2.bson.gz"] == gzip.compress(b"x")


def folder_of(source: DumpSource, path: Path) -> DumpFolder:
    """Go down to a folder as the archiver does."""
    folder = source.top()
    for name in path.parts[1:]:
        segments = folder.listing()
        folder = folder.folder(
            next(i for s in segments for i in folder.items(s) if i.name == os.fsencode(name))
        )
    return folder


def test_a_file_that_is_gone_is_not_called_damaged(tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=True)
    source = DumpSource([os.fsencode(root)], LEAVES)
    folder = folder_of(source, root / "shop")
    items = {item.name: item for segment in folder.listing() for item in folder.items(segment)}
    assert list(items) == sorted(items)
    folder.expect(list(items.values()))
    (root / "shop" / "ordered.bson.gz").unlink()
    with pytest.raises(SourceVanished):
        folder.open(items[b"ordered.bson"])
    source.close()


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=True)
    source = DumpSource([os.fsencode(root)], LEAVES)
    folder = folder_of(source, root / "shop")
    items = {item.name: item for segment in folder.listing() for item in folder.items(segment)}
    stream = folder.open(items[b"ordered.bson"])
    assert isinstance(stream, DocumentStream)
    assert not folder.unstable
    view = memoryview(bytearray(1 << 20))
    stream.read_next(view)
    os.utime(root / "shop" / "ordered.bson.gz")
    while stream.read_next(view):
        pass
    stream.finish()
    assert stream.changed
    assert folder.unstable == {b"ordered.bson"}
    stream.close()
    source.close()


def test_the_dump_of_one_database(repo: Repository, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump")
    os.rename(root / "prelude.json", root / "shop" / "prelude.json")
    found = nodes(repo, back_up(repo, root / "shop").snapshot, root / "shop")
    assert facts(found[b"ordered.bson"]).db == "shop"


def test_several_dumps_and_what_lies_above_them(repo: Repository, tmp_path: Path) -> None:
    roots = [write_folder(SMALL, tmp_path / name) for name in ("one", "two")]
    beside = write_folder(SMALL, tmp_path / "beside")
    result = repos.run(repo, DumpSource([os.fsencode(root) for root in roots], LEAVES))
    assert files(repo, result.snapshot, roots[0]) == files(repo, result.snapshot, roots[1]) != {}
    assert files(repo, result.snapshot, beside) == {}


def test_a_capped_collection_stays_in_its_order_even_if_it_is_sorted_by_chance(
    repo: Repository, tmp_path: Path
) -> None:
    root = write_folder(Dump([made("d", "c", numbers(100), options=CAPPED)]), tmp_path / "dump")
    node = nodes(repo, back_up(repo, root).snapshot, root)[b"d/c.bson"]
    assert not facts(node).in_order
    assert stat.S_IMODE(node.mode) == node.mode


EDITS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 40), st.binary(max_size=40)), max_size=3)


@settings(max_examples=40)
@given(EDITS, st.sampled_from([1, 7]), st.booleans())
def test_whatever_is_in_a_file_nothing_of_it_is_lost(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int, bytes]], step: int, packed: bool
) -> None:
    tmp_path = tmp_path_factory.mktemp("any")
    root = write_folder(Dump([made("d", "c", numbers(150, step=step))]), tmp_path / "dump", packed=packed)
    path = next(root.glob("d/c.bson*"))
    data = path.read_bytes()
    for at, less, more in edits:
        data = data[: at % len(data)] + more + data[at % len(data) + less :] or b"x"
    path.write_bytes(data)
    with repos.reopen(repos.prepared(tmp_path), tmp_path) as repo:
        result = back_up(repo, root)
        found = files(repo, result.snapshot, root)
    stored = found.get(b"/d/c.bson.gz", found.get(b"/d/c.bson"))
    assert stored is not None
    documents = gzip.decompress(data) if packed and stored != data else data
    if stored != documents:  # then they are the same documents in order
        assert result.findings == ()
        assert sorted(raw.documents(stored)) == sorted(raw.documents(documents))
