"""The program as its users meet it: real processes, real repositories."""

import base64
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 4096


@dataclass
class Program:
    """Runs ``dstore`` against one repository that a key file opens."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
        return clean | {"XDG_CACHE_HOME": str(self.folder / "cache"), "TZ": "UTC"} | self.environ

    def run(
        self, *arguments: str | Path, status: int = 0, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, "-m", "cli", *map(str, arguments)]
        done = subprocess.run(
            words, cwd=ROOT, env=self.env(), input=stdin, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done

    def text(self, *arguments: str | Path, status: int = 0) -> str:
        return self.run(*arguments, status=status).stdout.decode()

    def error(self, *arguments: str | Path, status: int) -> str:
        return self.run(*arguments, status=status).stderr.decode().splitlines()[-1]

    def json(self, *arguments: str | Path, status: int = 0) -> object:
        return json.loads(self.run("--json", *arguments, status=status).stdout)

    def rows(self, *arguments: str | Path, status: int = 0) -> list[dict[str, object]]:
        found = self.json(*arguments, status=status)
        assert isinstance(found, list)
        return found

    def summary(self, *arguments: str | Path, status: int = 0, stdin: bytes = b"") -> dict[str, object]:
        lines = self.run("--json", *arguments, status=status, stdin=stdin).stdout.splitlines()
        events = [json.loads(line) for line in lines]
        assert {event["type"] for event in events} <= {"progress", "finding", "summary"}
        assert [event["type"] for event in events].index("summary") == len(events) - 1
        summary = events[-1]
        assert isinstance(summary, dict)
        return summary


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository made once: deriving a key from a passphrase takes most of a second."""
    folder = tmp_path_factory.mktemp("template")
    program = Program(folder, {"DSTORE_PASSWORD": "correct horse"})
    program.run("-r", program.repository, "init", "--recovery-key", folder / "key")
    return folder


@pytest.fixture
def dstore(template: Path, tmp_path: Path) -> Program:
    subprocess.run(["cp", "-a", template / "repository", template / "key", tmp_path], check=True)
    repository, key = str(tmp_path / "repository"), str(tmp_path / "key")
    return Program(tmp_path, {"DSTORE_REPO": repository, "DSTORE_KEY_FILE": key})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "big").write_bytes(DATA)
    (folder / "sub" / "note.txt").write_text("first\n")
    (folder / "sub" / "deep" / "empty").touch()
    (folder / "link").symlink_to("sub/note.txt")
    return folder


def test_init_says_what_was_made_and_refuses_a_second_time(tmp_path: Path) -> None:
    program = Program(tmp_path, {"DSTORE_PASSWORD": "x", "DSTORE_REPO": str(tmp_path / "repository")})
    made = program.json("init", "--cipher", "xchacha20", "--chunk-size", "64K", "--compression", "lz4")
    assert isinstance(made, dict)
    assert re.fullmatch("[0-9a-f]{32}", made["repository"])
    assert made["cipher"].lower().startswith("xchacha20")
    assert made["chunk_size"] == 65536
    assert "holds a repository already" in program.error("init", status=1)
    assert "nothing" not in program.text("snapshots")


def test_init_writes_a_recovery_key_for_its_owner_only(template: Path, tmp_path: Path) -> None:
    assert (template / "key").stat().st_mode & 0o777 == 0o600
    program = Program(tmp_path, {"DSTORE_PASSWORD": "x", "DSTORE_REPO": str(tmp_path / "repository")})
    (tmp_path / "taken").write_text("do not touch")
    assert "taken" in program.error("init", "--recovery-key", tmp_path / "taken", status=1)
    assert (tmp_path / "taken").read_text() == "do not touch"
    assert not (tmp_path / "repository").exists()


