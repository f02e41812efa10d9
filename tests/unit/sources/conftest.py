import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dedupstore.errors import UsageError
from dedupstore.model import Node
from dedupstore.sources.base import Folder, Source
from dedupstore.sources.files.listing import Lister, make_lister

BUFFER = 1 << 20


@pytest.fixture(params=["native", "python"])
def lister(request: pytest.FixtureRequest) -> Lister:
    try:
        return make_lister(native=request.param == "native")
    except UsageError as error:
        pytest.skip(str(error))


@contextmanager
def _no_descriptor_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Everything that was opened is closed again."""
    with _no_descriptor_left():
        yield


@pytest.fixture
def walk() -> Callable[[Source], dict[bytes, Node]]:
    """Walk a source as the archiver does; returns path -> node, sizes of files as read."""

    def walked(source: Source) -> dict[bytes, Node]:
        found: dict[bytes, Node] = {}
        stack: list[tuple[Folder, bool]] = [(source.top(), False)]
        into = memoryview(bytearray(BUFFER))
        while stack:
            folder, done = stack.pop()
            if done:
                folder.close()
                continue
            stack.append((folder, True))
            below = []
            for segment in folder.listing():
                items = folder.items(segment)
                assert folder.folders(segment) == [i for i in items if stat.S_ISDIR(i.mode)]
                for item in items:
                    path = folder.path.rstrip(b"/") + b"/" + item.name
                    if stat.S_ISREG(item.mode):
                        found[path], _ = folder.read(item, into)
                        continue
                    found[path] = folder.node(item)
                    if stat.S_ISDIR(item.mode) and folder.descends(item):
                        below.append((folder.folder(item), False))
            stack.extend(reversed(below))
        source.close()
        return found

    return walked
