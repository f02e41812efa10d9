import gzip
import os
from pathlib import Path

import pytest

from dedupstore.errors import SourceError
from dedupstore.sources.bson.detect import is_dump, metadata_of
from dedupstore.sources.bson.dump import DumpFile, dump_files, info_of, is_packed
from tests.support.dumps import small, write_folder


def files(*names: bytes) -> dict[bytes, DumpFile]:
    return dump_files(set(names), set(names))


def test_documents_are_told_by_the_metadata_beside_them() -> None:
    assert files(b"a.bson", b"a.metadata.json", b"b.bson", b"c.metadata.json", b"other") == {
        b"a.bson": DumpFile(b"a.bson", packed=False, metadata=b"a.metadata.json")
    }


def test_packed_files_get_the_name_of_what_is_in_them() -> None:
    assert files(b"a.bson.gz", b"a.metadata.json.gz", b"b.bson.gz", b"prelude.json.gz", b"other.gz") == {
        b"a.bson": DumpFile(b"a.bson.gz", packed=True, metadata=b"a.metadata.json"),
        b"a.metadata.json": DumpFile(b"a.metadata.json.gz", packed=True),
        b"b.bson": DumpFile(b"b.bson.gz", packed=True),
        b"prelude.json": DumpFile(b"prelude.json.gz", packed=True),
    }


def test_a_packed_file_beside_an_unpacked_one_of_its_name_stays_packed() -> None:
    found = files(b"a.bson", b"a.bson.gz", b"a.metadata.json.gz")
    assert found == {
        b"a.bson": DumpFile(b"a.bson", packed=False, metadata=b"a.metadata.json"),
        b"a.metadata.json": DumpFile(b"a.metadata.json.gz", packed=True),
    }
    # So does it where what lies there is a folder, or a symlink.
    assert dump_files({b"a.bson.gz"}, {b"a.bson.gz", b"a.bson"}) == {}


def test_names() -> None:
    assert metadata_of(b"a.bson") == b"a.metadata.json"
    assert metadata_of(b"a.bson.gz") == metadata_of(b"a") == b""


def test_a_log_without_a_telling_name_is_looked_at() -> None:
    packed = gzip.compress(b"x", mtime=0)
    assert is_packed(packed[:5])
    assert not is_packed(b"\x1f\x8b\x08\x00\x03")  # a document of that length, whose first value is an object
    assert not is_packed(b"\x1f\x8b\x08")
    assert not is_packed(b"")


def test_what_metadata_says_of_a_collection() -> None:
    text = b'{"indexes":[],"type":"collection"}'
    info = info_of(text, b"a+b%2F.bson", b"shop", packed=False)
    assert (info.db, info.name) == ("shop", "a b/")
    assert info_of(gzip.compress(text), b"a+b%2F.bson", b"shop", packed=True) == info
    for bad in (b"", b"{", b"[]", gzip.compress(text)[:-1]):
        with pytest.raises(SourceError):
            info_of(bad, b"a.bson", b"shop", packed=bad[:1] == b"\x1f")


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_is_found_out(tmp_path: Path, packed: bool) -> None:
    root = write_folder(small(), tmp_path / "dump", packed=packed)
    assert is_dump(os.fsencode(root))
    assert not is_dump(os.fsencode(root / "shop"))  # files, and no prelude
    for prelude in root.glob("prelude.json*"):
        prelude.unlink()
    assert is_dump(os.fsencode(root))
    (root / "readme").touch()
    assert not is_dump(os.fsencode(root))


def test_the_folder_of_one_database_is_a_dump_by_its_prelude(tmp_path: Path) -> None:
    root = write_folder(small(), tmp_path / "dump")
    os.rename(root / "prelude.json", root / "shop" / "prelude.json")
    assert is_dump(os.fsencode(root / "shop"))
    assert is_dump(os.fsencode(root))


@pytest.mark.parametrize(
    "prelude",
    [b"", b"{", b"[]", b'"ServerVersion"', b'{"Server":1}', b"[" * 100_000, b"\xff", b"\x1f\x8b\x08"],
)
def test_a_prelude_of_something_else_makes_no_dump(tmp_path: Path, prelude: bytes) -> None:
    for name in ("prelude.json", "prelude.json.gz"):
        (tmp_path / name).write_bytes(prelude)
        assert not is_dump(os.fsencode(tmp_path))


def test_what_is_no_folder_is_no_dump(tmp_path: Path) -> None:
    root = write_folder(small(), tmp_path / "dump")
    (tmp_path / "link").symlink_to(root)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "trap").mkdir()
    os.mkfifo(tmp_path / "trap" / "prelude.json")
    for name in ("link", "fifo", "nothing", "dump/prelude.json", "trap", "dump\0"):
        assert not is_dump(os.fsencode(tmp_path / name))
    (tmp_path / "empty").mkdir()
    assert not is_dump(os.fsencode(tmp_path / "empty"))
