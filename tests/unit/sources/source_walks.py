"""Ways through a source that several tests take."""

import os
from pathlib import Path

from dedupstore.model import Node
from dedupstore.sources.base import Folder, Item
from dedupstore.sources.files.scan import FilesSource

BUFFER = 1 << 20


def into() -> memoryview:
    return memoryview(bytearray(BUFFER))


def descend(source: FilesSource, path: Path | bytes) -> Folder:
    """The folder at ``path``, by way of every folder above it."""
    folder: Folder = source.top()
    for name in os.fsencode(path).split(b"/")[1:]:
        folder = folder.folder(the_item(folder, name))
    return folder


def the_item(folder: Folder, name: bytes) -> Item:
    return next(i for segment in folder.listing() for i in folder.items(segment) if i.name == name)


def read_stream(folder: Folder, item: Item, step: int) -> tuple[list[tuple[int, bytes]], Node, bool]:
    """(length, b"") for holes, (length, bytes) for data; neighbours of a kind joined."""
    stream = folder.open(item)
    parts: list[tuple[int, bytes]] = []
    view = memoryview(bytearray(step))
    while n := stream.read_next(view):
        piece = (-n, b"") if n < 0 else (n, bytes(view[:n]))
        if n > 0 and parts and parts[-1][1]:
            piece = (parts[-1][0] + n, parts.pop()[1] + piece[1])
        parts.append(piece)
    node = stream.finish()
    stream.close()
    stream.close()
    return parts, node, stream.changed
