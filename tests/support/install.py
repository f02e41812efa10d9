"""What tests need beside Python, put below ``.servers/`` (never into ``.venv``): `./dev servers` runs this.

* SecantusDB, a MongoDB-compatible server from PyPI, pinned by hash, in a virtual environment of its own;
* the real mongodump, mongorestore and bsondump, built with Go from one commit of their module;
* FerretDB v1, a second server, built with Go (two minutes, once).

Each part is made once; a part that can not be had is skipped aloud, and the reason is kept in
``.servers/<part>.missing`` for the tests to repeat. `--tolerant` (what `./dev test` gives) ends with 0 in any
case and does not try a part again that failed within the last day.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / ".servers"
BIN = HOME / "bin"
PINS = Path(__file__).resolve().parent / "pins"

TOOLS_MODULE = "github.com/mongodb/mongo-tools"
TOOLS_VERSION = "v0.0.0-20260424130528-bbe4099afe32"
"""The 100.16 line by its commit: the tags of that module are not semantic versions."""
TOOLS_NAME = "100.16.x"
TOOLS = ("mongodump", "mongorestore", "bsondump")

RETRY_SECONDS = 24 * 3600
PIP_SECONDS, GO_SECONDS = 300, 900


class Unavailable(Exception):
    """A part can not be had; the message says why, in one line."""


class Refused(Unavailable):
    """Not on this machine, whatever is tried: what it is built with, or where it comes from, is not there."""


REFUSED = "can not be had here: "
"""How the reason of a `Refused` part begins in its file."""


def run(*command: str, cwd: Path, seconds: int, **environment: str) -> None:
    """Run one command quietly; what it said last becomes the reason if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {seconds} s") from None
    if done.returncode:
        said = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        reason = " / ".join(said[-2:]) or f"{command[0]} ended with {done.returncode}"
        # What a module proxy answers for a module that it does not give out.
        gone = any(word in reason for word in ("403 Forbidden", "404 Not Found", "410 Gone"))
        raise (Refused if gone else Unavailable)(reason)


def secantus() -> None:
    """Make the environment and install by hash."""
    folder = HOME / "secantus"
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True, symlinks=True)
    python = str(folder / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    try:
        run(*pip, "--require-hashes", "-r", str(PINS / "secantus.txt"), cwd=HOME, seconds=PIP_SECONDS)
    except Unavailable:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def build(module: Path, package: str, binary: str, *flags: str) -> None:
    """Build one Go package of the module in ``module`` to ``.servers/bin/<binary>``, whole or not at all."""
    if shutil.which("go") is None:
        raise Refused("Go is not on this machine")
    BIN.mkdir(exist_ok=True)
    unfinished = BIN / f".{binary}"
    go = ("go", "build", "-trimpath", *flags, "-o", str(unfinished), package)
    run(*go, cwd=module, seconds=GO_SECONDS, CGO_ENABLED="0")
    unfinished.replace(BIN / binary)


def mongotools() -> None:
    """Build the three tools in a module of ours that requires that one commit.

    `go install PACKAGE@VERSION` would ask the proxy for modules named like the packages first.
    """
    if shutil.which("go") is None:
        raise Refused("Go is not on this machine")
    with tempfile.TemporaryDirectory(dir=HOME) as name:
        module = Path(name)
        (module / "go.mod").write_text("module dedupstore.invalid/tools\n\ngo 1.25.9\n")
        run("go", "get", f"{TOOLS_MODULE}@{TOOLS_VERSION}", cwd=module, seconds=GO_SECONDS)
        for tool in TOOLS:
            flags = ("-mod=mod", "-ldflags", f"-X main.VersionStr={TOOLS_NAME}")
            build(module, f"{TOOLS_MODULE}/{tool}/main", tool, *flags)


def ferretdb() -> None:
    """Build the embedded server."""
    build(PINS / "ferretdb", ".", "ferretdb")


PARTS: dict[str, tuple[Callable[[], None], str]] = {
    "secantus": (secantus, hashlib.sha256((PINS / "secantus.txt").read_bytes()).hexdigest()),
    "mongotools": (mongotools, TOOLS_VERSION),
    "ferretdb": (
        ferretdb,
        hashlib.sha256(b"".join(p.read_bytes() for p in sorted((PINS / "ferretdb").iterdir()))).hexdigest(),
    ),
}


def present(part: str) -> bool:
    """Whether a part is there, in the version that is wanted."""
    stamp = HOME / f"{part}.version"
    return stamp.exists() and stamp.read_text().strip() == PARTS[part][1]


def missing(part: str) -> str:
    """Return why a part is not there."""
    reason = HOME / f"{part}.missing"
    return reason.read_text().strip() if reason.exists() else "it was not installed: run ./dev servers"


def tried_lately(part: str) -> bool:
    """Whether it could not be had within the last day."""
    reason = HOME / f"{part}.missing"
    return reason.exists() and time.time() - reason.stat().st_mtime < RETRY_SECONDS


def install(part: str, *, tolerant: bool) -> bool:
    """Bring one part here if it is not; say what was done and whether it is there now."""
    if present(part):
        if not tolerant:
            print(f"servers: {part} is here")
        return True
    if tolerant and tried_lately(part) and not os.environ.get("CI"):
        print(f"servers: {part} is skipped: {missing(part)}")
        return False
    print(f"servers: getting {part}", flush=True)
    make, version = PARTS[part]
    try:
        make()
    except (Unavailable, OSError) as error:
        how = REFUSED if isinstance(error, Refused) else ""
        (HOME / f"{part}.missing").write_text(f"{how}{error}\n")
        print(f"servers: {part} is skipped: {error}")
        return False
    (HOME / f"{part}.missing").unlink(missing_ok=True)
    (HOME / f"{part}.version").write_text(version + "\n")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev servers", description="Get what tests need beside Python.")
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)}; without one: all of them")
    parser.add_argument("--tolerant", action="store_true", help="end well even if something can not be had")
    given = parser.parse_args()
    for part in given.part:
        if part not in PARTS:
            parser.error(f"there is no part {part}")
    HOME.mkdir(exist_ok=True)
    here = [install(part, tolerant=given.tolerant) for part in given.part or PARTS]
    return 0 if given.tolerant or all(here) else 1


if __name__ == "__main__":
    sys.exit(main())
