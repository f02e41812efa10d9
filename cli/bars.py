"""The progress bar, on standard error of a terminal. Loaded only when one is shown."""

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console, RenderableType
from rich.text import Text

from dedupstore.errors import DedupstoreError

from .render import Output, size_shown

_REFRESH = 8
"""Times a second."""


class _Amount(rich.progress.ProgressColumn):
    """How much is done, and of how much if that is known."""

    def render(self, task: rich.progress.Task) -> Text:
        """Return the text."""
        total = "" if task.total is None else f" of {size_shown(int(task.total))}"
        return Text(size_shown(int(task.completed)) + total)


class _Rate(rich.progress.ProgressColumn):
    """Bytes a second, in the same units as everywhere else."""

    def render(self, task: rich.progress.Task) -> Text:
        """Return the text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{size_shown(int(speed))}/s")


class _Pulled(rich.progress.Progress):
    """A bar that asks for the count when it draws, so that counting costs the workers next to nothing."""

    def __init__(self, bar: "Bar", console: Console) -> None:
        self._bar = bar
        super().__init__(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            _Amount(),
            _Rate(),
            rich.progress.TextColumn("{task.fields[files]} files"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            refresh_per_second=_REFRESH,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Take the present count, then draw."""
        self._bar.pull()
        return super().get_renderables()


class Bar:
    """Shows bytes, rate, files and time left. A `Reporter`; its methods may be called from any thread."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._console = Console(stderr=True, no_color=not output.color, highlight=False)
        self._lock = threading.Lock()
        self._task: rich.progress.TaskID | None = None
        self._items = 0
        self._size = 0
        self._progress = _Pulled(self, self._console)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._progress.stop()

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """Begin a bar for this job in place of the one before."""
        label = job if items is None else f"{job} ({items} files)"
        with self._lock:
            before, self._items, self._size = self._task, 0, 0
            self._task = None
        if before is not None:
            self._progress.remove_task(before)
        task = self._progress.add_task(label, total=size, files=0)
        with self._lock:
            self._task = task

    def advanced(self, items: int, size: int) -> None:
        """Count."""
        with self._lock:
            self._items += items
            self._size += size

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Write it above the bar."""
        self._output.finding(where, error)

    def finished(self, summary: object) -> None:
        """Leave the bar until the end: the command shows the summary."""

    def pull(self) -> None:
        """Bring the bar to the present count; called by the thread that draws."""
        with self._lock:
            task, items, size = self._task, self._items, self._size
        if task is not None:
            self._progress.update(task, completed=size, files=items)
