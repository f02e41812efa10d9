"""What all connections of one server share, and what one connection remembers.

`Service` is anybody's; a `Session` belongs to the thread of its connection.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from dedupstore.clock import Clock
from dedupstore.documents.view import View
from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.work import Pool, Work
from dedupstore.server.mongowire.cursors import BATCH_BYTES, Cursors
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.scram import Credential, Exchange

NEWEST: Final = (8, 2, 0)
"""What a server is passed off as that is newer: from 8.3 on, tools expect buckets under another name."""
OLDEST: Final = (4, 4, 0)
USUAL: Final = (8, 0, 0)
"""Where it is not known what the collections come from."""
AT_ONCE: Final = 16
"""Commands that read documents at a time; others wait."""
FEW: Final = 16
"""Connections up to which an answer may be as long as the protocol lets it."""
_WIRE: Final = (
    ((4, 4), 9),
    ((5, 0), 13),
    ((6, 0), 17),
    ((7, 0), 21),
    ((8, 0), 25),
    ((8, 1), 26),
    ((8, 2), 27),
)


@dataclass(frozen=True, slots=True)
class Version:
    """The version of MongoDB that clients are told."""

    numbers: tuple[int, int, int]

    @classmethod
    def of(cls, text: str) -> "Version":
        """Return that of the server that the collections come from, or the nearest that can be told."""
        parts = text.split("-", maxsplit=1)[0].split(".")
        if len(parts) < 2 or not all(part.isdecimal() and len(part) < 5 for part in parts[:3]):
            return cls(USUAL)
        major, minor, patch = (*map(int, parts[:3]), 0)[:3]
        numbers = (major, minor, patch)
        return cls(OLDEST if numbers < OLDEST else NEWEST if numbers >= (8, 3, 0) else numbers)

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))

    @property
    def wire(self) -> int:
        """The greatest number of the wire protocol that such a server knows."""
        return max(number for least, number in _WIRE if least <= self.numbers[:2])


@dataclass(slots=True)
class Service:
    """One server: what it serves, and what its connections share."""

    view: View
    version: Version
    clock: Clock
    cursors: Cursors
    credential: Credential | None = None
    """Who may ask; None: anybody."""
    host: str = "dstore"
    pool: Pool = field(default_factory=Pool)
    stopping: threading.Event = field(default_factory=threading.Event)
    connections: Callable[[], int] = lambda: 0
    turns: threading.Semaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))
    """Held while documents are read: each reader has some 24 MiB on their way."""
    started: datetime = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.now()
        self.since = self.clock.monotonic()


@dataclass(slots=True)
class Session:
    """One connection."""

    number: int
    service: Service
    gone: Callable[[], bool]
    """Whether the client has left."""
    peer: str = ""
    user: str | None = None
    """Who has proved to be somebody."""
    exchange: Exchange | None = None
    failures: int = 0
    proved: bool = False
    """Whether an exchange waits for the empty message with which old clients end it."""
    skips_empty: bool = False

    @property
    def open(self) -> bool:
        """Whether anything may be asked."""
        return self.service.credential is None or self.user is not None

    @property
    def room(self) -> int:
        """Bytes of documents in one answer: less where there are many clients, since each may have one."""
        return BATCH_BYTES if self.service.connections() <= FEW else BATCH_BYTES // 8

    def work(self, request: Request) -> Work:
        """Return what a new query may use."""
        service = self.service
        return Work(service.pool, service.clock.random, self.watch(request.max_time))

    def watch(self, seconds: float | None) -> Callable[[], None]:
        """Return what raises as soon as a query should not go on."""
        service = self.service
        monotonic = service.clock.monotonic
        until = None if seconds is None else monotonic() + seconds

        def check() -> None:
            gone = self.gone()  # first: an end from our side looks like one from theirs
            if service.stopping.is_set():
                raise QueryError(Failure.InterruptedAtShutdown, "interrupted at shutdown")
            if until is not None and monotonic() > until:
                raise QueryError(Failure.MaxTimeMSExpired, "operation exceeded time limit")
            if gone:
                raise QueryError(Failure.ClientDisconnect, "the client has left")

        return check
