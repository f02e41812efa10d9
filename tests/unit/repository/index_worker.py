"""What the tests of the local index run as a process of its own: ``python index_worker.py VERB FOLDER …``."""

import os
import resource
import sys
from pathlib import Path

from dedupstore.repository.index import LocalIndex
from dedupstore.repository.statcache import StatCache
from tests.unit.repository.index_samples import REPOSITORY, chunk_ids, make_pack


def write(folder: Path, who: str, packs: str) -> None:
    """Add packs from a map that must grow, one transaction each."""
    with LocalIndex.open(folder, REPOSITORY, map_size=1 << 16) as index:
        for n in range(int(packs)):
            index.add(make_pack((who, n), 100))
            if n % 10 == 9:
                index.flush()


def read(folder: Path, who: str, packs: str) -> None:
    """Wait until a writer's packs are all there; each must be there whole as soon as it is."""
    with LocalIndex.open(folder, REPOSITORY, map_size=1 << 16) as index:
        for n in range(int(packs)):
            ids = chunk_ids(make_pack((who, n), 100))
            while not any(found := index.contains(ids)):
                pass
            assert all(found)
            assert len({index.pack(row[0]).id for row in index.rows(ids) if row}) == 1


def endless(folder: Path) -> None:
    """Add packs until killed; says when each is in."""
    with LocalIndex.open(folder, REPOSITORY) as index:
        n = 0
        while True:
            index.add(make_pack(n, 2000))
            os.write(1, b"%d\n" % n)
            n += 1


def cramped(folder: Path) -> None:
    """Open and use a cache where less than the wanted map may be reserved."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    with LocalIndex.open(folder, REPOSITORY) as index:
        index.add(make_pack("a", 1000))
        print(index.environment.map_size())


def hold(folder: Path) -> None:
    """Begin a run of the stat cache, and stay."""
    with LocalIndex.open(folder, REPOSITORY) as index:
        print(StatCache(index, b"s" * 16).begin(), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    verb = {"write": write, "read": read, "endless": endless, "cramped": cramped, "hold": hold}[sys.argv[1]]
    verb(Path(sys.argv[2]), *sys.argv[3:])  # type: ignore[operator]
