"""The command line in this process: what it is told, what it prints, how it ends."""

import gc
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from cli.app import run as run_line
from cli.interrupt import SIGNALS


@dataclass(frozen=True)
class Ran:
    """How one call ended."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def last(self) -> str:
        """The sentence at the end."""
        return self.err.splitlines()[-1] if self.err else ""


@dataclass
class Program:
    """Runs ``dstore`` in this process, against the repository that the environment names."""

    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, status: int | None = 0) -> Ran:
        out, err = io.BytesIO(), io.StringIO()
        stdout = io.TextIOWrapper(out, "utf-8", write_through=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DSTORE_")}
        with (
            _as_it_was(),
            mock.patch.dict(os.environ, clean | self.environ, clear=True),
            mock.patch.object(sys, "stdout", stdout),
            redirect_stderr(err),
        ):
            ended = run_line([str(argument) for argument in arguments])
            stdout.flush()
        found = Ran(ended, out.getvalue(), err.getvalue())
        assert status is None or ended == status, (arguments, found)
        return found

    def text(self, *arguments: str | Path, status: int = 0) -> str:
        return self.run(*arguments, status=status).text

    def error(self, *arguments: str | Path, status: int) -> str:
        return self.run(*arguments, status=status).last

    def json(self, *arguments: str | Path, status: int = 0) -> object:
        return json.loads(self.run("--json", *arguments, status=status).out)

    def rows(self, *arguments: str | Path, status: int = 0) -> list[dict[str, object]]:
        found = self.json(*arguments, status=status)
        assert isinstance(found, list)
        return found

    def summary(self, *arguments: str | Path, status: int = 0) -> dict[str, object]:
        lines = self.run("--json", *arguments, status=status).out.splitlines()
        events: list[dict[str, object]] = [json.loads(line) for line in lines]
        assert {event["type"] for event in events} <= {"progress", "finding", "summary"}
        assert events[-1]["type"] == "summary"
        return events[-1]


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Undo what a program does to its process."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        gc.enable()
