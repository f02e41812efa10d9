"""What a working command tells while it works: a bar, JSON lines, or nothing until the end."""

import importlib
import sys
import threading
from types import TracebackType
from typing import Protocol, Self

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import DedupstoreError

from .render import Output

_INTERVAL = 1.0
"""Seconds between two progress lines of --json."""


class Progress(Protocol):
    """A `dedupstore.progress.Reporter` that is entered before the work and left after it."""

    def __enter__(self) -> Self:
        """Start showing."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing; the terminal is as it was."""
        ...

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """As `Reporter.started`."""
        ...

    def advanced(self, items: int, size: int) -> None:
        """As `Reporter.advanced`."""
        ...

    def finding(self, where: str, error: DedupstoreError) -> None:
        """As `Reporter.finding`."""
        ...

    def finished(self, summary: object) -> None:
        """As `Reporter.finished`."""
        ...


def progress_for(output: Output) -> Progress:
    """Return what suits this run: lines with --json, a bar on a terminal, else only findings."""
    if output.json:
        return JsonLines(output)
    if sys.stderr.isatty() and not output.quiet:
        bar: Progress = importlib.import_module(".bars", __package__).Bar(output)
        return bar
    return Silent(output)


class Silent:
    """Shows findings and nothing else. Thread-safe."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """Ignore it."""

    def advanced(self, items: int, size: int) -> None:
        """Ignore it."""

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Show it."""
        self._output.finding(where, error)

    def finished(self, summary: object) -> None:
        """Ignore it: the command shows the summary."""


class JsonLines(Silent):
    """Writes ``{"type": "progress", …}`` once a second at most. Thread-safe."""

    def __init__(self, output: Output, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(output)
        self._clock = clock
        self._lock = threading.Lock()
        self._job = ""
        self._items_total: int | None = None
        self._size_total: int | None = None
        self._items = 0
        self._size = 0
        self._since = clock.monotonic()
        self._next = self._since + _INTERVAL

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """Count anew for this job."""
        with self._lock:
            self._job, self._items_total, self._size_total = job, items, size
            self._items = self._size = 0
            self._since = self._clock.monotonic()

    def advanced(self, items: int, size: int) -> None:
        """Count, and write a line if the last one is a second old."""
        with self._lock:
            self._items += items
            self._size += size
            now = self._clock.monotonic()
            if now < self._next:
                return
            self._next = now + _INTERVAL
            fields = {
                "job": self._job,
                "items": self._items,
                "items_total": self._items_total,
                "bytes": self._size,
                "bytes_total": self._size_total,
                "seconds": round(now - self._since, 3),
            }
            self._output.event("progress", fields)

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Write a line for it."""
        with self._lock:
            self._output.finding(where, error)
