"""``mongo tail`` at work: what it tells of every slice, and how it ends."""

import importlib

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.moments import time_of
from dedupstore.documents.slices import SliceFacts
from dedupstore.errors import DedupstoreError
from dedupstore.ops.backup.archiver import BackupResult
from dedupstore.ops.tail import Tail, TailOptions, TailResult
from dedupstore.sources.oplog.position import Position

from . import interrupt
from .context import Front
from .exitcodes import DONE
from .progress import Silent
from .render import counted, duration_shown, instant, instant_shown, note, size_shown


class Teller:
    """Tells of what happens; see `dedupstore.ops.tail.Listener`."""

    def __init__(self, front: Front, server: str) -> None:
        self._front = front
        self._server = server

    def began(self, start: Position, *, exact: bool) -> None:
        """Say from where the log is followed."""
        how = "" if exact else ", or what comes next"
        self._front.say(
            f"following the log of {self._server} from operation {start.ts}{how} "
            f"({instant_shown(time_of(start.ts))})"
        )

    def stored(self, facts: SliceFacts, size: int, result: BackupResult) -> None:
        """Say what a slice holds."""
        stored = result.snapshot.statistics.stored_bytes
        taken = None if result.snapshot_id is None else result.snapshot_id.hex()
        self._front.output.event(
            "progress",
            {
                "job": "tail",
                "snapshot": taken,
                "start": str(facts.start.ts),
                "end": str(facts.end.ts),
                "end_time": instant(time_of(facts.end.ts)),
                "entries": facts.entries,
                "bytes": size,
                "stored_bytes": stored,
                "joined": facts.proven,
                "why": facts.why,
            },
        )
        self._front.output.remark(
            f"stored the log until {instant_shown(time_of(facts.end.ts))} (operation {facts.end.ts}): "
            f"{counted(facts.entries, 'entry', 'entries')}, {size_shown(size)}, {size_shown(stored)} stored"
        )

    def broke(self, sentence: str) -> None:
        """Say that the log does not go on where it ended."""
        where = f"the log of {self._server}"
        fields = {"where": where, "code": "log-broken", "retryable": False, "message": sentence}
        if self._front.settings.json:
            self._front.output.event("finding", fields)
        note(f"{where}: {sentence}")

    def waits(self, error: DedupstoreError, seconds: float) -> None:
        """Say what went wrong and when it is tried again."""
        note(f"{error}; trying again in {duration_shown(seconds)}")


def run_tail(front: Front, uri: str, dialect: str | None, options: TailOptions) -> int:
    """Follow a server's log until a signal asks to stop (or once); return the exit status."""
    live = importlib.import_module(".liveservers", __package__)
    with front.repository() as repository, live.followed_server(uri, dialect) as (deployment, server):
        teller = Teller(front, server.options.get("set") or server.options["uri"])
        tail = Tail(repository, server, options, teller, Silent(front.output), SYSTEM_CLOCK)

        def stop() -> None:
            tail.finish()
            deployment.stop()

        with interrupt.asking(stop):
            result = tail.run()
    front.output.event("summary", _fields(result))
    front.output.remark(_sentence(result))
    return DONE


def _fields(result: TailResult) -> dict[str, object]:
    return {
        "slices": result.slices,
        "entries": result.entries,
        "bytes": result.bytes,
        "stored_bytes": result.stored_bytes,
        "until": None if result.until is None else str(result.until.ts),
        "until_time": None if result.until is None else instant(time_of(result.until.ts)),
        "seconds": round(result.seconds, 3),
    }


def _sentence(result: TailResult) -> str:
    if result.until is None:
        return "nothing was stored: the log had no entry"
    until = f"the log is stored until {instant_shown(time_of(result.until.ts))} (operation {result.until.ts})"
    if not result.slices:
        return f"nothing new: {until}"
    entries = counted(result.entries, "entry", "entries")
    return f"{until}: {counted(result.slices, 'slice')} and {entries} more"
