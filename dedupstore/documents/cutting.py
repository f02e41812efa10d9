"""A slice while it is cut: entries come in from a tail, and whether they join what was there is noted.

The tail starts reading *at* the last entry that is archived, not behind it. If that very entry comes first,
nothing is missing in between; if another one comes, either the server had thrown away what came
between (a hole), or it has taken back what was archived (a rollback). Neither is an error here: it is
kept with the slice and said, and a point in time inside a hole is refused later.

One thread. Memory: `MEMORY` bytes, what is more goes to a temporary file.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Self

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.documents.given import GivenFolder, Kept, Opened
from dedupstore.documents.slices import KIND, SliceFacts, slice_extra, slice_name
from dedupstore.errors import SourceError, UsageError
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, SourceSpec
from dedupstore.sources.oplog.position import Position, header_of
from dedupstore.sources.owners import OwnedSource

MEMORY = 8 * 1024 * 1024
_MODE = 0o600
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cut:
    """One slice to be. Fill it with `add`, hand it to `SliceSource`, close it."""

    def __init__(
        self,
        after: Position | None,
        *,
        since: Position | None = None,
        note: str = "",
        folder: Path | None = None,
    ) -> None:
        """``after``: the last archived entry, at which the tail begins to read (``None``: there is none).

        After a rollback it is the last archived entry that the server still has, and ``note`` says what
        happened. ``since``: where else the tail began to read, after it saw that the log reaches back to
        there; there need be no entry of that place. ``folder`` is for the temporary file (``None``: where the
        system puts them).
        """
        self._after = after
        self._since = since
        self._note = note
        where = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(MEMORY, dir=where, prefix="slice-")  # noqa: SIM115
        self._start: Position | None = None
        self._end: Position | None = None
        self._wall = 0
        self.entries = 0
        self.size = 0
        """Bytes so far."""

    def add(self, entry: bytes) -> None:
        """Add the next raw entry as the server gave it.

        Raises `SourceError` if it is no log entry, or is older than the one before it.
        """
        position, wall = header_of(entry)
        if self._end is not None and position.ts < self._end.ts:
            raise SourceError(
                f"the log gave operation {position.ts} after {self._end.ts}: the server took operations back "
                "while they were read; start the tail again"
            )
        if self._start is None:
            self._start = position
        self._end = position
        self._wall = max(self._wall, wall)
        self.entries += 1
        self.size += len(entry)
        self._file.write(entry)

    @property
    def news(self) -> bool:
        """Whether there is anything in it that was not archived before."""
        return self._end is not None and (self._end != self._after or self._start != self._after)

    @property
    def end(self) -> Position | None:
        """The last entry: the next slice is cut after it."""
        return self._end

    @property
    def facts(self) -> SliceFacts:
        """What is known of it. Raises `UsageError` while it is empty."""
        start, end = self._start, self._end
        if start is None or end is None:
            raise UsageError("a slice without entries can not be stored: wait for the first one")
        proven = start == self._after
        why = self._note if proven else self._why(start)
        since = self._since
        if since is not None and since.ts >= start.ts:
            since = None
        return SliceFacts(start, end, self.entries, proven, why, self._wall, since)

    def _why(self, start: Position) -> str:
        after = self._after
        if after is None:
            return "the first slice of this log"
        if start.ts == after.ts:
            return f"the server took operation {after} back: it has one of term {start.term} instead"
        lost = f"the log no longer had {after.ts}; it began at {start.ts}"
        return f"{self._note}; {lost}" if self._note else lost

    def read_into(self, view: memoryview, offset: int) -> int:
        """Copy bytes from ``offset`` on; return how many."""
        self._file.seek(offset)
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the temporary file; a second call does nothing."""
        self._file.close()


class SliceSource(OwnedSource):
    """All slices that are known, and one more; see `dedupstore.sources.base.Source`."""

    all_or_nothing = True
    absent: Sequence[tuple[bytes, SourceError]] = ()

    def __init__(
        self,
        cut: Cut,
        known: Iterable[Node],
        adopts: Sequence[TreeId],
        *,
        options: dict[str, str],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """``known`` are nodes of earlier slices, which hang under the roots in ``adopts``.

        ``options`` name the server (``uri`` without credentials, ``set``), as every snapshot of it does.
        The cut must be complete; it stays open until the source is closed. Raises `UsageError` if it is
        empty.
        """
        super().__init__()
        self.spec = SourceSpec(KIND, (b"/",), options)
        words = repr((KIND, sorted(options.items())))
        self.key = blake2b(words.encode(), digest_size=16).digest()
        self.adopts = tuple(adopts)
        self.facts = cut.facts
        self._cut = cut
        self._known = list(known)
        self._clock = clock

    def top(self) -> GivenFolder:
        """Return the folder of slices."""
        facts = self.facts
        node = Node(
            slice_name(facts.start.ts, facts.end.ts),
            int(NodeKind.STREAM),
            _MODE,
            os.getuid(),
            os.getgid(),
            facts.end.ts.seconds * 1_000_000_000,
            self._cut.size,
            extra=slice_extra(facts),
        )
        opened = Opened(node, lambda: _CutStream(node, self._cut))
        kept = [Kept(known) for known in self._known if known.name != node.name]
        return GivenFolder(b"/", [*kept, opened], self._clock)

    def position(self) -> bytes:
        """Return the position of the last entry."""
        return self.facts.end.pack()

    def instant(self) -> datetime:
        """Return the time of the last entry."""
        wall = self.facts.wall or self.facts.end.ts.seconds * 1000
        return _EPOCH + timedelta(milliseconds=wall)

    def close(self) -> None:
        """Close the cut."""
        self._cut.close()


class _CutStream:
    """The entries of a cut as a `dedupstore.sources.base.Stream`."""

    changed = False
    cutter = None

    def __init__(self, node: Node, cut: Cut) -> None:
        self._node = node
        self._cut = cut
        self._at = 0

    def read_next(self, view: memoryview) -> int:
        """Read on."""
        size = self._cut.read_into(view, self._at)
        self._at += size
        return size

    def finish(self) -> Node:
        """Return the node."""
        return self._node

    def close(self) -> None:
        """The cut is closed by the source."""
