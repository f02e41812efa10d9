"""Whether small files come from a slow disk, so that it pays to ask for them ahead.

A file in the page cache is read in some 10 µs, one on a disk in 100 µs to 10 ms, and one reading thread asks
for one at a time. Asking ahead lets the disk work on many; but it costs two more system calls a
file, which is a tenth of a run that finds everything in memory. So it is done only while reads are slow.
"""

from dedupstore.clock import Clock

WINDOW = 32
"""Reads that are looked at together."""
SLOW = 0.000_25
"""Mean seconds a read from which the disk is taken to be at work."""
TRUST = 2_000
"""Reads before a judgement of *slow* is looked at again: asking ahead makes reads fast, after all."""


class Pace:
    """A judgement that follows the reads. One thread."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._began = 0.0
        self._wanted = WINDOW
        self._seen = 0
        self._spent = 0.0
        self.slow = False
        """Whether to ask ahead."""

    def begin(self) -> None:
        """A read begins."""
        self._began = self._now()

    def end(self, files: int = 1) -> None:
        """The read, of so many files, is over."""
        self._spent += self._now() - self._began
        self._seen += files
        if self._seen >= self._wanted:
            self.slow = self._spent > self._seen * SLOW if not self.slow else False
            self._wanted = TRUST if self.slow else WINDOW
            self._spent, self._seen = 0.0, 0
