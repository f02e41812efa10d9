"""dstore beside other backup programs, on a folder of yours, in one run.

For dstore (zstd and lz4) and every peer found on PATH (restic, borg, kopia, rustic): a first snapshot, an
unchanged one, one after 1 % of the files changed, a restore of everything, stored bytes and peak memory.
The programs take turns, so drift of the machine's speed hits all alike; the table gives medians and
ratios. Repositories lie on the same disk, each program runs at its own defaults but for the compression
named.

Before each step the files it reads are read once, so that all find them in memory. The corpus is
copied first, so that files can be changed; nothing of yours is written to.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dedupstore import __version__

PASSWORD = "benchmark"
STEPS = ("first", "unchanged", "changed", "restore")


@dataclass
class Program:
    """How one program does each verb, as argument lists."""

    name: str
    version: str
    init: Callable[[Path], list[list[str]]]
    backup: Callable[[Path, Path], list[str]]
    restore: Callable[[Path, Path], list[str]]
    in_target: bool = False
    """Restores into the folder that it is started in."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Measure:
    seconds: float
    peak_kib: int


def dstore(compression: str, scratch: Path) -> Program:
    command = str(Path(sys.executable).with_name("dstore"))
    environment = {
        "DSTORE_PASSWORD": PASSWORD,
        "XDG_CACHE_HOME": str(scratch / f"cache-dstore-{compression}"),
    }

    def opened(repo: Path) -> list[str]:
        return [command, "--key-file", f"{repo}.key", "-r", str(repo), "--quiet"]

    return Program(
        f"dstore {compression}",
        f"dstore {__version__}",
        lambda repo: [
            [command, "-r", str(repo), "init", "--compression", compression, "--recovery-key", f"{repo}.key"]
        ],
        lambda repo, source: [*opened(repo), "snapshot", str(source)],
        lambda repo, target: [*opened(repo), "restore", "latest", "--target", str(target)],
        environment=environment,
    )


def restic(scratch: Path) -> Program:
    environment = {"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(scratch / "cache-restic")}
    return Program(
        "restic",
        first_line(["restic", "version"]),
        lambda repo: [["restic", "-r", str(repo), "-q", "init"]],
        lambda repo, source: ["restic", "-r", str(repo), "-q", "backup", str(source)],
        lambda repo, target: ["restic", "-r", str(repo), "-q", "restore", "latest", "--target", str(target)],
        environment=environment,
    )


def borg(scratch: Path) -> Program:
    environment = {
        "BORG_PASSPHRASE": PASSWORD,
        "BORG_BASE_DIR": str(scratch / "base-borg"),
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }
    return Program(
        "borg",
        first_line(["borg", "--version"]),
        lambda repo: [["borg", "init", "-e", "repokey", str(repo)]],
        lambda repo, source: ["borg", "create", f"{repo}::{{now:%s}}-{time.monotonic_ns()}", str(source)],
        lambda repo, _: ["sh", "-c", f"borg extract '{repo}'::$(borg list --short --last 1 '{repo}')"],
        in_target=True,
        environment=environment,
    )


def kopia(scratch: Path) -> Program:
    config = ["--config-file", str(scratch / "kopia.config")]
    base = f"kopia {' '.join(config)} snapshot"
    pick = "python3 -c 'import json, sys; print(json.load(sys.stdin)[-1][\"id\"])'"
    environment = {
        "KOPIA_PASSWORD": PASSWORD,
        "KOPIA_CACHE_DIRECTORY": str(scratch / "cache-kopia"),
        "KOPIA_CHECK_FOR_UPDATES": "false",
    }
    return Program(
        "kopia",
        first_line(["kopia", "--version"]),
        lambda repo: [
            ["kopia", *config, "repository", "create", "filesystem", "--path", str(repo)],
            ["kopia", *config, "policy", "set", "--global", "--compression", "zstd"],
        ],
        lambda _, source: ["kopia", *config, "snapshot", "create", str(source)],
        lambda _, target: ["sh", "-c", f"{base} restore $({base} list --json | {pick}) '{target}'"],
        environment=environment,
    )


def rustic(scratch: Path) -> Program:
    environment = {"RUSTIC_PASSWORD": PASSWORD, "RUSTIC_CACHE_DIR": str(scratch / "cache-rustic")}
    common = ["rustic", "--log-level", "error", "--no-progress"]
    return Program(
        "rustic",
        first_line(["rustic", "--version"]),
        lambda repo: [[*common, "-r", str(repo), "init"]],
        lambda repo, source: [*common, "-r", str(repo), "backup", str(source)],
        lambda repo, target: [*common, "-r", str(repo), "restore", "latest", str(target)],
        environment=environment,
    )


def first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        (done.stdout or done.stderr).strip().splitlines()[0] if (done.stdout or done.stderr).strip() else "?"
    )


def found(scratch: Path, wanted: list[str]) -> list[Program]:
    programs = [dstore("zstd", scratch), dstore("lz4", scratch)]
    makers = {"restic": restic, "borg": borg, "kopia": kopia, "rustic": rustic}
    for name, make in makers.items():
        if wanted and name not in wanted:
            continue
        if shutil.which(name) is None:
            print(f"peers: {name} is not installed and is left out", file=sys.stderr)
            continue
        programs.append(make(scratch))
    return programs


