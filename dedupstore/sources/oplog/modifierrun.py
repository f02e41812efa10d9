"""Modifiers of one document in a row, as few as they can be without changing what they come to.

Where a new field goes depends on the document, so two updates of different paths can not become one. But one
can take the place of an earlier one that names the same paths, if none in between touches these, what lies
above them or what lies below: then nothing sees the difference, and new fields are made where they were.

Memory: updates that are left, and their paths. One thread.
"""

from dedupstore.sources.oplog.modifiers import paths_of


class ModifierRun:
    """Updates, each of which is the ``o`` of an entry with modifiers that are known."""

    __slots__ = ("_at", "_below", "_places", "updates")

    def __init__(self) -> None:
        self.updates: list[bytes] = []
        self._places: dict[tuple[tuple[bytes, bytes], ...], int] = {}  # by operators and paths
        self._at: dict[bytes, int] = {}  # by path: the last update that names it
        self._below: dict[bytes, int] = {}  # by path: the last update that names one below it

    def add(self, update: bytes) -> int:
        """Add an update behind the others; return how many bytes it adds."""
        signature = paths_of(update)
        paths = [path for _, path in signature]
        place = self._places.get(signature)
        if place is not None and all(self._touched(path) <= place for path in paths):
            added = len(update) - len(self.updates[place])
            self.updates[place] = update
            return added
        place = len(self.updates)
        self.updates.append(update)
        self._places[signature] = place
        for path in paths:
            self._at[path] = place
            for above in _above(path):
                self._below[above] = place
        return len(update) + 100 * len(paths)

    def _touched(self, path: bytes) -> int:
        """Return the place of the last update that names a path, one above it or one below it."""
        at, below = self._at, self._below
        places = [at.get(above, -1) for above in _above(path)]
        return max(at.get(path, -1), below.get(path, -1), *places)


def _above(path: bytes) -> list[bytes]:
    parts = path.split(b".")
    return [b".".join(parts[:size]) for size in range(1, len(parts))]
