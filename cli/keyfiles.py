"""Key files on this machine's disk."""

import os
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import DedupstoreError, TargetError
from dedupstore.format.constants import KEY_SIZE
from dedupstore.format.keys import KeyFile, format_key_file
from dedupstore.repository.keyring import Keyring


def add_key_file(keyring: Keyring, path: Path, repository: bytes, label: str) -> str:
    """Make a key, write it to a new file, add a slot for it; return the slot's name.

    In this order: a slot whose key was never written down would open for nobody and stay for ever.
    """
    secret = KeyFile(SYSTEM_CLOCK.random(KEY_SIZE), repository)
    write_key_file(path, secret, repository)
    try:
        return keyring.add(secret, label)
    except DedupstoreError:
        path.unlink(missing_ok=True)  # it opens nothing, and must not be taken for a key that does
        raise


def write_key_file(path: Path, secret: KeyFile, repository: bytes) -> None:
    """Write a key file that only its owner can read; durable on return.

    Raises `TargetError` if it can not be written or a file of that name is there: it may be the only key
    to something else.
    """
    text = format_key_file(secret, repository).encode("ascii")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise TargetError(
            f"key file {path} can not be written ({error.strerror}): name another place",
            path=path,
        ) from error


def check_new(path: Path) -> None:
    """Raise `TargetError` if ``path`` exists or can not be made.

    Now, since a later refusal would leave things half done.
    """
    if os.path.lexists(path):
        raise TargetError(
            f"{path} exists and may be a key that is needed: name a file that does not", path=path
        )
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise TargetError(
            f"key file {path} can not be written: {folder} is no folder that this user may write to; "
            "name another place",
            path=path,
        )
