"""Signals: the first asks the run to stop in order, a second one ends it at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .exitcodes import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install() -> None:
    """Turn Ctrl-C, a service manager's stop and a closed terminal into `KeyboardInterrupt`."""
    for number in SIGNALS:
        # What the parent set to be ignored stays so: nohup and background jobs rely on it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _first)


@contextmanager
def asking(stop: Callable[[], None]) -> Iterator[None]:
    """Inside the block let the first signal call ``stop`` and nothing else; a second one ends the run."""

    def first(_number: int, _frame: FrameType | None) -> None:
        for number in SIGNALS:
            signal.signal(number, _second)
        stop()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first(_number: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:
        signal.signal(number, _second)
    raise KeyboardInterrupt


def _second(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
