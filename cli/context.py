"""From settings to an open repository, and from what a command was told to the snapshot it means."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

import typer

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import RepositoryNotFound, UsageError
from dedupstore.findings import Finding
from dedupstore.ids import SnapshotId, short
from dedupstore.model import Snapshot
from dedupstore.objectstore.url import open_store
from dedupstore.repository.keyring import Keyring, unlock
from dedupstore.repository.repository import Repository
from dedupstore.tree.select import Entry, parse_time, select

from .localzone import LOCAL_ZONE
from .render import Output, counted, instant, instant_shown, note
from .secrets import read_secret
from .settings import Settings, settings_of

SLICES: Final = "oplog"
"""Kind of the snapshots that hold slices of a log."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which snapshot a command line means: its positional text, ``--at``, and what narrows the choice."""

    text: str | None = None
    at: str | None = None
    host: str | None = None
    tags: tuple[str, ...] = ()
    paths: tuple[bytes, ...] = ()
    """Only snapshots that hold these come into question, unless an id was given."""


@dataclass(frozen=True, slots=True)
class Front:
    """One run of a command: what the user said and where answers go."""

    settings: Settings
    output: Output

    @classmethod
    def of(cls, ctx: typer.Context) -> Self:
        """Return the front of the command that runs in ``ctx``."""
        settings = settings_of(ctx)
        return cls(settings, Output(settings.json, settings.quiet, settings.color))

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """Open the repository that the settings name, and close it after use."""
        with self.unlocked() as (repository, _):
            yield repository

    @contextmanager
    def unlocked(self) -> Iterator[tuple[Repository, Keyring]]:
        """As `repository`, with the keyring: for commands that change key slots."""
        url = self.settings.repository_url()
        with closing(open_store(url)) as store:
            secret = read_secret(self.settings)
            try:
                repository, keyring = unlock(store, secret, cache=self.settings.cache, clock=SYSTEM_CLOCK)
            except RepositoryNotFound as error:
                raise no_repository(url) from error
            with repository:
                yield repository, keyring

    def pick(self, repository: Repository, wanted: Wanted) -> Entry:
        """Return the snapshot that is meant; raises `NotFoundError` or `UsageError`."""
        if wanted.text is not None and wanted.at is not None:
            raise UsageError(f"--at takes the place of a snapshot: leave {wanted.text!r} or --at out")
        text = wanted.text or "latest"
        entries = self.snapshots(repository)
        if text.startswith("latest"):
            # Slices of a log are no state of anything: they are taken by their ids, or replayed.
            entries = [entry for entry in entries if entry[1].source.kind != SLICES]
        return select(
            entries,
            text,
            at=None if wanted.at is None else read_until(wanted.at),
            host=wanted.host,
            paths=wanted.paths,
            tags=wanted.tags,
        )

    def snapshots(self, repository: Repository) -> list[Entry]:
        """Return all snapshots that open; the others are told of, lest the list look complete."""
        entries = repository.snapshots()
        for finding in damaged_snapshots(repository):
            self.tell(finding)
        return entries

    def doubts(self, repository: Repository, wanted: Wanted) -> list[Finding]:
        """Return the snapshots that `pick` could not open, if one of them may be what was wanted."""
        by_place = wanted.text is None or wanted.text.startswith("latest")
        found = damaged_snapshots(repository) if by_place else []
        if found:
            note(f"{counted(len(found), 'snapshot')} can not be opened and may be what was meant: see above")
        return found

    def say(self, text: str) -> None:
        """Tell people something beside the answer, on standard error; --quiet and --json leave it out."""
        if not self.settings.quiet and not self.settings.json:
            note(text)

    def tell(self, finding: Finding) -> None:
        """Tell of a finding on standard error, where it can not get into the answer."""
        note(f"{finding.where}: {finding.error}")


def no_repository(url: str) -> RepositoryNotFound:
    """Return the error for a place that holds none."""
    return RepositoryNotFound(
        f"there is no repository at {url}: correct --repo or DSTORE_REPO, "
        "or make one there with 'dstore init'",
        url=url,
    )


def damaged_snapshots(repository: Repository) -> list[Finding]:
    """Return the snapshots that the last listing met and could not open."""
    return [Finding(name, error) for name, error in repository.damaged]


def read_time(text: str) -> datetime:
    """Read an instant as the user wrote it, in this machine's zone if it names none."""
    return parse_time(text, SYSTEM_CLOCK.now(), LOCAL_ZONE)


def read_until(text: str) -> datetime:
    """As `read_time`, for the end of a span: a time without a fraction means all of its second.

    Listings show whole seconds, so the time they show of a snapshot must find that snapshot.
    """
    found = read_time(text)
    return found if found.microsecond else found + timedelta(microseconds=999_999)


def split_arguments(arguments: Sequence[str]) -> tuple[str | None, tuple[bytes, ...]]:
    """Tell SNAPSHOT from PATH: what begins with a slash is a path, and a snapshot can only come first."""
    text = None
    if arguments and not arguments[0].startswith("/"):
        text, arguments = arguments[0], arguments[1:]
    return text, split_paths(arguments)


def split_paths(arguments: Sequence[str]) -> tuple[bytes, ...]:
    """Return paths inside a snapshot; raises `UsageError` for one that does not begin at the root."""
    for argument in arguments:
        if not argument.startswith("/"):
            raise UsageError(
                f"{argument!r} is no path inside a snapshot: write it from the root, with a slash first"
            )
    return tuple(argument.encode("utf-8", "surrogateescape") for argument in arguments)


def named_folder(text: str) -> Path:
    """Return the folder that an option names; an empty text, mostly an unset variable, is refused."""
    if not text:
        raise UsageError(
            "an empty --target names nothing (an unset variable?): write . for the current folder"
        )
    return Path(text)


def taken(identifier: SnapshotId, snapshot: Snapshot) -> str:
    """Return which snapshot and instant was taken, for people."""
    return f"snapshot {short(identifier)} of {instant_shown(snapshot.time)} from {snapshot.host}"


def taken_fields(identifier: SnapshotId, snapshot: Snapshot) -> dict[str, object]:
    """Return which snapshot and instant was taken, for JSON."""
    return {"snapshot": identifier.hex(), "at": instant(snapshot.time)}
