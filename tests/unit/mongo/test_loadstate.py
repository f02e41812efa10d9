"""How far a load has come, on disk."""

from pathlib import Path

import pytest

from dedupstore.errors import UsageError
from dedupstore.sources.mongo.loadstate import LoadState


def test_what_was_noted_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = LoadState(path, "job")
    assert not state.resumed
    state.began("a.b")
    state.began("a.c")
    state.reached("a.b", b"\x10\1\0\0\0")
    state.finished("a.c")
    state.save()

    again = LoadState(path, "job")
    assert again.resumed
    assert again.upto("a.b") == b"\x10\1\0\0\0"
    assert again.is_done("a.c")
    assert again.has_begun("a.b")
    assert again.has_begun("a.c")
    assert not again.has_begun("a.d")
    assert not again.is_done("a.b")


def test_another_restore_is_not_gone_on_with(tmp_path: Path) -> None:
    LoadState(tmp_path / "state", "one").save()
    with pytest.raises(UsageError, match="another restore"):
        LoadState(tmp_path / "state", "two")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"version":1,"job":"j","done":[],"upto":{"a":1}}']
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(UsageError, match="no record"):
        LoadState(tmp_path / "state", "j")


def test_a_record_that_does_not_count_stays_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "state"
    before = LoadState(path, "job", anew=True)
    assert not before.passed_over
    before.finished("a.b")
    before.save()
    anew = LoadState(path, "job", anew=True)
    assert anew.passed_over
    assert not anew.resumed
    assert not anew.is_done("a.b")
    assert LoadState(path, "job").is_done("a.b")
    anew.save()
    assert not LoadState(path, "job").is_done("a.b")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    state = LoadState(tmp_path / "state", "job")
    state.save()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o600
    state.remove()
    assert list(tmp_path.iterdir()) == []
