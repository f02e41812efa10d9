"""What the driver and the server say, in this package's errors: one table for reading and writing.

Data attributes of what is made here: ``server_code`` (int, 0 if it did not come from the server) and
``transient`` (bool: the same request may succeed on a new connection). No message holds a URI, a user or a
password: what the driver says of a URI may quote any part of it, so that is never passed on.
"""

from pymongo import errors

from dedupstore.errors import (
    AccessError,
    DedupstoreError,
    Interrupted,
    SourceChanged,
    SourceError,
    TargetError,
    UsageError,
)
from dedupstore.findings import printable

NAMESPACE_NOT_FOUND = 26
CURSOR_NOT_FOUND = 43
COMMAND_NOT_FOUND = 59
CAPPED_POSITION_LOST = 136
QUERY_PLAN_KILLED = 175
SNAPSHOT_TOO_OLD = 239
SNAPSHOT_UNAVAILABLE = 246
DUPLICATE_KEY = 11000
NAMESPACE_EXISTS = 48
INVALID_INDEX_OPTION = 197
WRITE_CONCERN_TIMEOUT = 64

_REFUSED = frozenset({13, 18, 33, 8000})
"""Unauthorized, AuthenticationFailed, and what hosted services add."""
_TRANSIENT = frozenset(
    {6, 7, 43, 89, 91, 112, 133, 134, 189, 237, 262, 317, 9001, 10107, 11600, 11602, 13388, 13435, 13436}
)
"""Network, elections, shutdown, a cursor that is gone, a majority that is not there yet."""
_SAID_MAX = 300


def code_of(error: DedupstoreError) -> int:
    """Return the server's code in an error made here; 0 if there is none."""
    code = error.data.get("server_code", 0)
    return code if isinstance(code, int) else 0


def is_transient(error: DedupstoreError) -> bool:
    """Whether the same request may succeed on a new connection."""
    return error.data.get("transient") is True


def failure(
    error: errors.PyMongoError, what: str, address: str, family: type[SourceError | TargetError] = SourceError
) -> DedupstoreError:
    """Return the error to raise when ``what`` (a verb with its object) at ``address`` met ``error``."""
    code = (error.code or 0) if isinstance(error, errors.OperationFailure) else 0
    if isinstance(error, errors.OperationFailure):
        return _of_server(error, what, address, family, code)
    if isinstance(error, errors.ServerSelectionTimeoutError):
        return family(
            f"no server answers at {address}: check the address, TLS options and firewall, and that the set "
            "has a member that the read preference allows",
            server_code=0, transient=True,
        )  # fmt: skip
    if isinstance(error, errors.ConnectionFailure | errors.InvalidOperation):
        # The latter: another thread lost the connection as well, and has closed it to make a new one.
        return family(
            f"the connection to {address} was lost while {what}: check the network and run it again",
            server_code=0, transient=True,
        )  # fmt: skip
    if isinstance(error, errors.ConfigurationError | errors.InvalidURI):
        return UsageError(
            f"the options for {address} do not fit together: check the URI's options", server_code=0
        )
    if isinstance(error, errors.DocumentTooLarge):
        return family(f"a document is larger than {address} takes while {what}: it can not be stored there")
    return family(
        f"{what} at {address} failed with {type(error).__name__}: check the server's log", server_code=0
    )


def _of_server(
    error: errors.OperationFailure,
    what: str,
    address: str,
    family: type[SourceError | TargetError],
    code: int,
) -> DedupstoreError:
    said = _said(error)
    if code == 18:
        return AccessError(
            f"{address} refuses the user and password: check them, and authSource in the URI",
            server_code=code,
        )
    if code in _REFUSED and "requires authentication" in said:
        return AccessError(
            f"{address} asks who is there before it allows {what}: put USER:PASSWORD@ into the URI",
            server_code=code,
        )
    if code in _REFUSED:
        role = "restore" if issubclass(family, TargetError) else "backup"
        return AccessError(
            f"{address} does not allow {what}: give the user the role {role} on admin", server_code=code
        )
    if code == CAPPED_POSITION_LOST:
        return SourceChanged(
            f"{what} at {address} fell behind what is written there: the capped collection is too small, "
            "make it larger or run it again",
            server_code=code,
        )
    return family(
        f"{what} at {address} was answered with {said!r} ({code}): look at the server's log",
        server_code=code, transient=code in _TRANSIENT or error.has_error_label("RetryableWriteError"),
    )  # fmt: skip


def _said(error: errors.OperationFailure) -> str:
    details = error.details or {}
    text = str(details.get("errmsg") or type(error).__name__)
    return printable(text[:_SAID_MAX].encode("utf-8", "replace"))


def bad_uri() -> UsageError:
    """Return the error for a URI that can not be read; it says nothing of what is in it."""
    return UsageError(
        "the MongoDB URI can not be read: it is mongodb://USER:PASSWORD@HOST:PORT/?OPTIONS, and characters "
        "like : / ? # [ ] @ % in the user or password must be written as %XX"
    )


def interrupted(what: str) -> Interrupted:
    """Return the error for work that was asked to stop."""
    return Interrupted(f"{what} was stopped: run it again")
