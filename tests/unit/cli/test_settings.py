from pathlib import Path

import pytest

from cli.settings import Settings, cache_folder
from dedupstore.errors import UsageError


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder({}) == Path("/home/someone/.cache/dstore")
    assert cache_folder({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/dstore")
    # The specification has relative paths ignored.
    assert cache_folder({"XDG_CACHE_HOME": "cache"}) == Path("/home/someone/.cache/dstore")


def test_without_a_repository_the_message_says_how_to_name_one() -> None:
    with pytest.raises(UsageError, match="DSTORE_REPO"):
        Settings().repository_url()