def test_a_life(dstore: Program, source: Path, tmp_path: Path) -> None:
    first = dstore.summary("snapshot", source, "--tag", "t1", "--host", "here")
    wanted = "snapshot files_new files_changed files_unchanged files_failed bytes bytes_new stored_bytes"
    assert {*wanted.split(), "chunks_new", "seconds", "type"} <= first.keys()
    assert first["files_failed"] == 0
    assert first["bytes"] == len(DATA) + 6
    (source / "sub" / "note.txt").write_text("second version\n")
    (source / "new").write_text("new\n")
    second = dstore.summary("snapshot", source, "--host", "here")
    assert second["files_new"] == 1
    assert second["files_changed"] == 1

    rows = dstore.rows("snapshots")
    fields = "id time host paths tags parent sequence hold files bytes added_bytes"
    assert all(set(fields.split()) <= row.keys() for row in rows)
    assert [row["id"] for row in rows] == [first["snapshot"], second["snapshot"]]
    assert rows[0]["paths"] == [str(source)]
    assert rows[0]["tags"] == ["t1"]
    assert str(rows[0]["time"]).endswith("Z")
    assert [row["id"] for row in dstore.rows("snapshots", "--tag", "t1")] == [first["snapshot"]]
    assert len(dstore.rows("snapshots", "--latest", "1")) == 1
    assert dstore.rows("snapshots", "--host", "elsewhere") == []
    assert str(first["snapshot"])[:8] in dstore.text("snapshots")

    note = source / "sub" / "note.txt"
    assert dstore.run("cat", note).stdout == b"second version\n"
    assert dstore.run("cat", "latest~1", note).stdout == b"first\n"
    assert dstore.run("cat", str(first["snapshot"])[:10], note).stdout == b"first\n"
    assert dstore.run("cat", "--at", str(rows[0]["time"]), note).stdout == b"first\n"
    assert dstore.run("cat", source / "big").stdout == DATA

    changes = dstore.rows("diff", "latest~1", "latest")
    kinds = {Path(str(row["path"])).name: row["change"] for row in changes if row["new"]}
    assert kinds["note.txt"] == "content"
    assert kinds["new"] == "added"
    assert f"+ {source}/new" in dstore.text("diff", "--at", str(rows[0]["time"]))

    versions = dstore.rows("history", note)
    assert [version["size"] for version in versions] == [6, 15]
    found = dstore.rows("find", "note.*")
    assert [match["path"] for match in found] == [str(note)] * 2
    assert dstore.rows("find", "--at", "now", "/**/deep/*")[0]["path"] == f"{source}/sub/deep/empty"

    stats = dstore.json("stats")
    assert isinstance(stats, dict)
    names = "snapshots logical_bytes unique_bytes stored_bytes dedup_ratio compression_ratio"
    assert set(names.split()) <= stats.keys()
    assert stats["snapshots"] == 2
    checked = dstore.summary("verify", "--data")
    assert {"snapshots", "packs", "chunks", "bytes_read", "findings"} <= checked.keys()
    assert checked["snapshots"] == 2
    assert checked["findings"] == 0


def test_ls(dstore: Program, source: Path) -> None:
    (source / os.fsdecode(b"not-\xff-utf8")).touch()
    dstore.run("snapshot", source)
    top = {str(row["path"]): row for row in dstore.rows("ls", source)}
    assert {Path(path).name for path in top} == {"big", "sub", "link", "not-\\xff-utf8"}
    row = top[f"{source}/big"]
    assert {"path", "type", "size", "mode", "mtime", "uid", "gid"} <= row.keys()
    assert (row["type"], row["size"]) == ("file", len(DATA))
    raw = str(top[f"{source}/not-\\xff-utf8"]["path_base64"])
    assert base64.b64decode(raw) == os.fsencode(source) + b"/not-\xff-utf8"
    whole = [str(row["path"]) for row in dstore.rows("ls", "latest", source, "--recursive")]
    assert f"{source}/sub/deep/empty" in whole
    long = dstore.text("ls", "-l", source / "link")
    assert long.startswith("l")
    assert long.rstrip().endswith("-> sub/note.txt")
    assert dstore.text("ls").strip() == "/" + source.parts[1]
    assert "does not exist" in dstore.error("ls", source / "absent", status=1)


@pytest.mark.parametrize("how", ["latest", "at", "paths"])
def test_restore_by_snapshot_by_time_and_by_path(
    dstore: Program, source: Path, tmp_path: Path, how: str
) -> None:
    dstore.run("snapshot", source)
    target = tmp_path / "target"
    if how == "latest":
        summary = dstore.summary("restore", "latest", "--target", target)
    elif how == "at":
        summary = dstore.summary("restore", "--at", "now", "--target", target, source)
    else:
        summary = dstore.summary("restore", "--target", target, source / "big")
    assert {"files", "bytes", "skipped", "deleted", "seconds", "at"} <= summary.keys()
    found = sorted(path.name for path in target.rglob("*") if path.is_file() or path.is_symlink())
    if how == "paths":
        assert found == ["big"]
    else:
        assert found == ["big", "empty", "link", "note.txt"]
    assert next(target.rglob("big")).read_bytes() == DATA


