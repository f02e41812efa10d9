"""How a long operation tells somebody what it does: it reports, it never prints."""

from typing import Protocol

from dedupstore.errors import DedupstoreError


class Reporter(Protocol):
    """Hears about a job. Methods may be called from any thread and must return at once."""

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """A job begins; totals in items and bytes where they are known."""
        ...

    def advanced(self, items: int, size: int) -> None:
        """So many more items and bytes are done."""
        ...

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Something went wrong at ``where``; the job goes on."""
        ...

    def finished(self, summary: object) -> None:
        """The job is over."""
        ...


class NullReporter:
    """Hears nothing."""

    def started(self, job: str, items: int | None, size: int | None) -> None:
        """Ignore it."""

    def advanced(self, items: int, size: int) -> None:
        """Ignore it."""

    def finding(self, where: str, error: DedupstoreError) -> None:
        """Ignore it."""

    def finished(self, summary: object) -> None:
        """Ignore it."""
