"""Open packs and the pool beneath them: nothing is lost, nobody waits for ever."""

import random
import threading
from pathlib import Path

import pytest

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import Interrupted, StoreError, StoreFull
from dedupstore.format.crypto import chunk_id
from dedupstore.ids import SessionId
from dedupstore.model import ChunkKind, Member, Members, PackContents
from dedupstore.objectstore.base import ObjectKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.buffers import BufferPool
from dedupstore.repository.packer import OPEN_PACKS, Packer
from dedupstore.repository.repository import Repository
from dedupstore.repository.segments import read_pack
from dedupstore.repository.uploader import UPLOADS, Uploader
from dedupstore.testing.stores import FaultyStore
from tests.support import repos

SIZE = 256 * 1024


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return repos.create(MemoryStore(), tmp_path / "cache")


class Line:
    """A packer, the pool and the uploader behind it."""

    def __init__(self, repo: Repository, store: object = None, buffers: int = OPEN_PACKS + UPLOADS) -> None:
        self.pool = BufferPool(SIZE, buffers)
        self.done: list[PackContents] = []
        self.uploader = Uploader(
            store or repo.store,  # type: ignore[arg-type]
            self.pool,
            SYSTEM_CLOCK,
            lambda contents, _: self.done.append(contents),
        )
        self.repo = repo
        self.packer = Packer(
            kind=ChunkKind.DATA,
            keys=repo.keychain.current,
            repo_id=repo.id,
            cipher=repo.keychain.cipher,
            session=SessionId(b"s" * 16),
            buffers=self.pool,
            clock=SYSTEM_CLOCK,
            full=self.uploader.submit,
        )

    def add(self, data: bytes) -> Member:
        member = Member(chunk_id(self.repo.keychain.current.id_data, data), len(data))
        self.packer.add(0, data, len(data), Members.of(member))
        return member

    def end(self) -> None:
        self.packer.close()
        self.uploader.drain()


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("buffers", [OPEN_PACKS + 1, OPEN_PACKS + UPLOADS])
def test_every_record_ends_in_one_durable_pack(repo: Repository, threads: int, buffers: int) -> None:
    line = Line(repo, buffers=buffers)
    added: list[Member] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(120):
            added.append(line.add(dice.randbytes(dice.randrange(1, 30_000))))  # noqa: PERF401

    running = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
    line.end()
    packed = [member for contents in line.done for _, members in contents.records for member in members]
    assert sorted(packed, key=lambda m: m.id) == sorted(added, key=lambda m: m.id)
    assert repos.names(repo.store, ObjectKind.PACK) == {contents.id.hex() for contents in line.done}
    for contents in line.done:
        assert read_pack(repo.store, repo.keychain, contents.id) == contents
        assert contents.size <= SIZE


def test_records_go_to_one_of_several_packs(repo: Repository) -> None:
    line = Line(repo)
    for number in range(40):
        line.add(number.to_bytes(2, "little"))
    line.end()
    assert len(line.done) == OPEN_PACKS


def test_too_large_for_any_pack(repo: Repository) -> None:
    line = Line(repo)
    for _ in range(OPEN_PACKS + UPLOADS + 1):
        with pytest.raises(StoreError, match="larger packs"):
            line.add(bytes(SIZE))
    member = line.add(b"small")
    line.end()
    assert member in [m for contents in line.done for _, ms in contents.records for m in ms]


def test_the_first_failure_stops_all_and_is_told(repo: Repository) -> None:
    store = FaultyStore(repo.store, fail_at=2, persistent=True, error=StoreFull)
    line = Line(repo, store)
    ended: list[type[BaseException]] = []

    def work() -> None:
        try:
            for _ in range(500):
                line.add(random.randbytes(20_000))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            ended.append(type(error))

    running = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
    assert set(ended) == {Interrupted}
    with pytest.raises(StoreFull, match="operation 2"):
        line.uploader.check()
    with pytest.raises(StoreFull):
        line.end()


def test_a_stopped_pool_gives_nothing() -> None:
    pool = BufferPool(4096, 1)
    buffer = pool.take()
    waiting = []

    def work() -> None:
        try:
            pool.take()
        except Interrupted:
            waiting.append("told")

    thread = threading.Thread(target=work)
    thread.start()
    pool.stop()
    thread.join(10)
    assert waiting == ["told"]
    pool.give(buffer)
    with pytest.raises(Interrupted):
        pool.take()


def test_a_pool_gives_its_buffers_again() -> None:
    pool = BufferPool(4096, 2)
    one, two = pool.take(), pool.take()
    pool.give(one)
    assert pool.take() is one
    pool.give(two)
    assert pool.take() is two
