"""Where the bytes come from: an open descriptor, or a process whose exit decides.

A `ByteFeed` belongs to one thread. Nothing is buffered here; the caller's buffer is filled as far as
bytes come, so only the last piece is short.
"""

import contextlib
import fcntl
import os
import shlex
import subprocess
import threading
from collections.abc import Sequence
from typing import Protocol

from dedupstore.errors import SourceError

_PIPE_SIZE = 1 << 20
_KEPT_WORDS = 4096  # bytes of a failed command's last words that its error repeats
_DRAIN = 65536
_PATIENCE = 5.0  # seconds between asking a command to end and ending it


class ByteFeed(Protocol):
    """Bytes in order, once."""

    def fill(self, view: memoryview) -> int:
        """Fill ``view``; less only at the end, 0 after it. Raises `SourceError`; a failed command too."""
        ...

    def close(self) -> None:
        """Stop; a second call does nothing."""
        ...


class DescriptorFeed:
    """What can be read from a descriptor (standard input); it is not closed."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        _widen(fd)

    def fill(self, view: memoryview) -> int:
        """Fill ``view``; less only at the end."""
        return _fill(self._fd, view, self._name)

    def close(self) -> None:
        """Do nothing: the descriptor is the caller's."""


class CommandFeed:
    """What a command writes to its standard output; it starts at once and gets no input.

    At the end of its output the command is waited for, and an exit status that is not zero raises
    `SourceError` with the last of what it wrote to standard error (bounded). Raises `SourceError` if it
    can not be started. Owns a process and a thread that drains its standard error; close it.
    """

    def __init__(self, argv: Sequence[bytes]) -> None:
        self._name = shlex.join(os.fsdecode(word) for word in argv)
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise SourceError(
                f"the command {self._name} can not be started ({error}): check its name and rights"
            ) from error
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        self._words = bytearray()
        self._listener = threading.Thread(target=self._listen, name="command-stderr", daemon=True)
        self._listener.start()
        _widen(self._fd)

    def fill(self, view: memoryview) -> int:
        """Fill ``view``; at the end of the output, check how the command ended."""
        size = _fill(self._fd, view, self._name)
        if size < len(view):
            self._check_exit()
        return size

    def close(self) -> None:
        """End the command if it still runs, and wait for it."""
        process = self._process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._listener.join(_PATIENCE)  # a grandchild may hold the pipe open for ever
        if process.stdout is not None:
            process.stdout.close()
        if process.stderr is not None and not self._listener.is_alive():
            process.stderr.close()

    def _check_exit(self) -> None:
        status = self._process.wait()
        if not status:
            return
        self._listener.join(_PATIENCE)
        ending = f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
        words = bytes(self._words).decode("utf-8", "replace").strip()
        raise SourceError(
            f"the command {self._name} {ending}, so nothing is stored: repair it and run again"
            + (f"; it said: {words}" if words else ""),
            status=status,
        )

    def _listen(self) -> None:
        assert self._process.stderr is not None
        fd = self._process.stderr.fileno()
        while part := os.read(fd, _DRAIN):
            self._words += part
            del self._words[:-_KEPT_WORDS]


def _fill(fd: int, view: memoryview, name: str) -> int:
    filled = 0
    try:
        while filled < len(view) and (size := os.readv(fd, (view[filled:],))):
            filled += size
    except OSError as error:
        raise SourceError(f"{name} can not be read ({error.strerror}): check where it comes from") from error
    return filled


def _widen(fd: int) -> None:
    """Let a pipe hold more, so that both sides run longer at a stretch."""
    with contextlib.suppress(OSError, AttributeError):  # no pipe, not allowed, not Linux
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
