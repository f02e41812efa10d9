"""Between which places of its log a snapshot was read; kept as ``Snapshot.position``.

::

    position = end                  read at one moment
             | start, end           read while the log went on
             | begun, start, end    either of them (start may be end), with transactions open at start

Each is a `Position`, packed. What took effect up to ``start`` is in the snapshot, and something of what did
up to ``end``; what a transaction that was open at ``start`` began with lies at ``begun`` or behind it.
"""

from typing import NamedTuple

from dedupstore.sources.oplog.position import Position

_SIZE = 16


class Span(NamedTuple):
    """See the module."""

    start: Position
    end: Position
    begun: Position | None = None

    @property
    def exact(self) -> bool:
        """Whether the snapshot is of one moment."""
        return self.start == self.end

    @property
    def first(self) -> Position:
        """The first entry that the log must still have for the snapshot to be of use."""
        return self.start if self.begun is None else min(self.begun, self.start)

    def pack(self) -> bytes:
        """Return 16, 32 or 48 bytes."""
        if self.begun is not None:
            return self.begun.pack() + self.start.pack() + self.end.pack()
        return self.end.pack() if self.exact else self.start.pack() + self.end.pack()

    @classmethod
    def unpack(cls, packed: bytes) -> "Span":
        """Read what `pack` gave; raises `ValueError` for anything else."""
        places = [Position.unpack(packed[at : at + _SIZE]) for at in range(0, len(packed), _SIZE)]
        if not 1 <= len(places) <= 3:
            raise ValueError(f"{len(packed)} bytes are not one to three positions in the log")
        return cls(
            places[-2] if len(places) > 1 else places[-1], places[-1], places[0] if len(places) == 3 else None
        )
