"""What a file's content is made of before all of its chunk ids are known: buffers, and parts of them.

The reading thread makes the parts of a file in order; workers finish the batches that these point into, in
any order. A batch belongs to the reading thread until it is submitted, then to one worker until it is
``done``; parts belong to the reading thread.
"""

import mmap
from functools import partial
from typing import TypeAlias

from dedupstore.format.constants import LIST_ENTRY_SIZE
from dedupstore.ids import HOLE, TreeId
from dedupstore.sources.base import Known
from dedupstore.tree.build import ContentBuilder


class Batch:
    """A buffer on its way: pieces are ``(start, end)`` of chunks in it.

    ``labels`` has those of the chunks that have any, by position; ``entries`` are the pieces' content
    entries, once a worker knows their ids.
    """

    __slots__ = ("buffer", "done", "entries", "labels", "pieces", "used", "view")

    def __init__(self, buffer: mmap.mmap) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.used = 0
        self.pieces: list[tuple[int, int]] = []
        self.entries = b""
        self.labels: dict[int, bytes] = {}
        self.done = False

    def entries_of(self, first: int, last: int) -> bytes:
        """Return the content entries of some pieces."""
        return self.entries[first * LIST_ENTRY_SIZE : last * LIST_ENTRY_SIZE]

    def labels_of(self, first: int, last: int) -> list[bytes]:
        """Return the labels of some pieces of one file; empty if they have none."""
        labels = self.labels
        return [labels[number] for number in range(first, last)] if first in labels else []


Part: TypeAlias = tuple[Batch, int, int] | int | Known | ContentBuilder
"""Pieces ``[first, last)`` of a batch, a hole of so many bytes, chunks that the repository has, or first of
all the content so far."""
Parts: TypeAlias = list[Part]


def is_done(parts: Parts) -> bool:
    """Say whether every id in ``parts`` is known. Batches end in any order, so all are asked."""
    return all(not isinstance(part, tuple) or part[0].done for part in parts)


def only_piece(parts: Parts) -> bytes | None:
    """Return the content entry if ``parts``, all done, are a single piece and nothing else."""
    part = parts[0]
    if len(parts) == 1 and isinstance(part, tuple):
        batch, first, last = part
        if last - first == 1:
            return batch.entries_of(first, last)
    return None


def known_in(parts: Parts) -> int:
    """Return how many known entries wait in ``parts``."""
    return sum([len(part.entries) for part in parts if isinstance(part, Known)])


def append_all(content: ContentBuilder, parts: Parts) -> None:
    """Append what ``parts`` became to ``content``; all must be done."""
    append = content.append
    for part in parts:
        if isinstance(part, int):
            append(HOLE, part)
        elif isinstance(part, Known):
            for entry in part.entries:
                chunk, size, label = entry
                if part.expand is None:
                    append(chunk, size, label)
                else:
                    content.append_page(TreeId(chunk), size, label, partial(part.expand, entry))
        elif isinstance(part, tuple):
            batch, first, last = part
            content.extend(batch.entries_of(first, last), batch.labels_of(first, last))


def fold(content: ContentBuilder, parts: Parts) -> None:
    """Move what is done at the front of ``parts`` into ``content``, which stands before it."""
    done = 1
    while done < len(parts) and is_done(parts[done : done + 1]):
        done += 1
    append_all(content, parts[1:done])
    del parts[1:done]
