"""What a stranger runs into in the first hour: slips of the hand, odd surroundings, damage."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.app import COMMANDS

ROOT = Path(__file__).parents[2]


class Program:
    """Runs ``dstore`` against one repository that a key file opens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"

    def run(
        self, *arguments: str | Path, status: int = 0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
        own = {"DSTORE_REPO": str(self.repository), "DSTORE_KEY_FILE": str(self.folder / "key")}
        own |= {"XDG_CACHE_HOME": str(self.folder / "cache"), "TZ": "UTC"}
        done = subprocess.run(
            [sys.executable, "-m", "cli", *map(str, arguments)],
            cwd=ROOT,
            env=clean | own | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def error(self, *arguments: str | Path, status: int) -> str:
        return self.run(*arguments, status=status).stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two snapshots, made once: a passphrase takes most of a second."""
    folder = tmp_path_factory.mktemp("template")
    program = Program(folder)
    environ = {"DSTORE_KEY_FILE": "", "DSTORE_PASSWORD": "correct horse"}
    program.run("init", "--recovery-key", folder / "key", **environ)
    source = folder / "source"
    source.mkdir()
    for day in (1, 2):
        (source / "note").write_text(f"version {day}\n")
        program.run("snapshot", source, "--time", f"2026-10-0{day} 10:00:00.5Z")
    return folder


@pytest.fixture
def dstore(template: Path, tmp_path: Path) -> Program:
    subprocess.run(["cp", "-a", f"{template}/.", tmp_path], check=True)
    shutil.rmtree(tmp_path / "cache")
    return Program(tmp_path)


def test_a_time_copied_from_a_listing_finds_that_snapshot(dstore: Program, template: Path) -> None:
    note = template / "source" / "note"
    shown = re.findall(r"2026-\S+ \S+ \+0000", dstore.run("snapshots").stdout)
    assert shown == ["2026-10-01 10:00:00 +0000", "2026-10-02 10:00:00 +0000"]
    for day, text in enumerate((shown[0][:19], "2026-10-02T10:00:00Z"), start=1):
        assert dstore.run("cat", "--at", text, note).stdout == f"version {day}\n"
        assert len(json.loads(dstore.run("snapshots", "--before", text, "--json").stdout)) == day
        assert len(json.loads(dstore.run("history", note, "--at", text, "--json").stdout)) == day
    assert dstore.run("cat", "--at", "2026-10-02T10:00:00.4Z", note).stdout == "version 1\n"


def test_an_unset_variable_is_no_path(dstore: Program, tmp_path: Path) -> None:
    assert "empty PATH" in dstore.error("snapshot", "", status=2)
    assert "empty PATH" in dstore.error("snapshot", tmp_path / "source", "", status=2)
    assert "empty --target" in dstore.error("restore", "latest", "--target", "", status=2)


def test_names_can_not_drive_the_terminal(dstore: Program, tmp_path: Path) -> None:
    dstore.run("snapshot", tmp_path / "source", "--tag", "\x1b[31mred\n", "--host", "h\x1b]0;x\x07")
    path = tmp_path / "source" / "note"
    for words in (["snapshots"], ["find", "note"], ["history", path], ["ls"]):
        done = dstore.run(*words)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr
    assert "\\x1b[31mred\\n" in dstore.run("snapshots").stdout


def test_closed_standard_streams(dstore: Program, template: Path) -> None:
    words = f"{sys.executable} -m cli cat latest {template}/source/note"
    environ = os.environ | {"DSTORE_REPO": str(dstore.repository), "XDG_CACHE_HOME": str(dstore.folder / "c")}
    environ |= {"DSTORE_KEY_FILE": str(dstore.folder / "key")}
    environ.pop("DSTORE_PASSWORD", None)
    for closing in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{words} {closing}"], cwd=ROOT, env=environ, capture_output=True, check=False
        )
        assert done.returncode == 0, (closing, done.stderr)
        assert b"Traceback" not in done.stderr
        assert done.stdout in (b"", b"version 2\n")


def test_the_last_snapshot_damaged_is_not_passed_over_in_silence(
    dstore: Program, template: Path, tmp_path: Path
) -> None:
    listed = json.loads(dstore.run("snapshots", "--json").stdout)
    damaged = dstore.repository / "snapshots" / listed[-1]["id"]
    damaged.chmod(0o600)
    damaged.write_bytes(b"")
    shutil.rmtree(tmp_path / "cache")
    done = dstore.run("restore", "latest", "--target", tmp_path / "back", status=4)
    assert done.stderr.splitlines()[-1].endswith("may be what was meant: see above")
    dstore.run("restore", listed[0]["id"], "--target", tmp_path / "back")
    dstore.run("restore", "--at", "2026-10-03", "--target", tmp_path / "back", status=4)
    note = template / "source" / "note"
    for words in (["cat", note], ["ls", note], ["history", note], ["find", "note"]):
        dstore.run(*words, status=4)
    assert dstore.run("cat", listed[0]["id"], note).stdout == "version 1\n"


def test_a_repository_without_its_config_is_damaged_not_absent(dstore: Program, tmp_path: Path) -> None:
    (dstore.repository / "config").unlink()
    assert "restore it from a copy" in dstore.error("snapshots", status=4)
    elsewhere = tmp_path / "elsewhere"
    assert str(elsewhere) in dstore.error("-r", elsewhere, "snapshots", status=10)
    assert str(elsewhere) in dstore.error("-r", elsewhere, "cache", "info", status=10)


def test_damage_to_the_config_says_what_helps(dstore: Program) -> None:
    path = dstore.repository / "config"
    stored = bytearray(path.read_bytes())
    stored[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(stored)
    assert dstore.error("verify", status=4).endswith("restore it from a copy")


def test_an_index_that_is_gone_names_a_command_that_helps(dstore: Program, tmp_path: Path) -> None:
    for path in (dstore.repository / "index").iterdir():
        path.unlink()
    told = dstore.run("verify", status=4).stderr
    assert "dstore cache rebuild --from-packs" in told
    assert "--from-packs" in dstore.error("restore", "latest", "--target", tmp_path / "back", status=4)
    dstore.run("cache", "rebuild", "--from-packs")
    dstore.run("restore", "latest", "--target", tmp_path / "back")


def test_messages_name_only_commands_that_exist() -> None:
    for path in [
        *ROOT.glob("dedupstore/**/*.py"),
        *ROOT.glob("cli/**/*.py"),
        ROOT / "docs" / "quickstart.md",
    ]:
        for word in re.findall(r"[`']dstore ([a-z]+)", path.read_text()):
            assert word in COMMANDS, (path, word)


def test_init_finds_out_first_that_a_recovery_key_can_not_be_written(dstore: Program, tmp_path: Path) -> None:
    new = tmp_path / "new"
    words = ("-r", new, "init", "--password-command", "echo pw", "--recovery-key", tmp_path / "no" / "key")
    assert "name another place" in dstore.error(*words, status=1)
    assert not new.exists()
    assert "holds a repository already" in dstore.error(
        "-r", dstore.repository, "init", "--password-command", "echo pw", status=1
    )
    for size in ("1", "1T"):
        words = ("-r", new, "init", "--password-command", "echo pw", "--chunk-size", size)
        assert "choose one from" in dstore.error(*words, status=2)


def test_a_repository_without_key_slots_is_damaged(dstore: Program) -> None:
    for path in (dstore.repository / "keys").iterdir():
        path.unlink()
    assert "restore them from a copy" in dstore.error("snapshots", status=4)


def test_small_words_for_small_slips(dstore: Program, tmp_path: Path) -> None:
    source = tmp_path / "source"
    assert "nothing fits" in dstore.run("find", "zzz").stderr
    assert "with a slash first" in dstore.error("snapshots", "--path", "relative", status=2)
    assert "one of the commands above" in dstore.error("key", status=2)
    assert "one of the commands above" in dstore.error("cache", status=2)
    assert "--one-file-system" in dstore.error("snapshot", "--stdin", "x", "-x", status=2)
    assert "not supported" in dstore.run("-r", "s3://b/p", "snapshots", status=2, DSTORE_KEY_FILE="").stderr
    done = dstore.run("snapshot", source, tmp_path / "typo", status=3)
    assert "correct the path" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dstore: 1 thing could")
    assert "something else stands there" in dstore.error(
        "restore", "latest", "--target", tmp_path / "key", status=1
    )
