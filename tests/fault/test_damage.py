"""Bytes flipped and objects cut, swapped and lost, in every region of every kind of object.

Whoever reads then gets the right data or an error of ours that says where: never another exception, and
never other data.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.errors import DedupstoreError, FormatError, IntegrityError, NotFoundError, WrongPassphrase
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.progress import NullReporter
from dedupstore.repository.segments import rebuild_from_packs
from tests.support import repos
from tests.support.disk import Disk
from tests.support.sessions import begin, page_for

EXPECTED = (IntegrityError, FormatError, NotFoundError, WrongPassphrase)
Contents = dict[bytes, bytes | None]


class Case:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.store = MemoryStore()
        disk = Disk()
        random_bytes = random.Random(1).randbytes
        disk.folder(b"/d")
        disk.write(b"/d/large", random_bytes(120_000))
        disk.write(b"/d/text", b"some text " * 2000)
        for number in range(9):
            disk.write(b"/d/%d" % number, random_bytes(number * 100))
        disk.pass_time()
        with repos.create(self.store, self.fresh()) as repo:
            self.identifier = repos.run(repo, disk.source()).snapshot_id
            # One that committed and could not publish.
            late = begin(repo)
            tree = page_for(late, b"late")
            late._settle = lambda *_: None  # type: ignore[method-assign]
            self.late = late.commit(repos.blank_snapshot(tree, sequence=2))
        self.wanted: dict[bytes | None, Contents] = {
            self.identifier: disk.contents(),
            self.late: {b"/file": b"late"},
        }

    def fresh(self) -> Path:
        self.count += 1
        return self.folder / str(self.count)

    def keys(self, kind: ObjectKind) -> list[ObjectKey]:
        return [ObjectKey(kind, name) for name in sorted(repos.names(self.store, kind))]

    def with_object(self, key: ObjectKey, data: bytes | None) -> MemoryStore:
        store = self.store.copy()
        store.delete([key])
        if data is not None:
            store.put(key, [data])
        return store

    def read(self, store: MemoryStore, *, rebuild: bool = False) -> tuple[int, list[DedupstoreError]]:
        """Read everything; return how many files were right, and what errors there were instead."""
        try:
            repo = repos.reopen(store, self.fresh())
        except EXPECTED as error:
            return 0, [error]
        errors: list[DedupstoreError] = []
        right = 0
        with repo:
            try:
                if rebuild:
                    found = rebuild_from_packs(store, repo.keychain, repo.index, NullReporter())
                    errors += [error for _, error in found]
                repo.sync()
            except EXPECTED as error:
                return 0, [error]
            for identifier, snapshot in repo.snapshots():
                wanted = self.wanted[identifier]
                try:
                    for path, node in repos.walk(repo, snapshot.root):
                        if wanted[path] is None:
                            continue
                        try:
                            assert repos.content(repo, node) == wanted[path]
                            right += 1
                        except EXPECTED as error:
                            errors.append(error)
                except EXPECTED as error:
                    errors.append(error)
            errors += [error for _, error in repo.damaged]
        return right, errors


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("caches"))


def damages(data: bytes, seed: int, flips: int = 40) -> Iterator[bytes]:
    """Flips all over, more at both ends where the structure is; cuts; an exchange; something else."""
    dice = random.Random(seed)
    size = len(data)
    places = {dice.randrange(size) for _ in range(flips)}
    places |= {dice.randrange(min(160, size)) for _ in range(20)} | {
        size - 1 - dice.randrange(60) for _ in range(9)
    }
    for at in sorted(places):
        yield data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
    for length in {0, 1, 20, 100, 160, 170, size // 2, size - 48, size - 1} | {dice.randrange(size)}:
        if length < size:
            yield data[:length]
    half = size // 2
    yield data[half:] + data[:half]
    yield dice.randbytes(size)
    yield data + b"\0"


ALL = 12


def test_undamaged(case: Case) -> None:
    assert case.read(case.store) == (ALL, [])
    assert case.read(case.store, rebuild=True) == (ALL, [])


@pytest.mark.parametrize("kind", [kind for kind in ObjectKind if kind is not ObjectKind.GC])
def test_damage_is_told_or_does_not_matter(case: Case, kind: ObjectKind) -> None:
    assert case.keys(kind)
    for number, key in enumerate(case.keys(kind)):
        data = case.store.get(key)
        for damaged in damages(data, number):
            right, errors = case.read(case.with_object(key, damaged))
            assert right == ALL or errors, (key, len(damaged))
            if errors and kind not in {ObjectKind.CONFIG, ObjectKind.KEY}:
                assert any(names(error, key) for error in errors), (key, errors)


def names(error: DedupstoreError, key: ObjectKey) -> bool:
    """A snapshot's and a session's error is listed beside its name; the others say it themselves."""
    if key.kind in {ObjectKind.SNAPSHOT, ObjectKind.SESSION}:
        return True
    return key.name[:8] in str(error) or key.name in str(error)


@pytest.mark.parametrize("kind", [ObjectKind.PACK, ObjectKind.INDEX, ObjectKind.SNAPSHOT])
def test_lost_and_exchanged_objects(case: Case, kind: ObjectKind) -> None:
    keys = case.keys(kind)
    for key in keys:
        right, errors = case.read(case.with_object(key, None))
        assert right < ALL
        assert errors or kind is ObjectKind.SNAPSHOT
        for other in keys:
            if other != key:
                right, errors = case.read(case.with_object(key, case.store.get(other)))
                assert errors
                assert right < ALL


def test_packs_alone_bring_back_a_lost_index(case: Case) -> None:
    store = case.store.copy()
    store.delete(case.keys(ObjectKind.INDEX))
    assert case.read(store, rebuild=True) == (ALL, [])
    for key in case.keys(ObjectKind.INDEX):
        for damaged in damages(case.store.get(key), 3, flips=2):
            assert case.read(case.with_object(key, damaged), rebuild=True) == (ALL, [])


def test_a_run_goes_on_beside_damage(case: Case) -> None:
    """A damaged data pack hurts who restores from it, not the next run, whose chunks are its own."""
    disk = Disk()
    disk.write(b"/new", b"new data" * 1000)
    disk.pass_time()
    for key in case.keys(ObjectKind.PACK):
        store = case.with_object(key, case.store.get(key)[:-20])
        with repos.reopen(store, case.fresh()) as repo:
            result = repos.run(repo, disk.source())
            assert repos.files_in(repo, result.snapshot) == disk.contents()
