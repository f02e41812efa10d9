"""How far a load has come, in a small file, so that one that was interrupted can be gone on with.

JSON: ``{"version": 1, "job": ..., "done": [namespace, ...], "upto": {namespace: _id in hex}}``.
``job`` says what is loaded where; a file of another job is refused. Written as a new file and renamed, at
most once a second and at the end. It holds ``_id`` values in plain text.
"""

import contextlib
import os
import threading
from pathlib import Path

import msgspec

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.errors import TargetError, UsageError

_VERSION = 1
_EVERY = 1.0


class _Stored(msgspec.Struct):
    version: int
    job: str
    done: list[str]
    upto: dict[str, str]


class LoadState:
    """The progress of one load; any thread. Without a path it lives in memory alone."""

    def __init__(
        self, path: Path | None, job: str, clock: Clock = SYSTEM_CLOCK, *, anew: bool = False
    ) -> None:
        """``job``: what is loaded and where to, in words that are equal when it is the same.

        ``anew``: whatever an earlier run left does not count, and stays until the first `save`.
        Raises `UsageError` if the file is of another job or is none, `TargetError` if it can not be read.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._written = clock.monotonic()
        self._stored = _Stored(_VERSION, job, [], {})
        self.resumed = False
        """Whether an earlier run left something."""
        self.passed_over = anew and path is not None and path.exists()
        """Whether an earlier run left something that does not count."""
        if path is not None and not anew:
            self._read(path)

    def is_done(self, namespace: str) -> bool:
        """Say whether all documents of a collection are written."""
        return namespace in self._stored.done

    def upto(self, namespace: str) -> bytes:
        """Return the identity up to which a collection is written; ``b""`` if none is."""
        return bytes.fromhex(self._stored.upto.get(namespace, ""))

    def began(self, namespace: str) -> None:
        """Note that a collection exists and may hold something from now on; kept once `save` was called."""
        with self._lock:
            if namespace not in self._stored.done:
                self._stored.upto.setdefault(namespace, "")

    def has_begun(self, namespace: str) -> bool:
        """Say whether an earlier run has begun with a collection."""
        return namespace in self._stored.upto or namespace in self._stored.done

    def reached(self, namespace: str, identity: bytes) -> None:
        """Note that everything up to an ``_id`` is written."""
        with self._lock:
            self._stored.upto[namespace] = identity.hex()
            self._write_at_times()

    def finished(self, namespace: str) -> None:
        """Note that all documents of a collection are written."""
        with self._lock:
            self._stored.upto.pop(namespace, None)
            self._stored.done.append(namespace)
            self._write_at_times()

    def save(self) -> None:
        """Write what is known now: before an end that is none."""
        with self._lock:
            self._write()

    def remove(self) -> None:
        """Forget it: the load is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self, path: Path) -> None:
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TargetError(f"{path} can not be read ({error.strerror}): check its permissions") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is no record of a restore: name another file") from error
        if stored.version != _VERSION or stored.job != self._stored.job:
            raise UsageError(f"{path} is of another restore: finish that one, or name another file")
        self._stored = stored
        self.resumed = True

    def _write_at_times(self) -> None:
        """Write if that was long ago: a run that knows less only writes some documents once more."""
        if self._clock.monotonic() - self._written >= _EVERY:
            self._write()

    def _write(self) -> None:
        self._written = self._clock.monotonic()
        if self._path is None:
            return
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(self._stored))
            os.replace(fresh, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise TargetError(
                f"how far the restore has come can not be written to {self._path} ({error.strerror}): free "
                "space there or name another file"
            ) from error
