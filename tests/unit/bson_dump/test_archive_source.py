"""Archives, from a file or a pipe into a repository and what is then in it."""

import gzip
import io
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError, SourceVanished
from dedupstore.model import NodeKind
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.archiveout import ArchiveWriter
from dedupstore.sources.bson.collection import metadata_json, read_facts
from dedupstore.sources.bson.prelude import Entry, Namespace, Prelude
from dedupstore.sources.bson.source import ArchiveSource, DumpSource, archive_file, archive_stdin
from tests.support import repos
from tests.support.dumps import (
    LEAVES,
    Dump,
    archive,
    made,
    numbered,
    numbers,
    prelude_of,
    small,
    write_folder,
)

SMALL = small()


def back_up(repo: Repository, path: Path) -> BackupResult:
    return repos.run(repo, archive_file(os.fsencode(path), LEAVES))


def stored(repo: Repository, result: BackupResult) -> dict[bytes, bytes | None]:
    return repos.files_in(repo, result.snapshot)


def put(folder: Path, data: bytes) -> Path:
    path = folder / "the archive"
    path.write_bytes(data)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_is_the_folder_that_it_stands_for(repo: Repository, tmp_path: Path, packed: bool) -> None:
    root = write_folder(SMALL, tmp_path / "dump")
    folder = repos.run(repo, DumpSource([os.fsencode(root)], LEAVES))
    result = back_up(repo, put(tmp_path, archive(SMALL, packed=packed)))
    assert result.findings == ()
    assert stored(repo, result) == repos.files_in(repo, folder.snapshot, os.fsencode(root))
    assert result.snapshot.statistics.bytes_new == 0
    assert result.snapshot.source.kind == "archive"
    assert result.snapshot.source.paths == (b"/",)
    assert result.snapshot.source.options == {"archive": str(tmp_path / "the archive")}
    found = dict(repos.walk(repo, result.snapshot.root))
    node = found[b"/shop/ordered.bson"]
    facts = read_facts(node)
    assert facts is not None
    assert (facts.documents, facts.in_order, facts.uuid) == (2000, True, bytes(range(16)))
    assert (node.kind, node.mode, node.mtime) == (NodeKind.STREAM, 0o600, 1_000_000_000 * 10**9)
    assert found[b"/shop"].mode == 0o700
    assert read_facts(found[b"/oplog.bson"]) is None


def test_an_archive_as_it_was_is_not_read_again(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, archive(SMALL))
    time.sleep(0.05)
    back_up(repo, path)
    monkeypatch.setattr("dedupstore.sources.bson.archive._Index", None)
    again = back_up(repo, path).snapshot.statistics
    assert (again.files_new, again.files_changed, again.bytes_new) == (0, 0, 0)
    monkeypatch.undo()
    os.utime(path)
    assert back_up(repo, path).snapshot.statistics.files_changed > 0


