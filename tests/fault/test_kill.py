"""A process taking a snapshot is killed at moments of chance: nothing is lost, and little is sent again."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from dedupstore.objectstore.base import ObjectKind
from dedupstore.objectstore.local import LocalStore
from tests.support import repos

MOMENTS = 12
SIZE = 8 << 20
ROOT = Path(__file__).parents[2]


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.fault.snapshot_process", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def fill(folder: Path, dice: random.Random) -> dict[bytes, bytes | None]:
    """Write some new data: a few large files, many small ones."""
    folder.mkdir()
    left = SIZE
    number = 0
    while left > 0:
        size = min(left, dice.choice([300, 3_000, 90_000, 3_000_000]))
        (folder / f"{number:06}").write_bytes(dice.randbytes(size))
        left -= size
        number += 1
    return {os.fsencode(f"/{path.name}"): path.read_bytes() for path in folder.iterdir()}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    dice = random.Random(20261120)
    place, cache, source = tmp_path / "store", tmp_path / "cache", tmp_path / "source"
    store = LocalStore.create(place)
    repos.create(store, cache).close()
    source.mkdir()
    wanted: dict[bytes, bytes | None] = {}
    began = time.monotonic()
    with start(place, cache, source) as process:
        process.communicate()
    scale = time.monotonic() - began
    killed = 0
    for moment in range(MOMENTS):
        name = f"new{moment}"
        added = fill(source / name, dice)
        wanted |= {os.fsencode(f"/{name}"): None} | {
            os.fsencode(f"/{name}") + path: data for path, data in added.items()
        }
        with start(place, cache, source) as process:
            time.sleep(scale * 0.5 + dice.random() * scale)
            process.kill()
        killed += process.returncode != 0
        scale *= 1.1 if process.returncode else 0.6  # the machine may be busier now than before, or less
        print(
            scale,
            process.returncode,
            sum(i.size for i in store.listing(ObjectKind.PACK)) >> 10,
            len(repos.names(store, ObjectKind.SESSION)),
        )
        with repos.reopen(store, tmp_path / f"look{moment}") as repo:
            repo.sync()
            for _, snapshot in repo.snapshots():
                assert repos.files_in(repo, snapshot, os.fsencode(source)).items() <= wanted.items()
            assert repo.damaged == []
        if moment % 3 == 2:
            finish(store, cache, source, wanted, tmp_path / f"end{moment}")
    assert killed >= MOMENTS / 3
    # All that was ever sent: the data once, and at each kill the pack or two that were on their way.
    total = sum(info.size for info in store.listing(ObjectKind.PACK))
    assert total < MOMENTS * SIZE * 1.05 + killed * 3 * (1 << 20)


def finish(
    store: LocalStore, cache: Path, source: Path, wanted: dict[bytes, bytes | None], look: Path
) -> None:
    before = sum(info.size for info in store.listing(ObjectKind.PACK))
    with start(store._root, cache, source) as process:
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    bytes_new, findings = map(int, text.split())
    assert findings == 0
    after = sum(info.size for info in store.listing(ObjectKind.PACK))
    assert after - before <= bytes_new * 1.2 + (1 << 20)
    assert repos.names(store, ObjectKind.SESSION) == set()
    with repos.reopen(store, look) as repo:
        repo.sync()
        _, snapshot = repo.snapshots()[-1]
        assert repos.files_in(repo, snapshot, os.fsencode(source)) == wanted
