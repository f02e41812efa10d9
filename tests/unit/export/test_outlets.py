"""Writing views to dump folders and archives."""

import io
import os
from pathlib import Path

import pytest

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import DedupstoreError, ObjectNotFound, TargetError, UsageError
from dedupstore.findings import Finding
from dedupstore.ops.export.archive import ArchiveOutlet
from dedupstore.ops.export.export import ExportResult, Outlet, export
from dedupstore.ops.export.folder import FolderOutlet
from dedupstore.ops.export.names import Renaming, Selection
from dedupstore.progress import NullReporter
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.archive import Archive
from dedupstore.sources.bson.collection import VIEW, CollectionInfo, parse_metadata, prelude_json
from dedupstore.sources.bson.prelude import Namespace
from tests.unit.export.views import Listed, ListedView

PRELUDE = prelude_json("8.0.1", "dstore")


def documents(count: int, size: int = 20) -> list[bytes]:
    return [
        raw.document([(b"_id", raw.INT32, raw.int32(n)), (b"x", raw.STRING, raw.string(b"x" * size))])
        for n in range(count)
    ]


def view() -> ListedView:
    options = raw.document([(b"viewOn", raw.STRING, raw.string(b"users"))])
    index = raw.document([(b"v", raw.INT32, raw.int32(2)), (b"name", raw.STRING, raw.string(b"_id_"))])
    return ListedView(
        [
            Listed(CollectionInfo("shop", "old/ones"), []),
            Listed(CollectionInfo("shop", "users", uuid=b"u" * 16, indexes=(index,)), documents(3)),
            Listed(CollectionInfo("shop", "young", VIEW, options=options)),
            Listed(CollectionInfo("web", "hits"), documents(100, 50_000)),
        ]
    )


def run(shown: ListedView, outlet: Outlet, *include: str, rename: tuple[str, ...] = ()) -> ExportResult:
    try:
        return export(shown, outlet, Selection.of(include), Renaming.of(rename), NullReporter(), SYSTEM_CLOCK)
    finally:
        outlet.close()


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_what_fails_at_the_end_is_reported(tmp_path: Path) -> None:
    class Ends(FolderOutlet):
        def finish(self) -> list[Finding]:
            return [Finding("shop.users", TargetError("an index can not be built"))]

    heard: list[str] = []

    class Hears(NullReporter):
        def finding(self, where: str, error: DedupstoreError) -> None:
            heard.append(f"{where}: {error}")

    result = export(view(), Ends(tmp_path / "dump", PRELUDE), Selection(), Renaming(), Hears(), SYSTEM_CLOCK)
    assert heard == ["shop.users: an index can not be built"]
    assert len(result.findings) == 1


def test_folder(tmp_path: Path) -> None:
    result = run(view(), FolderOutlet(tmp_path / "a" / "dump", PRELUDE))
    found = files_below(tmp_path / "a" / "dump")
    assert sorted(found) == [
        "prelude.json",
        "shop/old%2Fones.bson",
        "shop/old%2Fones.metadata.json",
        "shop/users.bson",
        "shop/users.metadata.json",
        "shop/young.metadata.json",
        "web/hits.bson",
        "web/hits.metadata.json",
    ]
    assert found["prelude.json"] == PRELUDE
    assert found["shop/old%2Fones.bson"] == b""
    assert found["web/hits.bson"] == b"".join(documents(100, 50_000))
    assert parse_metadata(found["shop/users.metadata.json"], "shop") == view().held[1].info
    assert (result.documents, result.bytes) == (103, sum(one.size for one in view().held))
    assert result.findings == ()


def test_folder_may_be_there_already(tmp_path: Path) -> None:
    run(view(), FolderOutlet(tmp_path, PRELUDE))
    before = files_below(tmp_path)
    (tmp_path / "web" / "hits.bson").write_bytes(b"old")
    run(view(), FolderOutlet(tmp_path, PRELUDE))
    assert files_below(tmp_path) == before


def test_selected_and_renamed(tmp_path: Path) -> None:
    result = run(view(), FolderOutlet(tmp_path, PRELUDE), "shop.users", "web", rename=("shop.*=copy.*_2",))
    assert [info.namespace for info in result.collections] == ["copy.users_2", "web.hits"]
    assert {"copy/users_2.bson", "web/hits.bson"} <= set(files_below(tmp_path))
    assert b'"collectionName":"users_2"' in (tmp_path / "copy" / "users_2.metadata.json").read_bytes()


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no collection fits"):
        run(view(), FolderOutlet(tmp_path, PRELUDE), "nowhere")


def test_two_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shop\.users"):
        run(view(), FolderOutlet(tmp_path, PRELUDE), rename=("shop.young=shop.users",))


def test_damage_in_one_collection_spares_the_others(tmp_path: Path) -> None:
    shown = view()
    shown.held[1].breaks_after = 2
    result = run(shown, FolderOutlet(tmp_path, PRELUDE))
    assert [finding.where for finding in result.findings] == ["shop.users"]
    found = set(files_below(tmp_path))
    assert "web/hits.bson" in found
    assert not any("users" in name or "partial" in name for name in found)


def test_folder_stays_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "shop").symlink_to(outside)
    shown = ListedView([Listed(CollectionInfo("shop", "users")), Listed(CollectionInfo("web", "../../x"))])
    result = run(shown, FolderOutlet(target, PRELUDE))
    assert [type(finding.error) for finding in result.findings] == [TargetError]
    assert files_below(outside) == {}
    assert "web/..%2F..%2Fx.bson" in files_below(target)


@pytest.mark.parametrize("db", ["..", "a/b", ".", "a\0b"])
def test_hostile_database(tmp_path: Path, db: str) -> None:
    with pytest.raises(UsageError):
        run(ListedView([Listed(CollectionInfo(db, "x"))]), FolderOutlet(tmp_path / "t", PRELUDE))
    assert set(files_below(tmp_path)) == {"t/prelude.json"}


def test_target_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TargetError, match="file"):
        FolderOutlet(tmp_path / "file", PRELUDE)


def test_archive(tmp_path: Path) -> None:
    with (tmp_path / "archive").open("wb") as out:
        run(view(), ArchiveOutlet(out, "8.0.1", "dstore"))
    descriptor = os.open(tmp_path / "archive", os.O_RDONLY)
    archive = Archive(descriptor, "archive", folder=tmp_path)
    try:
        hits = Namespace("web", "hits")
        assert archive.bodies()[hits].documents == 100
        feed, whole = archive.feed(hits), bytearray()
        buffer = memoryview(bytearray(1 << 20))
        while size := feed(buffer):
            whole += buffer[:size]
        assert bytes(whole) == b"".join(documents(100, 50_000))
        assert archive.bodies()[Namespace("shop", "old/ones")].documents == 0
    finally:
        archive.close()
        os.close(descriptor)


def test_archive_is_given_up_as_a_whole() -> None:
    shown = view()
    shown.held[1].breaks_after = 2
    with pytest.raises(ObjectNotFound):
        run(shown, ArchiveOutlet(io.BytesIO(), "8.0.1", "dstore"))
