"""What may be taken over unread from the last run, and what never."""

from pathlib import Path

import pytest

from dedupstore.errors import SessionFenced
from dedupstore.model import ChunkKind
from dedupstore.objectstore.base import ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.backup.archiver import BackupResult, back_up
from dedupstore.repository.repository import Repository
from tests.support import repos
from tests.support.disk import Disk, DiskFolder, DiskSource
from tests.support.sessions import collect


class Machine:
    """A disk, a repository, and the promise that every snapshot equals the disk."""

    def __init__(self, cache: Path, tick: int = 4_000_000) -> None:
        self.disk = Disk(tick)
        self.store = MemoryStore()
        self.repo: Repository = repos.create(self.store, cache, clock=self.disk)
        self.disk.folder(b"/d")
        self.disk.folder(b"/d/e")
        self.disk.write(b"/d/e/f", b"one")
        self.disk.write(b"/d/g", b"two" * 1000)
        self.disk.folder(b"/other")
        self.disk.write(b"/other/h", b"three")
        self.disk.pass_time()

    def back_up(self, *, faithful: bool = True) -> BackupResult:
        result = repos.run(self.repo, self.disk.source())
        if faithful:
            assert repos.files_in(self.repo, result.snapshot) == self.disk.contents()
        return result

    def reads_of_a_run(self, *, faithful: bool = True) -> int:
        before = self.disk.reads
        self.back_up(faithful=faithful)
        return self.disk.reads - before


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.back_up()
    made.disk.pass_time()
    return made


def test_nothing_changed_reads_nothing(machine: Machine) -> None:
    assert machine.reads_of_a_run() == 0


def test_one_change_reads_one_file(machine: Machine) -> None:
    machine.disk.write(b"/d/e/f", b"ONE")
    machine.disk.pass_time()
    assert machine.reads_of_a_run() == 1
    assert machine.reads_of_a_run() == 0


@pytest.mark.parametrize("tick", [1, 4_000_000, 10_000_000, 1_000_000_000, 2_000_000_000])
@pytest.mark.parametrize("late", [0, 1, 5_000_000, 900_000_000])
def test_same_size_change_within_one_tick_is_seen(tmp_path: Path, tick: int, late: int) -> None:
    machine = Machine(tmp_path, tick)
    machine.disk.now_ns = machine.disk.now_ns // 2_000_000_000 * 2_000_000_000
    machine.disk.write(b"/d/e/f", b"one")
    machine.disk.pass_time(late)
    machine.back_up()
    machine.disk.write(b"/d/e/f", b"ONE")
    machine.back_up()
    machine.disk.write(b"/d/e/f", b"two")
    machine.disk.pass_time()
    machine.back_up()


def test_swapped_files_folders_and_names(machine: Machine) -> None:
    machine.disk.write(b"/d/e/k", b"ONE")
    machine.disk.pass_time()
    machine.back_up()
    machine.disk.swap(b"/d/e/f", b"/d/e/k")
    machine.back_up()
    machine.disk.swap(b"/d", b"/other")
    machine.back_up()
    machine.disk.swap(b"/d", b"/other")
    machine.back_up()


def test_folder_replaced_by_one_of_the_same_name(machine: Machine) -> None:
    machine.disk.rename(b"/d/e", b"/kept")
    machine.disk.folder(b"/d/e")
    machine.back_up()
    machine.disk.remove(b"/d/e")
    machine.disk.rename(b"/kept", b"/d/e")
    machine.back_up()


def test_folder_becomes_file_and_back(machine: Machine) -> None:
    machine.disk.rename(b"/d/e", b"/kept")
    machine.disk.write(b"/d/e", b"now a file")
    machine.back_up()
    machine.disk.remove(b"/d/e")
    machine.disk.rename(b"/kept", b"/d/e")
    machine.back_up()


