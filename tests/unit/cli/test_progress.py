import json
import threading
from datetime import UTC, datetime

import pytest

from cli.progress import JsonLines, Silent, progress_for
from cli.render import Output
from dedupstore.errors import SourceVanished


class Ticks:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    def random(self, size: int) -> bytes:
        return bytes(size)


def test_json_lines_come_once_a_second_and_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Ticks()
    report = JsonLines(Output(json=True), clock)
    report.started("data", 10, 1000)
    for _ in range(9):
        clock.seconds += 0.25
        report.advanced(1, 100)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["bytes"] for line in lines] == [400, 800]
    assert lines[0] == {
        "type": "progress",
        "job": "data",
        "items": 4,
        "items_total": 10,
        "bytes": 400,
        "bytes_total": 1000,
        "seconds": 1.0,
    }


def test_lines_of_several_threads_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    report = JsonLines(Output(json=True))

    def tell() -> None:
        for _ in range(50):
            report.finding("/x", SourceVanished("gone"))

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (
        lines
        == [
            {
                "type": "finding",
                "where": "/x",
                "code": "source-vanished",
                "retryable": False,
                "message": "gone",
            }
        ]
        * 200
    )


def test_without_a_terminal_only_findings_show(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for(Output()) as report:
        assert type(report) is Silent
        report.started("data", 1, 1)
        report.advanced(1, 1)
        report.finding("/x", SourceVanished("gone"))
        report.finished(None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "dstore: /x: gone\n"
