"""``dstore snapshot`` of what mongodump wrote, and its restore."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dedupstore.format.keys import format_key_file
from dedupstore.objectstore.url import open_store
from tests.support import repos
from tests.support.dumps import Dump, archive, made, numbers, small, write_folder
from tests.support.program import Program

ROOT = Path(__file__).parents[2]
SMALL = small()
SORTED = b"".join(numbers(2000))


@pytest.fixture
def program(tmp_path: Path) -> Program:
    url = str(tmp_path / "repository")
    with repos.create(open_store(url, create=True), tmp_path / "cache" / "dstore") as repo:
        (tmp_path / "key").write_text(format_key_file(repos.KEY, repo.id))
    environ = {
        "DSTORE_REPO": url,
        "DSTORE_KEY_FILE": str(tmp_path / "key"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    return Program(environ | {"TZ": "UTC", "TMPDIR": str(tmp_path)})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def wanted(tmp_path: Path) -> dict[str, bytes]:
    """What a restore gives: the plain dump, with what was out of order in order."""
    found = contents(write_folder(SMALL, tmp_path / "wanted"))
    assert "shop/shuffled.bson" in found
    return found | {"shop/shuffled.bson": SORTED}


def restored(program: Program, tmp_path: Path, *arguments: str | Path) -> dict[str, bytes]:
    program.run("restore", "latest", *arguments, "--target", tmp_path / "restored")
    return contents(tmp_path / "restored")


@pytest.mark.parametrize("packed", [False, True])
def test_a_dump_folder_is_told_and_stored_as_collections(
    program: Program, tmp_path: Path, packed: bool
) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=packed)
    program.summary("snapshot", root)
    found = restored(program, tmp_path)
    prefix = str(root).lstrip("/")
    if f"{prefix}/prelude.json" in found:
        found = {name.removeprefix(prefix + "/"): data for name, data in found.items()}
    assert found == wanted(tmp_path)
    assert program.run("cat", "latest", f"{root}/shop/shuffled.bson").out == SORTED
    assert program.summary("snapshot", root)["bytes_new"] == 0
    program.run("verify")


def test_a_file_out_of_order_is_put_in_order_where_it_is_restored_onto_itself(
    program: Program, tmp_path: Path
) -> None:
    root = write_folder(SMALL, tmp_path / "dump")
    path = root / "shop" / "shuffled.bson"
    found, before = path.read_bytes(), path.stat()
    assert found != SORTED
    assert len(found) == len(SORTED)
    program.summary("snapshot", root)
    # Same size and time: taken on trust, so the same documents stay in the order in which they are.
    program.run("restore", "latest", root, "--target", "/", "--overwrite", "if-changed")
    assert path.read_bytes() == found
    # Compared, since nothing is taken on trust: then the file is what the snapshot has.
    program.run("restore", "latest", root, "--target", "/")
    assert path.read_bytes() == SORTED
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert program.summary("snapshot", root)["bytes_new"] == 0


def test_as_files_leaves_a_dump_alone(program: Program, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump", packed=True)
    program.summary("snapshot", root, "--as", "files")
    path = root / "shop" / "shuffled.bson.gz"
    assert program.run("cat", "latest", path).out == path.read_bytes()


def test_as_dump_takes_what_does_not_look_like_one(program: Program, tmp_path: Path) -> None:
    root = write_folder(SMALL, tmp_path / "dump") / "shop"
    program.summary("snapshot", root)
    assert program.run("cat", "latest", root / "shuffled.bson").out != SORTED
    program.summary("snapshot", root, "--as", "dump")
    assert program.run("cat", "latest", root / "shuffled.bson").out == SORTED


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_is_stored_as_the_folder_that_it_stands_for(
    program: Program, tmp_path: Path, packed: bool
) -> None:
    path = tmp_path / "the archive"
    path.write_bytes(archive(SMALL, packed=packed))
    program.summary("snapshot", "--archive", path)
    assert restored(program, tmp_path) == wanted(tmp_path)
    program.run("verify")


def test_an_archive_from_a_pipe(program: Program, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "cli", "--json", "snapshot", "--archive", "-"]
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")
    } | program.environ
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=env,
        input=archive(SMALL, packed=True),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1])["findings"] == 0
    assert restored(program, tmp_path) == wanted(tmp_path)


def test_a_dump_shares_its_collections_with_an_archive(program: Program, tmp_path: Path) -> None:
    program.summary("snapshot", write_folder(SMALL, tmp_path / "dump"))
    (tmp_path / "archive").write_bytes(archive(SMALL))
    assert program.summary("snapshot", "--archive", tmp_path / "archive")["bytes_new"] == 0


def test_leaves_stay_as_they_are_when_the_first_documents_grow(program: Program, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(30_000))]), tmp_path / "dump")
    program.summary("snapshot", root)
    grown = [*numbers(2000, size=4000), *numbers(30_000)[2000:]]
    write_folder(Dump([made("d", "c", grown)]), root)
    added = program.summary("snapshot", root)["bytes_new"]
    assert isinstance(added, int)
    assert added < sum(map(len, grown[:2000])) + 200_000


def test_damage_in_a_folder_is_a_finding_and_in_an_archive_the_end(program: Program, tmp_path: Path) -> None:
    root = write_folder(Dump([made("d", "c", numbers(500, step=7))]), tmp_path / "dump")
    path = root / "d" / "c.bson"
    path.write_bytes(path.read_bytes()[:-3])
    ran = program.run("snapshot", root, status=3)
    assert f"{path} was stored as plain bytes" in ran.err
    assert program.run("cat", "latest", path).out == path.read_bytes()
    (tmp_path / "archive").write_bytes(archive(SMALL)[:-30])
    assert "does not go on with" in program.error("snapshot", "--archive", tmp_path / "archive", status=1)
    assert len(program.rows("snapshots")) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--archive", "a", "--stdin", "b"], "--stdin and --archive contradict each other"),
        (["--archive", "a", "path"], "with --archive nothing else is backed up"),
        (["--archive", "a", "--exclude", "x"], "with --archive there are no files"),
        (["--archive", "a", "--as", "files"], "with --archive there are no files"),
        (["--archive", ""], "--archive needs a name"),
        (["path", "--as", "mongo"], "--as mongo is unknown"),
    ],
)
def test_what_makes_no_sense_is_said(program: Program, words: list[str], says: str) -> None:
    assert says in program.error("snapshot", *words, status=2)


def test_an_archive_that_is_not_there(program: Program, tmp_path: Path) -> None:
    assert "is not there: correct its name" in program.error(
        "snapshot", "--archive", tmp_path / "none", status=1
    )


def test_nothing_stays_in_the_temporary_folder(program: Program, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    program.environ["TMPDIR"] = str(place)
    dump = Dump([made("d", "c", numbers(30_000, step=7, size=1000))])
    (tmp_path / "archive").write_bytes(archive(dump, packed=True))
    program.summary("snapshot", "--archive", tmp_path / "archive")
    assert program.run("cat", "latest", "/d/c.bson").out == b"".join(numbers(30_000, size=1000))
    assert list(place.iterdir()) == []
