from pathlib import Path
from typing import cast

import pytest

from cli.keyfiles import add_key_file, check_new
from dedupstore.errors import ReadOnlyError, TargetError
from dedupstore.format.keys import KeyFile, parse_key_file
from dedupstore.repository.keyring import Keyring

REPOSITORY = bytes(range(16))


class Slots:
    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.added: list[KeyFile] = []

    def add(self, secret: KeyFile, label: str) -> str:
        if self.full:
            raise ReadOnlyError(f"{label}: mount it writable")
        self.added.append(secret)
        return "ab"


def test_the_file_holds_the_key_that_was_added(tmp_path: Path) -> None:
    slots = Slots(full=False)
    assert add_key_file(cast(Keyring, slots), tmp_path / "key", REPOSITORY, "x") == "ab"
    assert [parse_key_file((tmp_path / "key").read_text())] == slots.added
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_was_not_added_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ReadOnlyError):
        add_key_file(cast(Keyring, Slots(full=True)), tmp_path / "key", REPOSITORY, "x")
    assert not list(tmp_path.iterdir())


def test_a_place_is_checked_before_anything_is_done(tmp_path: Path) -> None:
    check_new(tmp_path / "key")
    (tmp_path / "key").touch()
    for path in (tmp_path / "key", tmp_path / "no" / "key", tmp_path / "key" / "key"):
        with pytest.raises(TargetError):
            check_new(path)