def run(command: list[str], program: Program, cwd: Path) -> Measure:
    """Run one command; its seconds and the peak memory of its largest process."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=cwd, env=os.environ | program.environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise SystemExit(f"peers: {' '.join(command)} ended with {process.returncode}:\n{said}")
    return Measure(seconds, usage.ru_maxrss)


def change(folder: Path, every: int) -> int:
    """Append a line to one file in ``every``; returns how many."""
    changed = 0
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[::every]:
        with path.open("ab") as file:
            file.write(b"\nchanged\n")
        changed += 1
    return changed


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def settle(warm: Path | None = None) -> None:
    """Let the disk come to rest, and have every file of a folder in memory, whoever comes next."""
    os.sync()
    time.sleep(1)
    if warm is not None:
        subprocess.run(["tar", "-C", str(warm), "-cf", "-", "."], stdout=subprocess.DEVNULL, check=True)


def measure(
    programs: list[Program], source: Path, scratch: Path, rounds: int, check: bool
) -> dict[str, dict[str, list[float]]]:
    rows: dict[str, dict[str, list[float]]] = {
        p.name: {key: [] for key in (*STEPS, "stored", "stored after", "peak backup", "peak restore")}
        for p in programs
    }
    for number in range(rounds):
        # Everything of a round stays until its end: a file system that still discards what was just deleted
        # (and ext4, which passes over inodes freed in the last half minute) would slow whoever comes next.
        place = scratch / f"round-{number + 1}"
        place.mkdir()
        work = place / "corpus"
        subprocess.run(["cp", "-a", str(source), str(work)], check=True)
        repos = {p.name: place / f"repo-{p.name.replace(' ', '-')}" for p in programs}
        for program in programs:
            for command in program.init(repos[program.name]):
                run(command, program, scratch)
        for step in ("first", "unchanged", "changed"):
            if step == "changed":
                change(work, 100)
            for program in programs:
                settle(work)
                measured = run(program.backup(repos[program.name], work), program, scratch)
                row = rows[program.name]
                row[step].append(measured.seconds)
                if step == "first":  # the others need less, and would pull the median down
                    row["peak backup"].append(measured.peak_kib / 1024)
                if step != "unchanged":
                    stored = "stored" if step == "first" else "stored after"
                    row[stored].append(size_of(repos[program.name]) / 1e6)
                print(
                    f"  round {number + 1}: {program.name} {step} {measured.seconds:.2f} s", file=sys.stderr
                )
        for program in programs:
            target = place / f"restored-{program.name.replace(' ', '-')}"
            target.mkdir()
            settle(repos[program.name])
            command = program.restore(repos[program.name], target)
            measured = run(command, program, target if program.in_target else scratch)
            rows[program.name]["restore"].append(measured.seconds)
            rows[program.name]["peak restore"].append(measured.peak_kib / 1024)
            print(f"  round {number + 1}: {program.name} restore {measured.seconds:.2f} s", file=sys.stderr)
            if check and program.name.startswith("dstore"):
                exact(work, target / str(work).lstrip("/"))
        about = {
            "files": sum(1 for path in work.rglob("*") if not path.is_dir()),
            "megabytes": size_of(work) / 1e6,
        }
        rows["corpus"] = {key: [float(value)] for key, value in about.items()}
        shutil.rmtree(place)
        if number + 1 < rounds:
            time.sleep(60)
    return rows


def exact(source: Path, restored: Path) -> None:
    """Compare bytes and metadata; stop the benchmark if anything differs."""
    done = subprocess.run(
        ["rsync", "-aHAXn", "--checksum", "--delete", "--itemize-changes", f"{source}/", f"{restored}/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if done.stdout.strip():
        raise SystemExit(f"peers: the restored tree differs:\n{done.stdout[:2000]}")


def machine() -> dict[str, str]:
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def table(medians: dict[str, dict[str, float]]) -> str:
    columns = [*STEPS, "stored", "stored after", "peak backup", "peak restore"]
    units = {
        **dict.fromkeys(STEPS, "s"),
        "stored": "MB",
        "stored after": "MB",
        "peak backup": "MiB",
        "peak restore": "MiB",
    }
    lines = [
        "| program | " + " | ".join(f"{c} ({units[c]})" for c in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    base = medians["dstore zstd"]
    for name, row in medians.items():
        cells = []
        for column in columns:
            text = f"{row[column]:.2f}" if row[column] < 100 else f"{row[column]:.0f}"
            ratio = row[column] / base[column] if base[column] else float("nan")
            cells.append(text if name == "dstore zstd" else f"{text} ({ratio:.2f}×)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what to back up; it is copied first")
    parser.add_argument("--rounds", type=int, default=3, help="runs of everything; the table has medians (3)")
    parser.add_argument(
        "--scratch", type=Path, default=None, help="where copies and repositories go (a temporary folder)"
    )
    parser.add_argument("--only", action="append", default=[], help="this peer only; may be repeated")
    parser.add_argument("--json", type=Path, default=None, help="write figures and machine here")
    parser.add_argument("--markdown", type=Path, default=None, help="write the table here")
    parser.add_argument(
        "--no-check", action="store_true", help="do not compare dstore's restored tree by rsync"
    )
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="dstore-peers-", dir=options.scratch))
    try:
        programs = found(scratch, options.only)
        rows = measure(programs, options.folder.resolve(), scratch, options.rounds, not options.no_check)
        corpus = rows.pop("corpus")
        medians = {
            name: {key: statistics.median(values) for key, values in row.items()}
            for name, row in rows.items()
        }
        size = f"{corpus['files'][0]:.0f} files, {corpus['megabytes'][0]:.0f} MB"
        about = machine() | {"corpus": f"{options.folder}: {size}"}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = "\n".join(
        [
            table(medians),
            "",
            "In brackets: that figure over dstore's (zstd) in the same run; above 1 dstore is better.",
            "",
        ]
        + [f"* {key}: {value}" for key, value in about.items()]
        + [f"* {program.name}: {program.version}" for program in programs]
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", "utf-8")
    if options.json:
        options.json.write_text(
            json.dumps({"machine": about, "medians": medians, "runs": rows}, indent=2), "utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
