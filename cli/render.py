"""How values are shown: text for people, ``--json`` for programs; both of the same values.

Everything that goes to standard output passes through an `Output`. Rich is loaded only for a table on
a terminal.
"""

import base64
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding, printable
from dedupstore.model import Data

Fields: TypeAlias = Mapping[str, object]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand to the right."""

    title: str
    right: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """Where the answer of a command goes. Not thread-safe but for `event` and `note`, one write each."""

    json: bool = False
    quiet: bool = False
    color: bool = True

    def document(self, value: object) -> None:
        """With --json: write one document."""
        if self.json:
            self._write(msgspec.json.encode(value) + b"\n")

    def array(self, items: Iterable[Fields]) -> None:
        """With --json: write one array, an element at a time, so that its length does not matter."""
        encode = msgspec.json.encode
        lead = b"["
        for item in items:
            self._write(lead + encode(item))
            lead = b",\n"
        self._write(b"[]\n" if lead == b"[" else b"]\n")

    def event(self, kind: str, fields: Fields) -> None:
        """With --json: write one line of a working command's report and send it on its way."""
        if self.json:
            self._write(msgspec.json.encode({"type": kind, **fields}) + b"\n")
            sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """For people: write one line of the answer."""
        if not self.json:
            sys.stdout.write(text + "\n")

    def remark(self, text: str) -> None:
        """For people: write one line that --quiet leaves out."""
        if not self.json and not self.quiet:
            sys.stdout.write(text + "\n")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """For people: write a table; a rich one on a terminal, aligned text elsewhere."""
        if self.json:
            return
        rows = [[text_shown(cell) for cell in row] for row in rows]
        if sys.stdout.isatty():
            importlib.import_module(".terminal", __package__).show_table(columns, rows, color=self.color)
        else:
            sys.stdout.write(aligned(columns, rows))

    def raw(self, data: Data) -> None:
        """Write bytes as they are (a file's content)."""
        sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Send what was written on its way: for commands that go on for long."""
        sys.stdout.flush()

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Tell of trouble with one thing: a JSON line, or a line on standard error."""
        if self.json:
            self.event("finding", finding_fields(Finding(where, error)))
        else:
            note(f"{where}: {error}" if where and where not in str(error) else str(error))

    @staticmethod
    def _write(data: bytes) -> None:
        # Text and bytes share one buffer; whatever text waits in the upper one has to go first.
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def note(text: str) -> None:
    """Write one line to standard error under the program's name."""
    sys.stderr.write(f"dstore: {text_shown(text)}\n")
    sys.stderr.flush()


def finding_fields(finding: Finding) -> Fields:
    """Return what JSON says of a finding."""
    return {
        "where": finding.where,
        "code": finding.error.code,
        "retryable": finding.error.retryable,
        "message": str(finding.error),
    }


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text: columns two spaces apart, no trailing spaces."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    out = []
    for line in lines:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        out.append("  ".join(cells).rstrip() + "\n")
    return "".join(out)


def path_fields(path: bytes) -> dict[str, object]:
    """Return a path for JSON: as text, and in base64 too where it is not UTF-8."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            "path": path.decode("utf-8", "backslashreplace"),
            "path_base64": base64.b64encode(path).decode("ascii"),
        }


def path_text(path: bytes) -> str:
    """Return a path for JSON lists of paths."""
    return path.decode("utf-8", "backslashreplace")


def path_shown(path: bytes) -> str:
    """Return a path for people: nothing in it can move the cursor or break the line."""
    return printable(path)


def text_shown(text: str) -> str:
    """Return any text for people (a host, a tag, an error), as safe to show as a path."""
    return text if text.isprintable() else printable(text.encode("utf-8", "backslashreplace"))


def counted(count: int, what: str, several: str = "") -> str:
    """Return a number with its noun: ``1 thing``, ``2 things``; ``several`` where an s does not do."""
    return f"{count} {what}" if count == 1 else f"{count} {several or what + 's'}"


def size_shown(size: int) -> str:
    """Return a size in bytes for people, in binary units."""
    value = float(size)
    for unit in _UNITS:
        if abs(value) < 1000 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def instant(time: datetime) -> str:
    """Return an instant as ISO 8601 in UTC with ``Z``."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def instant_shown(time: datetime) -> str:
    """Return an instant for people: local time, to the second, with the offset from UTC."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def nanoseconds(time: int) -> str:
    """Return a file's time (nanoseconds since 1970) as ISO 8601 in UTC with ``Z``, nothing rounded away."""
    seconds, fraction = divmod(time, 1_000_000_000)
    try:
        text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, ValueError, OSError):  # outside the years 1 to 9999: a file may claim anything
        return f"@{seconds}"
    return f"{text}.{fraction:09d}Z" if fraction else f"{text}Z"


def nanoseconds_shown(time: int) -> str:
    """Return a file's time for people: local time, to the second."""
    try:
        return datetime.fromtimestamp(time // 1_000_000_000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"@{time // 1_000_000_000}"


def duration_shown(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"
