"""A snapshot with operation N of the store failing, or the machine dying in write N, for every N.

Whatever happens: the repository opens from an empty cache, every committed snapshot reads back to the byte,
and the next snapshot works, from the cache that the failed run left behind.
"""

import contextlib
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dedupstore.errors import DedupstoreError, ObjectDamaged
from dedupstore.model import Data
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.progress import NullReporter
from dedupstore.repository.segments import rebuild_from_packs
from dedupstore.repository.uploader import UPLOADS
from dedupstore.testing.stores import (
    READS,
    WRITES,
    Crashed,
    CrashStore,
    Fate,
    FaultyStore,
    each_crash,
    each_failure,
)
from tests.support import repos
from tests.support.disk import Disk


@dataclass
class Case:
    """A repository with one snapshot, a disk that changed since, and what each snapshot must hold."""

    folder: Path
    disk: Disk = field(default_factory=Disk)
    store: MemoryStore = field(default_factory=MemoryStore)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        random_bytes = random.Random(1).randbytes
        disk = self.disk
        disk.folder(b"/d")
        disk.write(b"/d/large", random_bytes(900_000))
        disk.write(b"/d/small", b"text" * 300)
        disk.folder(b"/same")
        disk.write(b"/same/f", random_bytes(30_000))
        disk.pass_time()
        with repos.create(self.store, self.fresh()) as repo:
            repos.run(repo, disk.source())
        self.first = disk.contents()
        disk.write(b"/d/large", disk.at(b"/d/large").data[:400_000] + random_bytes(900_000))
        disk.write(b"/d/more", random_bytes(700_000))
        disk.pass_time()
        self.second = disk.contents()
        self.cache = self.fresh()

    def fresh(self) -> Path:
        return self.folder / str(next(self.numbers))

    def start(self) -> MemoryStore:
        self.cache = self.fresh()
        return self.store.copy()

    def snapshot(self, store: ObjectStore) -> None:
        with repos.reopen(store, self.cache, clock=self.disk) as repo:
            repos.run(repo, self.disk.source(), replace(repos.OPTIONS, workers=1))

    def check(self, store: ObjectStore) -> None:
        self.read_back(store)
        with repos.reopen(store, self.cache) as repo:
            assert repos.run(repo, self.disk.source()).findings == ()
        assert self.read_back(store) >= 2
        # What ended is cleared away: the session that died belongs to this very process, which lives.
        assert len(repos.names(store, ObjectKind.SESSION)) <= 1

    def read_back(self, store: ObjectStore) -> int:
        with repos.reopen(store, self.fresh()) as repo:
            repo.sync()
            found = repo.snapshots()
            assert all(where.startswith("sessions/") for where, _ in repo.damaged)  # torn ones
            for number, (_, snapshot) in enumerate(found):
                assert repos.files_in(repo, snapshot) == (self.second if number else self.first)
            return len(found)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("caches"))


@pytest.mark.parametrize("persistent", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("only", [READS, WRITES], ids=["reads", "writes"])
def test_operation_fails(case: Case, persistent: bool, only: frozenset[str]) -> None:
    count = each_failure(case.snapshot, case.check, make=case.start, persistent=persistent, only=only)
    assert count >= 6


def test_write_is_done_but_its_answer_is_lost(case: Case) -> None:
    assert each_failure(case.snapshot, case.check, make=case.start, after_effect=True, only=WRITES) >= 6


def test_machine_dies(case: Case) -> None:
    def scenario(store: CrashStore) -> None:
        # The thread that notices first may be one of ours, whose error then says so.
        with contextlib.suppress(DedupstoreError):
            case.snapshot(store)

    assert each_crash(scenario, case.check, make=case.start) >= 6


def test_machine_dies_and_tears_the_object_it_wrote(case: Case) -> None:
    """No store that keeps the contract does that; still only an index segment takes a word from the user."""

    def scenario(store: CrashStore) -> None:
        with contextlib.suppress(DedupstoreError):
            case.snapshot(store)

    def check(store: MemoryStore) -> None:
        try:
            case.check(store)
        except ObjectDamaged as error:
            check_rebuilt(case, store, error)

    assert each_crash(scenario, check, make=case.start, fates=[Fate.TORN]) >= 6


def test_machine_dies_and_tears_an_index_segment(case: Case) -> None:
    store = CrashStore(case.start(), crash_in=ObjectKind.INDEX, fate=Fate.TORN)
    with contextlib.suppress(Crashed, DedupstoreError):
        case.snapshot(store)
    assert store.crashed
    survivor = store.survivor()
    with pytest.raises(ObjectDamaged) as error:
        case.check(survivor)
    check_rebuilt(case, survivor, error.value)


def check_rebuilt(case: Case, store: MemoryStore, error: ObjectDamaged) -> None:
    """Do what the error of a damaged index segment says, and find that nothing is lost."""
    assert "index/" in str(error)
    assert "--from-packs" in str(error)
    with repos.reopen(store, case.cache) as repo:
        repo.index.clear_packs()
        rebuild_from_packs(store, repo.keychain, repo.index, NullReporter())
        result = repos.run(repo, case.disk.source())
        assert repos.files_in(repo, result.snapshot) == case.second


def test_unflushed_writes_are_lost(case: Case) -> None:
    """Without durable writes nothing is promised but that the repository opens and goes on."""

    def check(store: MemoryStore) -> None:
        with contextlib.suppress(DedupstoreError):
            case.read_back(store)
        with repos.reopen(store, case.fresh()) as repo:
            repos.run(repo, case.disk.source())

    def scenario(store: CrashStore) -> None:
        with contextlib.suppress(DedupstoreError):
            case.snapshot(store)

    each_crash(scenario, check, make=case.start, unflushed=2)


class PackStore(FaultyStore):
    """Says which of its failures hit a pack."""

    def __init__(self, inner: ObjectStore, fail_at: int) -> None:
        super().__init__(inner, fail_at=fail_at, persistent=True, only=WRITES)
        self.packs: list[str] = []

    def put(self, key: ObjectKey, parts: Sequence[Data]) -> None:
        try:
            super().put(key, parts)
        except DedupstoreError as error:
            if key.kind is ObjectKind.PACK:
                self.packs.append(error.message)
            raise


def test_first_error_is_the_one_that_is_told(case: Case) -> None:
    """A store that fails for ever fails in the tidying up, too: what is raised is what began it.

    Packs leave several at once, so of those that fail together any may be the first that is heard of.
    """
    raised = []
    for number in range(1, 40):
        store = PackStore(case.start(), number)
        try:
            case.snapshot(store)
        except DedupstoreError as error:
            first = f"operation {number} "
            together = store.packs[:UPLOADS] if any(first in pack for pack in store.packs) else []
            raised.append(first in str(error) or any(pack in str(error) for pack in together))
        if not store.failures:
            break
    assert len(raised) >= 6
    assert all(raised), raised


def test_crashed_is_no_error_that_is_handled(case: Case) -> None:
    store = CrashStore(case.start(), crash_at=1)
    with pytest.raises(Crashed):
        case.snapshot(store)
