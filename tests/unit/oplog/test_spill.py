"""Sorted runs in temporary files: found again by key, few of them, none left behind."""

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dedupstore.errors import SourceError, StoreFull
from dedupstore.sources.oplog.spill import FAN, Runs


def joined(_: bytes, payloads: Sequence[bytes]) -> bytes:
    return b"+".join(payloads)


def test_what_was_added_is_found_by_key(tmp_path: Path) -> None:
    runs = Runs(tmp_path, joined)
    runs.add([(b"a", b"1"), (b"c", b"1"), (b"e", b"")])
    runs.add([(b"b", b"2"), (b"c", b"2")])
    assert list(runs.scan(b"", b"\xff")) == [
        (b"a", [b"1"]),
        (b"b", [b"2"]),
        (b"c", [b"1", b"2"]),
        (b"e", [b""]),
    ]
    assert list(runs.scan(b"b", b"c")) == [(b"b", [b"2"])]
    assert list(runs.scan(b"c", b"c\0")) == [(b"c", [b"1", b"2"])]
    assert list(runs.scan(b"x", b"y")) == []
    runs.close()
    runs.close()
    assert list(runs.scan(b"", b"\xff")) == []


def test_runs_stay_few(tmp_path: Path) -> None:
    runs = Runs(tmp_path, joined)
    for number in range(FAN * FAN + FAN + 3):
        runs.add([(b"same", b"%d" % number), (b"z%d" % number, b"")])
        assert len(runs) < 3 * FAN
    assert len(runs) == 1 + 1 + 3
    ((key, payloads),) = runs.scan(b"same", b"same\0")
    assert key == b"same"
    assert b"+".join(payloads) == b"+".join(b"%d" % number for number in range(FAN * FAN + FAN + 3))
    assert sum(1 for _ in runs.scan(b"z", b"\xff")) == FAN * FAN + FAN + 3
    runs.close()


def test_large_and_small_records(tmp_path: Path) -> None:
    records = [(b"%04d" % number, os.urandom(number % 7 * 40_000)) for number in range(60)]
    runs = Runs(tmp_path, joined)
    runs.add(records)
    assert [(key, payload) for key, (payload,) in runs.scan(b"", b"\xff")] == records
    for key, payload in records[::7]:
        assert list(runs.scan(key, key + b"\0")) == [(key, [payload])]
    runs.close()


def test_nothing_lies_in_the_folder(tmp_path: Path) -> None:
    runs = Runs(tmp_path, joined)
    runs.add([(b"a", b"1")])
    assert os.listdir(tmp_path) == []
    runs.close()


def test_an_empty_round(tmp_path: Path) -> None:
    runs = Runs(tmp_path, joined)
    runs.add([])
    assert list(runs.scan(b"", b"\xff")) == []
    runs.close()


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, StoreFull), (errno.EIO, SourceError)])
def test_trouble_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    real = tempfile.TemporaryFile

    def failing(*args: Any, **more: Any) -> Any:
        file = real(*args, **more)
        os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        return file

    def refusing(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "TemporaryFile", failing if number == errno.ENOSPC else refusing)
    with pytest.raises(error):
        Runs(tmp_path, joined).add([(b"a", b"1" * 100)])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="temporary folder"):
        Runs(tmp_path / "none", joined).add([(b"a", b"1")])
