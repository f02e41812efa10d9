"""`LocalStore` with other processes: racing, killed in the middle, and on a kernel that refuses things."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.local import LocalStore

WORKER = Path(__file__).with_name("store_worker.py")
GEN = ObjectKey(ObjectKind.GC, "gen")
SESSION = ObjectKey(ObjectKind.SESSION, "ab" * 16)
WAYS = ("anonymous", "named")


def start(job: str, folder: Path, way: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), job, str(folder), way, str(number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def outcome(worker: subprocess.Popen[str]) -> list[str]:
    out, err = worker.communicate(timeout=120)
    assert worker.returncode == 0, err
    return out.split()[1:]  # without "ready"


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", WAYS)
def test_no_increment_is_lost(way: str, tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    workers = [start("count", tmp_path / "store", way, 40) for _ in range(4)]
    for worker in workers:
        outcome(worker)
    assert store.get(GEN) == b"160"
    assert files(tmp_path / "store") == {"gc/gen", "lock"}


@pytest.mark.parametrize("job", ["claim", "claim_without_links"])
@pytest.mark.parametrize("way", WAYS)
def test_one_name_has_one_winner(job: str, way: str, tmp_path: Path) -> None:
    if job != "claim" and platform.machine() != "x86_64":
        pytest.skip("the filter knows only x86-64 system calls")
    LocalStore.create(tmp_path / "store")
    workers = [start(job, tmp_path / "store", way, 100) for _ in range(4)]
    won = [name for worker in workers for name in outcome(worker)]
    assert sorted(map(int, won)) == list(range(100))


@pytest.mark.parametrize("way", WAYS)
def test_killed_in_the_middle_of_a_put(way: str, tmp_path: Path) -> None:
    """Whatever moment it is: what is listed is whole, and litter neither shows nor stays."""
    folder = tmp_path / "store"
    store = LocalStore.create(folder)
    littered = 0
    for attempt in range(12):
        worker = start("put_for_ever", folder, way, 0x10 + attempt)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.011 + 0.0073 * attempt)
        worker.kill()
        worker.communicate()
        listed = list(store.listing(ObjectKind.PACK))
        temporary = {name for name in files(folder) if ".tmp-" in name}
        assert len(listed) == len(files(folder) - temporary)
        for info in listed:
            content = store.get(info.key)
            assert info.size == len(content)
            assert content == bytes.fromhex(info.key.name) * ((3 << 20) // 32) + b"tail"
        store.delete([info.key for info in listed])
        littered += len(temporary)
    if way == "anonymous":
        assert littered == 0
    again = LocalStore(folder, anonymous=False)
    again.put(ObjectKey(ObjectKind.PACK, "10" * 32), [b"x"])
    assert not any(".tmp-" in name for name in files(folder / "packs/10"))


def test_litter_goes_and_unfinished_work_stays(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    LocalStore.create(folder).put(ObjectKey(ObjectKind.INDEX, "00" * 32), [b"x"])
    (folder / "index/.tmp-dead").write_bytes(b"from a crash")
    (folder / "index/foreign").write_bytes(b"not ours")
    code = "import fcntl,sys; f=open(sys.argv[1],'wb'); fcntl.flock(f,2); print(1,flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "index/.tmp-live")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    LocalStore(folder, anonymous=False).put(ObjectKey(ObjectKind.INDEX, "11" * 32), [b"x"])
    assert {path.name for path in (folder / "index").iterdir()} == {
        "00" * 32,
        "11" * 32,
        ".tmp-live",
        "foreign",
    }
    holder.communicate(b"\n")


@pytest.mark.parametrize("way", WAYS)
def test_killed_in_the_middle_of_a_swap(way: str, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = LocalStore.create(folder)
    number = 0
    store.put(SESSION, [b"%010d" % number * 500])
    for attempt in range(12):
        worker = start("swap_for_ever", folder, way, number)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(0.011 + 0.0031 * attempt)
        worker.kill()
        worker.communicate()
        content = store.get(SESSION)
        reached = int(content[:10])
        assert content == b"%010d" % reached * 500
        assert reached >= number
        assert [info.key for info in store.listing(ObjectKind.SESSION)] == [SESSION]
        number = reached
    assert number > 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter knows only x86-64 system calls")
@pytest.mark.parametrize("refused", [1, 2, 3], ids=["no-links", "no-nameless-files", "neither"])
def test_the_contract_on_a_poor_file_system(refused: int, tmp_path: Path) -> None:
    """The kernel itself refuses hard links (as on FAT), nameless files (as on NFS), or both."""
    LocalStore.create(tmp_path / "store")
    worker = start("contract", tmp_path / "store", "anonymous", refused)
    assert outcome(worker)[-1] == "kept"
    assert not any(".tmp-" in name for name in files(tmp_path))


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_on_the_size_of_files(way: str, tmp_path: Path) -> None:
    store = LocalStore.create(tmp_path / "store")
    assert outcome(start("put_over_limit", tmp_path / "store", way, 3 << 20)) == ["full"] * 3
    assert [info.size for info in store.listing(ObjectKind.PACK)] == [3 << 20]
