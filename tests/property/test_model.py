"""The model: a plain dictionary of what every snapshot must hold, beside the real thing.

Two writers with a cache each share one store. Between their runs the disk is edited, time passes or stands
still, files and folders can not be read for a while, machines die in the middle, caches are lost, snapshots
are forgotten and what they alone held is swept away.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dedupstore.errors import DedupstoreError
from dedupstore.ids import ChunkId, SnapshotId
from dedupstore.model import NodeKind
from dedupstore.objectstore.base import ObjectKey, ObjectKind, ObjectStore
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.repository.repository import Repository
from dedupstore.repository.segments import SegmentWriter, read_pack
from dedupstore.sources.base import Listing
from dedupstore.testing.stores import Crashed, CrashStore, Fate
from tests.support import repos
from tests.support.disk import Disk, DiskFolder, DiskSource

Contents = dict[bytes, bytes | None]

names = st.sampled_from([b"a", b"b", b"c"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
data = st.builds(
    lambda seed, size: (bytes([seed]) * 7 + bytes(range(256)) * 200)[:size],
    st.integers(0, 5),
    st.sampled_from([0, 1, 8, 8, 3000, 50_000]),
)
writers = st.integers(0, 1)
pauses = st.sampled_from([0, 0, 1_000_000, 19_000_000, 900_000_000, 5_000_000_000])


class Interfering(DiskSource):
    """A source in which something happens while it is walked: at its second listing."""

    def __init__(self, disk: Disk, happens: Callable[[], None]) -> None:
        super().__init__(disk, b"/src")
        self.left = 2
        self.happens = happens

    def top(self) -> DiskFolder:
        source = self

        class Folder(DiskFolder):
            def listing(self) -> Listing:
                source.left -= 1
                if not source.left:
                    source.happens()
                return super().listing()

            def folder(self, item: object) -> "DiskFolder":
                made = super().folder(item)  # type: ignore[arg-type]
                made.__class__ = Folder
                return made

        return Folder(self._disk, self._disk.root, self._name)


class Model(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.disk = Disk()
        self.store = MemoryStore()
        self.wanted: dict[SnapshotId, Contents] = {}
        repos.create(self.store, self.folder / "made", clock=self.disk).close()
        self.repos = [self.open(n) for n in range(2)]

    @initialize(tick=st.sampled_from([1, 4_000_000, 1_000_000_000, 2_000_000_000]))
    def begin(self, tick: int) -> None:
        self.disk.tick = tick

    def open(self, writer: int, store: ObjectStore | None = None) -> Repository:
        return repos.reopen(store or self.store, self.folder / str(writer), clock=self.disk)

    # The disk

    @rule(path=paths, data=data)
    def write(self, path: bytes, data: bytes) -> None:
        with contextlib.suppress(KeyError):
            if not self.disk.at(path.rpartition(b"/")[0]).is_folder:
                return
            with contextlib.suppress(KeyError):
                if self.disk.at(path).is_folder:
                    return
            self.disk.write(path, data)

    @rule(path=paths)
    def make_folder(self, path: bytes) -> None:
        with contextlib.suppress(KeyError):
            if self.disk.at(path.rpartition(b"/")[0]).is_folder and path not in self.disk.contents():
                self.disk.folder(path)

    @rule(path=paths)
    def remove(self, path: bytes) -> None:
        with contextlib.suppress(KeyError):
            self.disk.remove(path)

    @rule(one=paths, other=paths)
    def swap(self, one: bytes, other: bytes) -> None:
        if one.startswith(other + b"/") or other.startswith(one + b"/") or one == other:
            return
        with contextlib.suppress(KeyError):
            self.disk.swap(one, other)

    @rule(path=paths)
    def toggle_readable(self, path: bytes) -> None:
        with contextlib.suppress(KeyError):
            inode = self.disk.at(path)
            inode.unreadable = not inode.unreadable

    @rule(pause=pauses)
    def wait(self, pause: int) -> None:
        self.disk.pass_time(pause)

    # The repository

    @rule(writer=writers)
    def snapshot(self, writer: int) -> None:
        before, seen = self.expected(), self.disk.contents()
        result = repos.run(self.repos[writer], self.disk.source())
        assert result.snapshot_id is not None
        taken = repos.files_in(self.repos[writer], result.snapshot)
        # What can not be read may still be there if it is taken over from an earlier run.
        assert before.items() <= taken.items()
        assert all(seen[path] == found or found is None for path, found in taken.items())
        self.wanted[result.snapshot_id] = taken

    @rule(writer=writers)
    def snapshot_within_a_snapshot(self, writer: int) -> None:
        def other() -> None:
            self.snapshot(1 - writer)

        source = Interfering(self.disk, other)
        result = repos.run(self.repos[writer], source)
        assert result.snapshot_id is not None
        taken = repos.files_in(self.repos[writer], result.snapshot)
        assert self.expected().items() <= taken.items()
        self.wanted[result.snapshot_id] = taken

    @rule(writer=writers, number=st.integers(1, 12), fate=st.sampled_from([Fate.LOST, Fate.KEPT]))
    def crash(self, writer: int, number: int, fate: Fate) -> None:
        expected = self.expected()
        store = CrashStore(self.store, crash_at=number, fate=fate)
        self.repos[writer].close()
        # The thread that notices first may be one of ours, whose error then says so.
        with contextlib.suppress(Crashed, DedupstoreError), self.open(writer, store) as repo:
            repos.run(repo, self.disk.source())
        for repo in self.repos:
            repo.close()
        self.store = store.survivor()
        self.repos = [self.open(n) for n in range(2)]
        for identifier, snapshot in self.repos[1 - writer].snapshots():
            if identifier not in self.wanted:
                self.repos[1 - writer].sync()
                taken = repos.files_in(self.repos[1 - writer], snapshot)
                assert expected.items() <= taken.items()
                self.wanted[identifier] = taken

    @rule(writer=writers)
    def reopen(self, writer: int) -> None:
        self.repos[writer].close()
        self.repos[writer] = self.open(writer)

    @rule(writer=writers)
    def lose_the_cache(self, writer: int) -> None:
        self.repos[writer].close()
        shutil.rmtree(self.folder / str(writer), ignore_errors=True)
        self.repos[writer] = self.open(writer)

    @rule(choice=st.integers(0, 100))
    def forget_and_sweep(self, choice: int) -> None:
        """What a collection with nobody about would do."""
        if not self.wanted:
            return
        doomed = sorted(self.wanted)[choice % len(self.wanted)]
        del self.wanted[doomed]
        with self.repos[0].writing():
            pass  # publishes for those who could not
        self.store.delete([ObjectKey(ObjectKind.SNAPSHOT, doomed.hex())])
        sessions = repos.names(self.store, ObjectKind.SESSION)
        self.store.delete([ObjectKey(ObjectKind.SESSION, name) for name in sessions])
        self.sweep()

    def sweep(self) -> None:
        with repos.reopen(self.store, self.folder / "sweep", clock=self.disk) as repo:
            repo.sync()
            live: set[ChunkId] = set()
            for _, snapshot in repo.snapshots():
                live.add(snapshot.root)
                for _, node in repos.walk(repo, snapshot.root):
                    live.add(ChunkId(node.subtree or bytes(32)))
                    if node.kind == NodeKind.FILE:
                        live.update(chunk for chunk, _ in repos.entries(repo, node))
            keep = {place.record.pack for place in repo.index.find(sorted(live)) if place}
            segments = SegmentWriter(self.store, repo.keychain, repo.index)
            old = repos.names(self.store, ObjectKind.INDEX)
            for pack in sorted(keep):
                segments.add(read_pack(self.store, repo.keychain, pack))
            segments.flush()
            self.store.delete([ObjectKey(ObjectKind.INDEX, name) for name in old])
            packs = repos.names(self.store, ObjectKind.PACK) - {pack.hex() for pack in keep}
            self.store.delete([ObjectKey(ObjectKind.PACK, name) for name in packs])
        shutil.rmtree(self.folder / "sweep")

    @rule()
    def read_everything_back(self) -> None:
        fresh = self.folder / "fresh"
        with repos.reopen(self.store, fresh, clock=self.disk) as repo:
            repo.sync()
            found = {i: repos.files_in(repo, snapshot) for i, snapshot in repo.snapshots()}
            assert repo.damaged == []
        shutil.rmtree(fresh)
        assert found == self.wanted

    @invariant()
    def nobody_lost_count(self) -> None:
        assert {i for i, _ in self.repos[0].snapshots()} == self.wanted.keys()

    def expected(self) -> Contents:
        """What a run must get at least: whatever can be read."""
        found: Contents = {}
        stack = [(b"", self.disk.root)]
        while stack:
            path, inode = stack.pop()
            if inode.unreadable:
                continue
            for name, child in inode.children.items():
                if child.is_folder:
                    found[path + b"/" + name] = None
                    stack.append((path + b"/" + name, child))
                elif not child.unreadable:
                    found[path + b"/" + name] = child.data
        return found

    def teardown(self) -> None:
        try:
            self.read_everything_back()
        finally:
            for repo in self.repos:
                repo.close()
            shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
