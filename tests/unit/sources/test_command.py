import os
import sys
import threading
import time
from datetime import UTC, datetime

import pytest

from dedupstore.errors import SourceError, UsageError
from dedupstore.model import Node, NodeKind
from dedupstore.sources.base import Stream
from dedupstore.sources.command.source import StreamSource, command_source, stdin_source


class FixedClock:
    """Noon, and bytes that count."""

    def __init__(self) -> None:
        self.drawn = 0

    def now(self) -> datetime:
        return datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def random(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "little")


def python(code: str) -> list[bytes]:
    return [os.fsencode(sys.executable), b"-c", code.encode()]


def opened(source: StreamSource) -> Stream:
    folder = source.top()
    (segment,) = folder.listing()
    (item,) = folder.items(segment)
    assert folder.folders(segment) == []
    assert item.size == -1
    assert folder.read(item, memoryview(bytearray(10)))[1] == -1
    return folder.open(item)


def read(source: StreamSource, step: int = 1000) -> tuple[bytes, Node]:
    stream = opened(source)
    view = memoryview(bytearray(step))
    content = b""
    while n := stream.read_next(view):
        content += view[:n]
    node = stream.finish()
    assert not stream.changed
    source.close()
    return content, node


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 300_000])
def test_output_becomes_one_stream(size: int, descriptors: None) -> None:
    source = command_source(b"dump.sql", python(f"print('x' * {size}, end='')"), clock=FixedClock())
    content, node = read(source)
    assert content == b"x" * size
    assert (node.name, node.kind, node.size, node.mode) == (b"dump.sql", NodeKind.STREAM, size, 0o600)
    assert node.mtime == 1709208000_000005000
    assert (source.spec.kind, source.spec.paths) == ("command", (b"/dump.sql",))
    assert source.all_or_nothing


def test_a_command_that_fails_says_so_at_the_end(descriptors: None) -> None:
    code = "import sys; print('half'); print('no such table', file=sys.stderr); sys.exit(3)"
    source = command_source(b"dump", python(code))
    with pytest.raises(SourceError, match=r"failed with exit status 3, .*; it said: no such table") as caught:
        read(source)
    source.close()
    assert caught.value.data["status"] == 3


def test_a_command_that_is_killed_says_so(descriptors: None) -> None:
    source = command_source(b"dump", [b"/bin/sh", b"-c", b"echo half; kill -9 $$"])
    with pytest.raises(SourceError, match="was ended by signal 9"):
        read(source)
    source.close()


def test_only_the_last_words_of_a_talkative_command_are_kept(descriptors: None) -> None:
    code = "import sys; sys.stderr.write('a' * 500_000 + 'the end'); sys.exit(1)"
    source = command_source(b"dump", python(code))
    with pytest.raises(SourceError, match="the end") as caught:
        read(source)
    source.close()
    assert len(str(caught.value)) < 6000


def test_a_command_that_is_not_there_can_not_be_started(descriptors: None) -> None:
    with pytest.raises(SourceError, match="can not be started"):
        opened(command_source(b"dump", [b"/nonexistent/command"]))


def test_a_command_that_is_given_up_is_ended(descriptors: None) -> None:
    source = command_source(b"dump", python("import time; print('x' * 10, flush=True); time.sleep(600)"))
    stream = opened(source)
    assert stream.read_next(memoryview(bytearray(5))) == 5
    with pytest.raises(SourceError, match="was not read to its end"):
        stream.finish()
    start = time.perf_counter()
    source.close()
    source.close()
    assert time.perf_counter() - start < 5


def test_a_stream_is_read_once(descriptors: None) -> None:
    source = command_source(b"dump", python("print(1)"))
    folder = source.top()
    (item,) = folder.items(folder.listing()[0])
    folder.open(item)
    with pytest.raises(SourceError, match="only once"):
        folder.open(item)
    source.close()


def test_standard_input_is_read_to_its_end(descriptors: None) -> None:
    ours, theirs = os.pipe()

    def write() -> None:
        for _ in range(100):
            os.write(theirs, b"y" * 777)
        os.close(theirs)

    writer = threading.Thread(target=write)
    writer.start()
    source = stdin_source(b"input", ours)
    content, node = read(source)
    writer.join()
    os.close(ours)
    assert content == b"y" * 77_700
    assert node.size == 77_700
    assert source.spec.kind == "stdin"


def test_two_runs_never_look_the_same() -> None:
    clock = FixedClock()
    source = stdin_source(b"input", 0, clock=clock)
    assert source.top().listing() != source.top().listing()
    assert source.key == stdin_source(b"input").key
    assert source.key != stdin_source(b"other").key
    assert source.absent == ()
    assert source.user_name(0) == b"root"


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"x" * 256])
def test_impossible_names_are_refused(name: bytes) -> None:
    with pytest.raises(UsageError, match="can not be a file's name"):
        stdin_source(name)


def test_no_command_is_refused() -> None:
    with pytest.raises(UsageError, match="no command was given"):
        command_source(b"dump", [])
