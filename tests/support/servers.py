"""Servers and tools for tests: started as processes, waited for, and ended in every case.

A part that is not here is skipped with its reason (`./dev servers` says the same). Where the environment
variable ``CI`` is set such a skip is a failure, but for a part that this machine can not have at all (there
is no Go to build it with, or the module proxy refuses it) and those that ``DSTORE_TEST_WITHOUT`` names.

``DSTORE_TEST_MONGO_URI`` names a real deployment, to which the tests of the `mongo` fixture then go too; they
write to databases whose names begin with ``dstore_test_`` and drop them.
"""

import contextlib
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pymongo
import pytest

from tests.support import install

START_SECONDS = 60
END_SECONDS = 10
REAL = "DSTORE_TEST_MONGO_URI"
PREFIX = "dstore_test_"


@dataclass(frozen=True)
class Server:
    """One server that answers."""

    kind: str
    """``secantus``, ``ferretdb`` or ``real``."""
    uri: str
    pid: int = 0
    log: Path | None = None

    def client(self) -> "pymongo.MongoClient[dict[str, object]]":
        """A client of the caller's own; close it."""
        return pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=10_000)


def unavailable(part: str) -> NoReturn:
    """Skip the test, or fail it in CI, and say why the part is not here."""
    why = install.missing(part)
    reason = f"{part} is not here: {why}"
    wanted = os.environ.get("CI") and not why.startswith(install.REFUSED)
    if wanted and part not in os.environ.get("DSTORE_TEST_WITHOUT", "").split():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def tool(name: str) -> Path:
    """Return the path of mongodump, mongorestore or bsondump; skips if there is none."""
    path = install.BIN / name
    if path.exists():
        return path
    elsewhere = shutil.which(name)
    if elsewhere is None:
        unavailable("mongotools")
    return Path(elsewhere)


@contextlib.contextmanager
def process(command: list[str], says: str, folder: Path, *, gently: bool) -> Iterator[tuple[str, int, Path]]:
    """Run a server in a session of its own until the end of the block; yields what it said and its pid.

    ``says`` is the pattern whose first group is wanted from its output. Only a server whose data are wanted
    afterwards is ended ``gently``: that takes it seconds.
    """
    log = folder / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield _said(child, log, says), child.pid, log
    finally:
        _end(child, gently=gently)


def _said(child: "subprocess.Popen[bytes]", log: Path, says: str) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        found = re.search(says, log.read_text(errors="replace"))
        if found:
            return found[1]
        if child.poll() is not None:
            break
        select.select([], [], [], 0.02)
    pytest.fail(f"{child.args!r} did not start:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)


def _end(child: "subprocess.Popen[bytes]", *, gently: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM if gently else signal.SIGKILL)
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _answers(server: Server) -> Server:
    with server.client() as client:
        client.admin.command("ping")
    return server


@contextlib.contextmanager
def secantus(*options: str, folder: Path | None = None, port: int = 0) -> Iterator[Server]:
    """Run SecantusDB on loopback for the length of the block, its data in a folder that goes with it.

    With ``folder`` the data stay there, so the next block can start where this one ended; ``options`` are
    those of ``secantusd-py`` (``--auth``, ``--standalone``, ``--oplog-max-entries N`` …).
    """
    if not install.present("secantus"):
        unavailable("secantus")
    program = str(install.HOME / "secantus" / "bin" / "secantusd-py")
    with tempfile.TemporaryDirectory(prefix="secantus-", ignore_cleanup_errors=True) as scratch:
        data = folder or Path(scratch) / "data"
        config = Path(scratch) / "empty.toml"  # else it looks for one in the home folder
        config.touch()
        fixed = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--log-level", "INFO"]
        command = [program, *fixed, "--storage-path", str(data), "--cache-size", "256M", *options]
        says = r"listening on (127\.0\.0\.1:\d+)"
        with process(command, says, Path(scratch), gently=folder is not None) as (address, pid, log):
            yield _answers(Server("secantus", f"mongodb://{address}/?directConnection=true", pid, log))


@contextlib.contextmanager
def ferretdb() -> Iterator[Server]:
    """Run FerretDB v1 over SQLite on loopback for the length of the block."""
    if not install.present("ferretdb"):
        unavailable("ferretdb")
    with tempfile.TemporaryDirectory(prefix="ferretdb-", ignore_cleanup_errors=True) as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        command = [str(install.BIN / "ferretdb"), "127.0.0.1:0", str(data)]
        says = r"mongodb://(127\.0\.0\.1:\d+)"
        with process(command, says, Path(scratch), gently=False) as (address, pid, log):
            yield _answers(Server("ferretdb", f"mongodb://{address}/?directConnection=true", pid, log))


@pytest.fixture(scope="session")
def secantus_server() -> Iterator[Server]:
    """One SecantusDB for all tests of this process: use databases of your own (`database`)."""
    with secantus() as server:
        yield server


@pytest.fixture
def fresh_secantus() -> Iterator[Server]:
    """A SecantusDB of this test's own, empty."""
    with secantus() as server:
        yield server


@pytest.fixture(scope="session")
def ferretdb_server() -> Iterator[Server]:
    """One FerretDB for all tests of this process."""
    with ferretdb() as server:
        yield server


@pytest.fixture(params=["secantus", *(["real"] if os.environ.get(REAL) else [])])
def mongo(request: pytest.FixtureRequest) -> Server:
    """SecantusDB, and then the deployment of ``DSTORE_TEST_MONGO_URI`` where that is set."""
    if request.param == "secantus":
        server: Server = request.getfixturevalue("secantus_server")
        return server
    return _answers(Server("real", os.environ[REAL]))


@pytest.fixture
def database(mongo: Server) -> Iterator[str]:
    """The name of a database that nobody else uses; dropped afterwards."""
    name = PREFIX + secrets.token_hex(6)
    yield name
    with mongo.client() as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def mongodump() -> Path:
    """The real mongodump."""
    return tool("mongodump")


@pytest.fixture(scope="session")
def mongorestore() -> Path:
    """The real mongorestore."""
    return tool("mongorestore")


@pytest.fixture(scope="session")
def bsondump() -> Path:
    """The real bsondump."""
    return tool("bsondump")