def test_restore_tells_the_snapshot_and_the_instant(dstore: Program, source: Path, tmp_path: Path) -> None:
    dstore.run("snapshot", source)
    done = dstore.run("restore", "--target", tmp_path / "target")
    assert re.search(r"snapshot [0-9a-f]{8} of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000", done.stderr.decode())
    assert b"restored" in done.stdout
    assert dstore.run("--quiet", "restore", "--target", tmp_path / "again").stderr == b""


def test_statuses_of_the_store_and_the_key(dstore: Program, tmp_path: Path) -> None:
    assert "dstore init" in dstore.error("-r", tmp_path / "nowhere", "snapshots", status=10)
    dstore.environ.pop("DSTORE_KEY_FILE")
    dstore.environ["DSTORE_PASSWORD"] = "wrong"
    assert "passphrase" in dstore.error("snapshots", status=12)
    dstore.environ["DSTORE_PASSWORD"] = "correct horse"
    dstore.run("snapshots")


def test_an_unreadable_file_is_named_and_makes_status_3(
    dstore: Program, source: Path, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    done = dstore.run("snapshot", source, absent, status=3)
    assert str(absent) in done.stderr.decode()
    assert len(dstore.rows("snapshots")) == 1
    lines = [
        json.loads(line)
        for line in dstore.run("--json", "snapshot", source, absent, status=3).stdout.splitlines()
    ]
    assert [line["type"] for line in lines if line["type"] != "progress"] == ["finding", "summary"]
    assert "absent" in dstore.error("snapshot", absent, status=1)


def packs(dstore: Program) -> list[Path]:
    return sorted(path for path in (dstore.repository / "packs").rglob("*") if path.is_file())


def test_damage_makes_status_4(dstore: Program, source: Path, tmp_path: Path) -> None:
    (source / "big").write_bytes(os.urandom(1 << 20))
    dstore.run("snapshot", source)
    for pack in packs(dstore):
        pack.chmod(0o600)
        raw = bytearray(pack.read_bytes())
        raw[len(raw) // 3] ^= 1
        pack.write_bytes(raw)
    dstore.run("verify", "--data", status=4)
    restored = dstore.run("--json", "restore", "--target", tmp_path / "target", status=4)
    assert json.loads(restored.stdout.splitlines()[-1])["type"] == "summary"


def test_a_pack_that_is_gone_makes_status_4(dstore: Program, source: Path) -> None:
    dstore.run("snapshot", source)
    packs(dstore)[0].unlink()
    dstore.run("verify", status=4)


def test_keys(dstore: Program, source: Path, tmp_path: Path) -> None:
    rows = dstore.rows("key", "list")
    assert sorted(str(row["kind"]) for row in rows) == ["key file", "passphrase"]
    assert dstore.json("key", "add", "--key-file", tmp_path / "second")
    assert dstore.json("key", "export", tmp_path / "third")
    assert "exists" in dstore.error("key", "export", tmp_path / "third", status=1)
    (tmp_path / "word").write_text("another\n")
    dstore.run("key", "add", "--new-password-file", tmp_path / "word")
    assert len(dstore.rows("key", "list")) == 5
    dstore.environ["DSTORE_KEY_FILE"] = str(tmp_path / "third")
    for row in dstore.rows("key", "list"):
        if not row["current"]:
            dstore.run("key", "remove", str(row["id"]))
    (last,) = dstore.rows("key", "list")
    assert "last" in dstore.error("key", "remove", str(last["id"]), status=2)
    dstore.environ["DSTORE_KEY_FILE"] = str(tmp_path / "second")
    assert "key file" in dstore.error("snapshots", status=12)


def test_the_cache_can_go_at_any_time(dstore: Program, source: Path) -> None:
    dstore.run("snapshot", source)
    info = dstore.json("cache", "info")
    assert isinstance(info, dict)
    assert str(info["path"]).startswith(str(dstore.folder / "cache" / "dstore"))
    assert info["chunks"] > 0
    assert dstore.summary("cache", "rebuild")["chunks"] == info["chunks"]
    assert dstore.summary("cache", "rebuild", "--from-packs")["chunks"] == info["chunks"]
    dstore.run("cache", "clear")
    assert dstore.run("cat", source / "big").stdout == DATA


def test_streams(dstore: Program, tmp_path: Path) -> None:
    dstore.summary("snapshot", "--stdin", "dump.sql", stdin=DATA)
    assert dstore.run("cat", "/dump.sql").stdout == DATA
    dstore.run("snapshot", "--command", "hello.txt", "--", "printf", "hello %s", "world")
    assert dstore.run("cat", "/hello.txt").stdout == b"hello world"
    before = len(dstore.rows("snapshots"))
    dstore.run("snapshot", "--command", "x", "--", "false", status=1)
    assert len(dstore.rows("snapshots")) == before
    dstore.run("snapshot", "--stdin", "a", "--command", "b", status=2)
    dstore.run("snapshot", status=2)


def test_exclusion(dstore: Program, source: Path, tmp_path: Path) -> None:
    patterns = tmp_path / "patterns"
    patterns.write_text("# a comment\n\ndeep\n")
    (source / "cache").mkdir()
    (source / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (source / "cache" / "junk").touch()
    dstore.run(
        "snapshot", source, "--exclude", "*.txt", "--exclude-file", patterns, "--exclude-caches",
        "--exclude-larger-than", "64K",
    )  # fmt: skip
    names = {Path(str(row["path"])).name for row in dstore.rows("ls", source, "-R")}
    assert names == {"sub", "link", "cache", "CACHEDIR.TAG"}


def test_a_dry_run_stores_nothing(dstore: Program, source: Path) -> None:
    before = sorted(dstore.repository.rglob("*"))
    summary = dstore.summary("snapshot", source, "--dry-run")
    assert summary["snapshot"] is None
    assert summary["files_new"]
    assert dstore.rows("snapshots") == []
    assert [path for path in sorted(dstore.repository.rglob("*")) if path.is_file()] == [
        path for path in before if path.is_file()
    ]


def on_terminal(program: Program, *arguments: str | Path, typed: bytes = b"") -> str:
    """Run on a pseudo-terminal; return all that it showed."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        words = [sys.executable, "-m", "cli", *map(str, arguments)]
        os.execve(sys.executable, words, program.env() | {"TERM": "xterm-256color", "COLUMNS": "200"})
    shown = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if piece.rstrip().endswith(b":"):
            line, _, typed = typed.partition(b"\n")
            os.write(terminal, line + b"\n")
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode()


def test_on_a_terminal_there_are_tables_bars_and_prompts(tmp_path: Path, source: Path) -> None:
    program = Program(tmp_path, {"DSTORE_REPO": str(tmp_path / "repository")})
    assert "made at" in on_terminal(program, "init", typed=b"open sesame\nopen sesame\n")
    shown = on_terminal(program, "snapshot", source, typed=b"open sesame\n")
    assert "new" in shown
    assert "\x1b[1m" in on_terminal(program, "snapshots", typed=b"open sesame\n")
    assert "\x1b[3" not in on_terminal(program, "--no-color", "snapshots", typed=b"open sesame\n")
    assert "not the same" in on_terminal(
        Program(tmp_path, {"DSTORE_REPO": str(tmp_path / "other")}), "init", typed=b"a\nb\n"
    )


def test_an_interrupted_snapshot_leaves_the_repository_usable(dstore: Program, source: Path) -> None:
    for number in range(40):
        (source / f"random{number}").write_bytes(os.urandom(4 << 20))
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "snapshot", source], cwd=ROOT, env=dstore.env(), stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not packs(dstore) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130, errors
    assert b"interrupted" in errors.splitlines()[-1]
    assert dstore.rows("snapshots") == []
    dstore.run("snapshot", source)
    assert dstore.summary("verify")["findings"] == 0


def test_head_ends_a_listing_quietly(dstore: Program, source: Path) -> None:
    for number in range(3000):
        (source / f"{number:0200}").touch()
    dstore.run("snapshot", source)
    line = f"{sys.executable} -m cli ls -R {source} | head -1"
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=dstore.env(), capture_output=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


def test_start_up_is_quick_and_loads_nothing_that_a_list_does_not_need(dstore: Program, source: Path) -> None:
    dstore.run("snapshot", source)
    dstore.run("snapshots")
    probe = "import sys; from cli.app import run; run(['snapshots']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, env=dstore.env(), capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert not loaded & {"rich", "numpy", "platformdirs", "asyncio", "multiprocessing", "sqlite3"}
    assert not {name for name in loaded if name.startswith(("dedupstore.ops", "dedupstore.sources"))}