def test_a_pipe(repo: Repository, tmp_path: Path) -> None:
    out, into = os.pipe()
    data = archive(SMALL, packed=True)

    def feed() -> None:
        with open(into, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    result = repos.run(repo, archive_stdin(LEAVES, fd=out))
    thread.join()
    os.close(out)
    assert stored(repo, result) == stored(repo, back_up(repo, put(tmp_path, data)))


def test_nothing_is_left_open(repo: Repository, tmp_path: Path) -> None:
    path = put(tmp_path, archive(SMALL, packed=True))
    back_up(repo, path)
    before = sorted(os.listdir("/proc/self/fd"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SourceError):
        back_up(repo, path)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_nothing_is_stored_of_a_damaged_archive(repo: Repository, tmp_path: Path) -> None:
    data = archive(SMALL)
    place = data.index(numbered(1500)) + 20
    path = put(tmp_path, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(SourceError, match=r"shop\.\w+ has the CRC"):
        back_up(repo, path)
    path.write_bytes(data[:-10])
    with pytest.raises(SourceError, match="the archive"):
        back_up(repo, path)
    repo.sync()
    assert repo.snapshots() == []


def test_an_archive_that_is_not_there_or_is_none(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceVanished, match="nothing here"):
        back_up(repo, tmp_path / "nothing here")
    with pytest.raises(SourceError, match="no archive of mongodump"):
        back_up(repo, put(tmp_path, b"text"))
    with pytest.raises(SourceError):
        back_up(repo, tmp_path)


def test_documents_that_are_none_are_stored_as_bytes_with_a_finding(repo: Repository, tmp_path: Path) -> None:
    no_value = b"\x15\0\0\0\x02_id\0\xff\xff\xff\x7fabcdefg\0"
    dump = Dump([made("d", "c", [numbered(1), no_value, numbered(2)])])
    result = back_up(repo, put(tmp_path, archive(dump)))
    assert "plain bytes" in result.findings[0].error.message
    assert stored(repo, result)[b"/d/c.bson"] == b"".join(dump.collections[0].documents)


def test_metadata_that_can_not_be_used_is_a_finding(repo: Repository, tmp_path: Path) -> None:
    namespace = Namespace("d", "c")
    out = io.BytesIO()
    writer = ArchiveWriter(out, Prelude((Entry(namespace, b"{"),), "8.0.4", "t"))
    writer.write(namespace, numbered(2) + numbered(1))
    writer.finish()
    result = back_up(repo, put(tmp_path, out.getvalue()))
    assert "metadata" in result.findings[0].error.message
    assert stored(repo, result)[b"/d/c.bson"] == numbered(2) + numbered(1)


def test_metadata_longer_than_what_is_read_in_one_go(repo: Repository, tmp_path: Path) -> None:
    long = made("d", "c", numbers(3), options=numbered(1, 3 << 20))
    result = back_up(repo, put(tmp_path, archive(Dump([long]))))
    assert stored(repo, result)[b"/d/c.metadata.json"] == metadata_json(long.info)


def test_users_of_one_database_keep_the_names_that_mongodump_gives_their_files(
    repo: Repository, tmp_path: Path
) -> None:
    users, odd = Namespace("d", "$admin.system.users"), Namespace("d", "$admin.x/y")
    out = io.BytesIO()
    writer = ArchiveWriter(out, Prelude((Entry(users), Entry(odd)), "8.0.4", "t"))
    writer.write(users, numbered(1))
    writer.finish()
    found = stored(repo, back_up(repo, put(tmp_path, out.getvalue())))
    assert found[b"/d/$admin.system.users.bson"] == numbered(1)
    assert found[b"/d/%24admin.x%2Fy.bson"] == b""


@pytest.mark.parametrize("db", ["..", ".", "a/b", "a\0b", "prelude.json", "x" * 300])
def test_a_database_that_can_be_no_folder_is_refused(repo: Repository, tmp_path: Path, db: str) -> None:
    out = io.BytesIO()
    ArchiveWriter(out, Prelude((Entry(Namespace(db, "c")),), "8.0.4", "t")).finish()
    with pytest.raises(SourceError, match="can not be a folder"):
        back_up(repo, put(tmp_path, out.getvalue()))


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 300), unique=True, max_size=60), max_size=4),
    st.integers(1, 40),
    st.booleans(),
)
def test_any_collections_come_out_of_any_archive_in_order(
    tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]], turn: int, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    dump = Dump([made("d", f"c{n}", map(numbered, each)) for n, each in enumerate(ids)])
    with repos.reopen(repos.prepared(folder), folder) as repo:
        found = stored(repo, back_up(repo, put(folder, archive(dump, packed=packed, turn=turn))))
    for n, each in enumerate(ids):
        assert found[b"/d/c%d.bson" % n] == b"".join(map(numbered, sorted(each)))


def test_the_source_says_what_it_is(tmp_path: Path) -> None:
    one, other = (archive_file(os.fsencode(tmp_path / name), LEAVES) for name in "ab")
    assert isinstance(one, ArchiveSource)
    assert one.key != other.key
    assert one.all_or_nothing
    assert one.position() is one.instant() is None
    one.close()
    assert gzip.decompress(archive(SMALL, packed=True)) == archive(SMALL)
    assert len(prelude_of(SMALL).entries) == 7