def test_unreadable_file_is_tried_again(machine: Machine) -> None:
    machine.disk.write(b"/d/e/f", b"new")
    machine.disk.at(b"/d/e/f").unreadable = True
    machine.disk.pass_time()
    result = machine.back_up(faithful=False)
    assert [finding.where for finding in result.findings] == ["/src/d/e/f"]
    assert b"/d/e/f" not in repos.files_in(machine.repo, result.snapshot)
    machine.disk.at(b"/d/e/f").unreadable = False
    machine.back_up()


def test_large_file_that_fails_in_the_middle(machine: Machine) -> None:
    machine.disk.write(b"/d/e/large", bytes(range(256)) * 8192)
    machine.disk.at(b"/d/e/large").unreadable = True
    machine.disk.write(b"/d/e/next", b"n" * 9000)
    machine.disk.pass_time()
    result = machine.back_up(faithful=False)
    files = repos.files_in(machine.repo, result.snapshot)
    assert files[b"/d/e/next"] == b"n" * 9000
    assert b"/d/e/large" not in files
    machine.disk.at(b"/d/e/large").unreadable = False
    machine.back_up()


def test_folder_unlistable_in_one_run_is_read_anew(machine: Machine) -> None:
    """Its old tree hangs under an old snapshot only, which may be forgotten: it must not be taken over."""
    machine.disk.at(b"/d/e").unreadable = True
    result = machine.back_up(faithful=False)
    assert [finding.where for finding in result.findings] == ["/src/d/e"]
    machine.disk.at(b"/d/e").unreadable = False
    assert machine.reads_of_a_run() == 1
    assert machine.reads_of_a_run() == 0


def test_nothing_is_taken_over_from_a_snapshot_that_is_gone(machine: Machine) -> None:
    machine.store.delete([info.key for info in list(machine.store.listing(ObjectKind.SNAPSHOT))])
    assert machine.reads_of_a_run() == 3


def test_two_sources_that_overlap_keep_apart(machine: Machine) -> None:
    repos.run(machine.repo, machine.disk.source(b"/else"))
    machine.disk.write(b"/d/e/f", b"ONE")
    machine.disk.pass_time()
    repos.run(machine.repo, machine.disk.source(b"/else"))
    assert machine.reads_of_a_run() == 1


def test_an_aborted_run_leaves_nothing_to_be_believed(machine: Machine) -> None:
    machine.disk.write(b"/d/e/f", b"ONE")
    machine.disk.pass_time()

    class Stop(Exception):
        pass

    class Breaking:
        def started(self, *args: object) -> None: ...
        def advanced(self, *args: object) -> None: ...
        def finding(self, *args: object) -> None:
            raise Stop

        def finished(self, *args: object) -> None: ...

    machine.disk.at(b"/other/h").unreadable = True
    machine.disk.write(b"/other/h", b"xx")
    with pytest.raises(Stop):
        back_up(machine.repo, machine.disk.source(), repos.OPTIONS, Breaking(), machine.disk)
    machine.disk.at(b"/other/h").unreadable = False
    machine.disk.pass_time()
    assert machine.reads_of_a_run() == 2


@pytest.mark.parametrize("changed", [b"/d/e/f", b"/new"])
@pytest.mark.parametrize("flat", [False, True])
def test_what_is_taken_over_counts_when_a_collection_begins_meanwhile(
    machine: Machine, changed: bytes, flat: bool
) -> None:
    """Entries taken over unread lean on packs that the session never looked up: it can not vouch for them."""

    class Collecting(DiskSource):
        def top(self) -> DiskFolder:
            packs = [pack for pack, kind, _, _ in machine.repo.index.packs() if kind is ChunkKind.DATA]
            collect(machine.repo, 1, packs)
            return super().top()

    if flat:  # one folder, and its other entries are unchanged
        changed = b"/changed"
        machine.disk.swap(b"/d/g", b"/other")
        machine.disk.remove(b"/d")
        machine.disk.write(changed, b"one")
        machine.disk.pass_time()
        machine.back_up()
    machine.disk.write(changed, b"ONE")
    machine.disk.pass_time()
    source = Collecting(machine.disk, b"/src")
    with pytest.raises(SessionFenced):
        repos.run(machine.repo, source)
