"""What has happened so far in a run, told to the reporter as it happens. Threads: any."""

import threading

from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding, printable
from dedupstore.ops.restore.request import Action, Heard
from dedupstore.progress import Reporter

FINDINGS_KEPT = 10_000
"""A repository that lost everything must not fill the memory with the news."""


class Tally:
    """Counts and findings of one restore."""

    def __init__(self, report: Reporter, heard: Heard | None) -> None:
        self.heard = heard
        """None if nobody wants to know; so hot paths need not call."""
        self.files = 0
        self.bytes = 0
        self.skipped = 0
        self.deleted = 0
        self.failed = 0
        self.findings: list[Finding] = []
        self._report = report
        self._lock = threading.Lock()

    def restored(self, files: int, size: int) -> None:
        """So many more files, of so many bytes together, are written."""
        with self._lock:
            self.files += files
            self.bytes += size
        self._report.advanced(files, size)

    def kept(self, path: bytes, size: int) -> None:
        """Something stays as it is."""
        with self._lock:
            self.skipped += 1
        self._report.advanced(1, size)
        self.hear(Action.KEEP, path)

    def removed(self, path: bytes, count: int) -> None:
        """An entry is removed, ``count`` with everything in it."""
        with self._lock:
            self.deleted += count
        self.hear(Action.DELETE, path)

    def hear(self, action: Action, path: bytes) -> None:
        """Tell who wants to know."""
        if self.heard is not None:
            self.heard(action, path)

    def finding(self, path: bytes, error: DedupstoreError) -> None:
        """Something could not be restored; the run goes on."""
        found = Finding(printable(path), error)
        with self._lock:
            self.failed += 1
            if len(self.findings) < FINDINGS_KEPT:
                self.findings.append(found)
        self._report.finding(found.where, error)
