import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cli import render
from cli.entries import entry_fields, entry_line
from cli.render import Column, Output
from dedupstore.errors import SourceVanished
from dedupstore.model import Node, NodeKind


def test_instants_are_utc_with_z_whatever_zone_they_come_in() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert render.instant(datetime(2026, 11, 1, 15, 0, tzinfo=there)) == "2026-11-01T09:30:00Z"
    assert render.instant(datetime(2026, 11, 1, 9, 30, 0, 5, UTC)) == "2026-11-01T09:30:00.000005Z"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"),
        (1 << 70, f"@{(1 << 70) // 10**9}"),
    ],
)
def test_file_times_lose_nothing(time: int, text: str) -> None:
    assert render.nanoseconds(time) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert render.size_shown(size) == text


def test_plain_tables_line_up_and_end_without_spaces() -> None:
    text = render.aligned([Column("id"), Column("n", right=True)], [("a", "10"), ("bcd", "9")])
    assert text == "id    n\na    10\nbcd   9\n"


def test_a_name_that_is_not_utf8_can_be_had_back_from_json() -> None:
    assert render.path_fields("/ä\n".encode()) == {"path": "/ä\n"}
    assert render.path_fields(b"/\xff") == {"path": "/\\xff", "path_base64": "L/8="}


def test_an_array_is_one_document_however_long(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    output = Output(json=True)
    output.array(iter([]))
    output.array({"n": n} for n in range(1000))
    empty, _, rest = capfdbinary.readouterr().out.partition(b"\n")
    assert json.loads(empty) == []
    assert [one["n"] for one in json.loads(rest)] == list(range(1000))


def test_text_is_silent_under_json_and_json_without(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.line("x")
    output.remark("x")
    output.table([Column("x")], [["y"]])
    assert capsys.readouterr().out == ""
    output = Output(quiet=True)
    output.document({"a": 1})
    output.event("summary", {})
    output.remark("x")
    assert capsys.readouterr().out == ""
    output.line("answer")
    assert capsys.readouterr().out == "answer\n"


def test_a_finding_names_the_place_once(capsys: pytest.CaptureFixture[str]) -> None:
    Output().finding("/a", SourceVanished("/a is gone"))
    Output().finding("/a", SourceVanished("it is gone"))
    assert capsys.readouterr().err == "dstore: /a is gone\ndstore: /a: it is gone\n"


def test_an_entry_has_the_promised_fields() -> None:
    node = Node(b"x", NodeKind.SYMLINK, mode=0o777, uid=1, gid=2, mtime=10**9, size=0, target=b"y\xff")
    fields = entry_fields(b"/d/x", node)
    assert {"path", "type", "size", "mode", "mtime", "uid", "gid"} <= fields.keys()
    assert fields["type"] == "symlink"
    assert fields["mtime"] == "1970-01-01T00:00:01Z"
    line = entry_line(b"/d/x", node, long=True)
    assert line.startswith("lrwxrwxrwx")
    assert line.endswith("/d/x -> y\\xff")


@pytest.mark.parametrize("kind", list(NodeKind))
def test_every_kind_of_entry_has_a_name_and_a_letter(kind: NodeKind) -> None:
    node = Node(b"x", kind, mode=0o644)
    assert entry_fields(b"/x", node)["type"] != "unknown"
    assert entry_line(b"/x", node, long=True)[0] != "?"


def test_control_characters_in_names_do_not_reach_the_terminal() -> None:
    line = entry_line(b"/a\x1b[31m\n", Node(b"x", NodeKind.FILE), long=False)
    assert line.isprintable()
