from collections.abc import Iterator
from pathlib import Path

import pytest

from dedupstore.repository.repository import Repository
from tests.support import repos


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with repos.reopen(repos.prepared(tmp_path / "cache"), tmp_path / "cache") as found:
        yield found
