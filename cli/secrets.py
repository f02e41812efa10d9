"""Where the passphrase or key file comes from.

Options of the command line come first, then the environment, then a systemd credential, then a prompt.
Two sources of the same rank contradict each other and are refused rather than ordered.
"""

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dedupstore.errors import UsageError
from dedupstore.format.keys import KeyFile, Passphrase, Secret, parse_key_file

from .settings import Settings

CREDENTIAL = "dstore-password"
_OTHERWISE = (
    "no passphrase: give --password-file, --password-command or --key-file, "
    "or set DSTORE_PASSWORD or DSTORE_KEY_FILE"
)


def read_secret(settings: Settings, environ: Mapping[str, str] = os.environ) -> Secret:
    """Return what opens the repository.

    Raises `UsageError` if sources contradict each other, one can not be read, or there is none and
    nobody to ask.
    """
    if settings.key_file is not None:
        _only_one(settings)
        return key_file_secret(settings.key_file)
    given = passphrase_from_options(settings)
    if given is not None:
        return given
    if environ.get("DSTORE_KEY_FILE"):
        if "DSTORE_PASSWORD" in environ:
            raise UsageError("both DSTORE_PASSWORD and DSTORE_KEY_FILE are set: unset one of them")
        return key_file_secret(Path(environ["DSTORE_KEY_FILE"]))
    return passphrase_from_environment(environ) or ask("Passphrase: ")


def new_passphrase(settings: Settings, environ: Mapping[str, str] = os.environ) -> Passphrase:
    """Return the passphrase of a repository that is about to be made; a prompt asks twice."""
    if settings.key_file is not None:
        raise UsageError(
            "a new repository needs a passphrase: leave --key-file out, and use --recovery-key FILE to "
            "have a key file made as well"
        )
    given = passphrase_from_options(settings) or passphrase_from_environment(environ)
    return given or ask_twice("New passphrase: ")


def another_passphrase(file: Path | None, command: str | None) -> Passphrase:
    """Return one more passphrase for a repository: from a file, a command, or a prompt that asks twice."""
    if file is not None and command is not None:
        raise UsageError("--new-password-file and --new-password-command contradict each other: give one")
    if file is not None:
        return passphrase_file(file)
    return ask_twice("New passphrase: ") if command is None else passphrase_command(command)


def passphrase_from_options(settings: Settings) -> Passphrase | None:
    """Return the passphrase that --password-file or --password-command gives, if one is there."""
    _only_one(settings)
    if settings.password_file is not None:
        return passphrase_file(settings.password_file)
    if settings.password_command is not None:
        return passphrase_command(settings.password_command)
    return None


def passphrase_from_environment(environ: Mapping[str, str]) -> Passphrase | None:
    """Return the passphrase in DSTORE_PASSWORD or in the service's credentials, if one is there."""
    if "DSTORE_PASSWORD" in environ:
        return _passphrase(os.fsencode(environ["DSTORE_PASSWORD"]), "DSTORE_PASSWORD")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder:
        path = Path(folder) / CREDENTIAL
        if path.exists():
            return passphrase_file(path)
    return None


def passphrase_file(path: Path) -> Passphrase:
    """Return the passphrase in a file, without the line end after it."""
    try:
        return _passphrase(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(
            f"password file {path}: {error.strerror}; name a file that this user may read"
        ) from error


def passphrase_command(command: str) -> Passphrase:
    """Run ``command`` (split as a shell would, no shell involved) and return what it prints."""
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    except (OSError, ValueError, IndexError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"password command {command!r} did not work ({error}): run it by hand to see why"
        ) from error
    return _passphrase(done.stdout, "the password command")


def key_file_secret(path: Path) -> KeyFile:
    """Return the key in a key file."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(
            f"key file {path}: {reason}; name a file made by 'dstore key add --key-file'"
        ) from error
    return parse_key_file(text)


def ask(prompt: str, otherwise: str = _OTHERWISE) -> Passphrase:
    """Ask on the terminal; raises `UsageError`, which says what to do ``otherwise``, if there is none."""
    if not sys.stdin.isatty():
        raise UsageError(otherwise)
    return _passphrase(getpass.getpass(prompt).encode("utf-8", "surrogateescape"), "what was typed")


def ask_twice(prompt: str) -> Passphrase:
    """Ask for a new passphrase, and once more so that a slip of the finger locks nobody out."""
    first = ask(prompt)
    if ask("Once more: ") != first:
        raise UsageError("the two passphrases are not the same: run the command again")
    return first


def _passphrase(raw: bytes, where: str) -> Passphrase:
    text = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not text:
        raise UsageError(f"the passphrase from {where} is empty: give one that is not")
    return Passphrase(text)


def _only_one(settings: Settings) -> None:
    named = {
        "--key-file": settings.key_file,
        "--password-file": settings.password_file,
        "--password-command": settings.password_command,
    }
    given = [option for option, value in named.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} contradict each other: give one of them")
