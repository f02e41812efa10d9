"""A repository that a key file opens, and the program that works on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dedupstore.format.keys import format_key_file
from dedupstore.objectstore.url import open_store
from dedupstore.repository.repository import Repository
from tests.support import repos
from tests.support.program import Program


@dataclass(frozen=True)
class Place:
    """A folder with a repository in it."""

    folder: Path
    program: Program

    @contextmanager
    def open(self) -> Iterator[Repository]:
        """The repository, for putting things into it by hand."""
        with repos.reopen(
            open_store(str(self.folder / "repository")), self.folder / "cache" / "dstore"
        ) as repo:
            yield repo


@pytest.fixture
def place(tmp_path: Path) -> Place:
    url = str(tmp_path / "repository")
    with repos.create(open_store(url, create=True), tmp_path / "cache" / "dstore") as repo:
        (tmp_path / "key").write_text(format_key_file(repos.KEY, repo.id))
    environ = {
        "DSTORE_REPO": url,
        "DSTORE_KEY_FILE": str(tmp_path / "key"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TZ": "UTC",
    }
    return Place(tmp_path, Program(environ))
