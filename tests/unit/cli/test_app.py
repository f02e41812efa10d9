import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import app
from cli.reference import describe, manual
from cli.shells import SCRIPTS

ROOT = Path(__file__).parents[3]
DESCRIBED = list(describe())


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_table_says_what_each_command_says_of_itself() -> None:
    for one in DESCRIBED:
        if len(one.words) == 1:
            assert one.help.splitlines()[0] == app.COMMANDS[one.words[0]].help
        elif one.words and (below := app.COMMANDS[one.words[0]].below):
            assert one.help.splitlines()[0] == below[one.words[1]].help


def test_every_command_module_is_in_the_table() -> None:
    modules = {path.stem for path in (ROOT / "cli" / "commands").glob("*.py")} - {"__init__"}
    entries = [one for entry in app.COMMANDS.values() for one in (entry, *(entry.below or {}).values())]
    assert modules == {entry.module for entry in entries if entry.below is None}


@pytest.mark.parametrize("one", DESCRIBED, ids=lambda one: "-".join(one.words) or "root")
def test_everything_has_help_and_every_option_fits_one_line(one: object) -> None:
    assert isinstance(one, type(DESCRIBED[0]))
    assert one.help
    assert len(one.help.splitlines()[0]) <= 72
    lead = [", ".join(sorted(flag.names, key=len)) + f" {flag.metavar or ''}" for flag in one.flags]
    width = 2 + max(len(text) for text in lead) + 2
    for flag in one.flags:
        assert flag.help, flag.names
        assert width + len(flag.help) <= 80, (flag.names, flag.help)
    for name, text in one.arguments:
        assert text, name


def test_the_manual_is_current() -> None:
    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == manual(), "run: python -m cli.reference > docs/cli.md"
    for one in DESCRIBED:
        assert f" {' '.join(('dstore', *one.words))}\n" in written


def test_alone_it_shows_help() -> None:
    done = run()
    assert done.returncode == 0
    assert "Commands:" in done.stdout
    assert all(name in done.stdout for name in app.COMMANDS)


def test_help_imports_no_command() -> None:
    probe = "import sys; from cli.app import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not {
        name for name in loaded if name.startswith(("cli.commands.", "dedupstore.repository", "rich"))
    }
    assert not loaded & {"lmdb", "nacl", "msgspec", "numpy", "platformdirs"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "there is no command 'nonsense'"),
        (["snapshosts"], "perhaps 'snapshots' was meant"),
        (["ls", "--nonsense"], "No such option: --nonsense; see 'dstore ls --help'"),
        (["restore"], "Give --target DIR, or --to-mongo URI"),
        (["restore", "--target", "x", "--overwrite", "maybe"], "'maybe' is not one of"),
        (["snapshots"], "no repository was named"),
        (["key"], "see 'dstore key --help'"),
        (["-r", "/r", "ls", "relative", "path"], "write it from the root"),
    ],
)
def test_usage_errors_end_in_one_sentence_and_status_2(arguments: list[str], sentence: str) -> None:
    done = run(*arguments, DSTORE_PASSWORD="x")
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_global_options_go_before_and_after_the_command() -> None:
    assert run("--json", "version").stdout.startswith('{"dstore":')
    assert run("version", "--json").stdout.startswith('{"dstore":')
    assert not run("version").stdout.startswith("{")


def test_no_colors_and_no_rich_where_there_is_no_terminal() -> None:
    assert "\x1b" not in run("version").stdout


def test_a_reader_that_went_away_is_no_news() -> None:
    line = f"{sys.executable} -m cli completion bash | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in {"0", "1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_a_service_managers_stop_say_what_is_kept(tmp_path: Path, number: signal.Signals) -> None:
    # The password command is as good a place to wait as any.
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "-r", str(tmp_path), "--password-command",
         f"sh -c 'echo > {ready}; exec sleep 60'", "snapshots"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    ready.read_bytes()
    os.killpg(process.pid, number)  # as a terminal and a service manager do: to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("dstore: interrupted; what was stored or written is kept")


def complete(words: list[str]) -> list[str]:
    script = SCRIPTS["bash"](DESCRIBED)
    quoted = " ".join(f"'{word}'" for word in words)
    call = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _dstore"
    probe = f"{script}\n{call}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices() -> None:
    assert complete(["dstore", "sna"]) == ["snapshot", "snapshots"]
    assert complete(["dstore", "-r", "/x", "ke"]) == ["key"]
    assert set(complete(["dstore", "key", ""])) >= {"list", "add", "remove", "export"}
    assert complete(["dstore", "key", "add", "--new-password-f"]) == ["--new-password-file"]
    assert complete(["dstore", "restore", "--overwrite", "keep"]) == ["keep-both"]
    assert complete(["dstore", "ls", "--rec"]) == ["--recursive"]
    assert complete(["dstore", "--password-file", "/etc/hostn"]) == ["/etc/hostname"]


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_every_shell_knows_every_command_and_option(shell: str) -> None:
    script = SCRIPTS[shell](DESCRIBED)
    for one in DESCRIBED:
        assert all(word in script for word in one.words)
        for flag in one.flags:
            assert all(name.lstrip("-") in script for name in flag.names)
