"""A server's log that a test holds in its hands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from dedupstore.sources.oplog.position import Position, Ts, header_of
from tests.unit.documents.log_samples import SERVER, positions


@dataclass(frozen=True)
class ListBroken:
    rolled_back: bool
    wanted: Position
    oldest: Position | None


@dataclass
class ListServer:
    """A log that a test holds in its hands; `steps` are done one by one whenever somebody waits for more."""

    entries: list[bytes]
    steps: list[Callable[[], object]] = field(default_factory=list)
    opened: list[Position] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=lambda: dict(SERVER))
    counted: Position | None = None
    """How far it says that it has come, where that is no entry."""

    def follow(self, start: Position, *, exact: bool) -> "ListLog":
        self.opened.append(start)
        return ListLog(self, start, exact)

    def oldest(self) -> Position | None:
        return header_of(self.entries[0])[0] if self.entries else None

    def newest(self) -> Position:
        last = header_of(self.entries[-1])[0]
        return last if self.counted is None else max(last, self.counted)

    def has_entries(self, after: Ts, until: Ts) -> bool:
        return any(after < place.ts <= until for place in positions(self.entries))

    def common(self, known: Sequence[Position]) -> Position | None:
        there = set(positions(self.entries))
        return next((one for one in reversed(known) if one in there), None)

    def step(self) -> None:
        if not self.steps:
            pytest.fail("nothing is left to happen and nobody has stopped")
        self.steps.pop(0)()


class ListLog:
    def __init__(self, server: ListServer, start: Position, exact: bool) -> None:
        self._server = server
        self._start = start
        self._exact = exact
        self._last: Position | None = None
        self.broken: ListBroken | None = None

    def poll(self, wait: float) -> list[bytes]:
        entries = self._server.entries
        if self._last is None:
            self._begin()
            if self.broken is not None:
                return []
            found = [one for one in entries if header_of(one)[0].ts >= self._start.ts]
        else:
            found = [one for one in entries if header_of(one)[0].ts > self._last.ts]
        if found:
            self._last = header_of(found[-1])[0]
        else:
            self._server.step()
        return found

    def _begin(self) -> None:
        oldest = self._server.oldest()
        places = positions(self._server.entries)
        if oldest is None or oldest.ts > self._start.ts:
            self.broken = ListBroken(False, self._start, oldest)
        elif self._exact and self._start not in places:
            self.broken = ListBroken(True, self._start, oldest)

    def close(self) -> None:
        pass
