"""Live servers as the commands need them. Imports the driver, so it is imported where one is asked for."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import UsageError
from dedupstore.ops.export.export import Outlet
from dedupstore.ops.export.server import EXISTING, ServerTarget, server_outlet
from dedupstore.ops.taillog import MongoLogServer
from dedupstore.repository.repository import Repository
from dedupstore.sources.mongo.address import parse_address
from dedupstore.sources.mongo.client import Deployment, connect
from dedupstore.sources.mongo.dialect import CHANGE_STREAM, ChangeStreamDialect

from .context import Front
from .views import Seen

PATIENCE = 5.0
"""Seconds for which a tail looks for a lost server in silence, before it says so and tries on."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the command line says of a server that is to be loaded."""

    front: Front
    uri: str
    existing: str
    resume: bool
    words: str
    """What is loaded of a view: equal words, equal documents."""

    @property
    def where(self) -> str:
        """The server, for people: without user and password."""
        return parse_address(self.uri).shown

    def outlet(self, repository: Repository, seen: Seen, *, look: bool = False) -> Outlet:
        """Connect; see `server_outlet`. Raises `UsageError` for words that make no sense."""
        if self.existing not in EXISTING:
            raise UsageError(f"--existing {self.existing} is unknown: write {', '.join(EXISTING)}")
        job = f"{seen.id.hex()} at {seen.at} {self.words}"
        state = None if look else self._state(repository, job)
        target = ServerTarget(self.uri, EXISTING[self.existing], state, anew=not self.resume)
        return server_outlet(target, job, SYSTEM_CLOCK, look=look)

    def _state(self, repository: Repository, job: str) -> Path:
        """Return where to keep how far it has come.

        What an earlier run left there is used only if that is wanted: the server may have been emptied since.
        """
        name = blake2b(f"{job} to {self.where}".encode(), digest_size=8).hexdigest()
        path = repository.cache_path / f"load-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not self.resume:
            self.front.say(
                "an earlier restore of this broke off: --resume goes on with it, this one begins anew"
            )
        if self.resume and not path.exists():
            self.front.say(
                "no restore of just this into that server has broken off here: this one begins from the start"
            )
        return path


def dialect_named(name: str | None) -> type[ChangeStreamDialect] | None:
    """Return what a server's log is translated by; ``None``: nothing. Raises `UsageError`."""
    if name is None:
        return None
    if name != CHANGE_STREAM:
        raise UsageError(f"--oplog-dialect {name} is unknown: write {CHANGE_STREAM}, or leave it out")
    return ChangeStreamDialect


@contextmanager
def followed_server(uri: str, dialect: str | None) -> Iterator[tuple[Deployment, MongoLogServer]]:
    """Connect to a server whose log is to be followed. Raises what connecting raises."""
    translator = dialect_named(dialect)
    with closing(connect(uri, clock=SYSTEM_CLOCK, patience=PATIENCE)) as deployment:
        yield deployment, MongoLogServer(deployment, translator)
