"""Backing up into a repository that has lost something: what the source still has is stored again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.errors import ObjectNotFound
from dedupstore.objectstore.base import ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.verify.checker import verify
from dedupstore.repository.repository import Repository
from tests.support import repos
from tests.support.disk import Disk


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.folder(b"/src")
    for number in range(6):
        disk.folder(b"/src/d%d" % number)
        disk.write(b"/src/d%d/file" % number, bytes([number]) * 5000)
    return disk


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repos.create(MemoryStore(), tmp_path) as repo:
        yield repo


def test_packs_that_are_gone_are_noticed_and_replaced(repo: Repository, disk: Disk) -> None:
    first = repos.run(repo, disk.source())
    repo.store.delete([info.key for info in list(repo.store.listing(ObjectKind.PACK))])
    again = repos.run(repo, disk.source())
    assert [type(finding.error) for finding in again.findings].count(ObjectNotFound) >= 2
    assert again.snapshot.statistics.chunks_new > 0
    assert repos.files_in(repo, again.snapshot) == disk.contents()
    assert again.snapshot.root == first.snapshot.root
    assert not [f for f in verify(repo, data=True).findings if "packs/" not in f.where]
    assert not repos.run(repo, disk.source()).findings


def test_a_lost_index_segment_is_healed_by_a_snapshot(repo: Repository, disk: Disk, tmp_path: Path) -> None:
    repos.run(repo, disk.source())
    repo.store.delete([info.key for info in list(repo.store.listing(ObjectKind.INDEX))])
    disk.write(b"/src/d0/other", b"something new")
    result = repos.run(repo, disk.source())
    with repos.reopen(repo.store, tmp_path / "elsewhere") as other:
        other.sync()
        assert repos.files_in(other, result.snapshot) == disk.contents()
