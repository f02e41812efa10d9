"""A finding: trouble with one thing that did not end the run."""

from dataclasses import dataclass

from dedupstore.errors import DedupstoreError


@dataclass(frozen=True, slots=True)
class Finding:
    """What went wrong, and where.

    ``where`` is a printable path or object name (undecodable bytes escaped).
    """

    where: str
    error: DedupstoreError


def printable(path: bytes) -> str:
    """Return a path as text for messages: UTF-8 where it is, escapes where it is not or is unsafe."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
