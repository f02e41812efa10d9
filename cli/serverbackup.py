"""A snapshot of a live server: by its log if that is whole since the last one, else by reading all of it.

Imports the driver, so it is imported where a server is to be backed up.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from dedupstore import __version__
from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.advance import AdvancedSource
from dedupstore.documents.leafrules import leaves_of
from dedupstore.documents.slices import KIND as LOG_KIND
from dedupstore.documents.stored import StoredDump
from dedupstore.documents.timeline import Base, Timeline, lineage
from dedupstore.documents.verify_replay import verify_replay
from dedupstore.errors import IntegrityError, NotFoundError, ObjectNotFound, SourceError, UsageError
from dedupstore.findings import Finding
from dedupstore.ids import short
from dedupstore.model import SourceSpec
from dedupstore.ops.backup.archiver import BackupOptions, BackupResult, back_up
from dedupstore.ops.catchup import caught_up, is_stored, newest_base
from dedupstore.ops.tail import Tail, TailOptions
from dedupstore.ops.taillog import MongoLogServer
from dedupstore.progress import NullReporter, Reporter
from dedupstore.repository.repository import Repository
from dedupstore.sources.mongo.catalog import Selection
from dedupstore.sources.mongo.client import REPLICA_SET, Deployment, connect
from dedupstore.sources.mongo.dialect import ChangeStreamDialect
from dedupstore.sources.mongo.failures import is_transient
from dedupstore.sources.mongo.source import KIND, MongoOptions, MongoSource
from dedupstore.tree.select import Entry

from .chosen import ServerRequest, Taker
from .context import Front
from .liveservers import dialect_named
from .mongouri import mongo_uri
from .render import counted
from .tailing import Teller


def taker(front: Front, request: ServerRequest) -> Taker:
    """Return what takes the snapshot. Raises `UsageError` for what can not be read."""
    uri = mongo_uri(request.uri)
    selection = Selection(_names(request))
    dialect = dialect_named(request.dialect)

    def take(repository: Repository, options: BackupOptions, report: Reporter) -> BackupResult:
        with closing(connect(uri, clock=SYSTEM_CLOCK)) as deployment:
            server = MongoLogServer(deployment, dialect)
            log = request.log and not options.dry_run
            run = _Run(front, uri, dialect, selection, repository, options, report, deployment, server, log)
            repository.sync()
            base = newest_base(Timeline(repository, run.entries()), run.only)
            if request.verify_source:
                return run.compared(base, run.read_all(base))
            if base is None or deployment.node().facts.kind != REPLICA_SET:
                return run.read_all(base)
            return run.moved_forward(base)

    return take


def _names(request: ServerRequest) -> tuple[str, ...]:
    """Return the database or collection that is wanted; none: all."""
    if request.db is None:
        if request.collection is not None:
            raise UsageError("--collection lies in a database: name that by --db")
        return ()
    return (request.db if request.collection is None else f"{request.db}.{request.collection}",)


@dataclass(frozen=True, slots=True)
class _Run:
    front: Front
    uri: str
    dialect: type[ChangeStreamDialect] | None
    selection: Selection
    repository: Repository
    options: BackupOptions
    report: Reporter
    deployment: Deployment
    server: MongoLogServer
    log: bool
    """Whether the log that the snapshot is made from is stored."""

    @property
    def only(self) -> str:
        """What snapshots of the same collections say of themselves."""
        return "\0".join(sorted(self.selection.names))

    def entries(self) -> list[Entry]:
        """Return the snapshots and slices of this server."""
        name = lineage(SourceSpec(KIND, (b"/",), self.server.options))
        return [one for one in self.repository.snapshots() if lineage(one[1].source) == name]

    def moved_forward(self, base: Base) -> BackupResult:
        """Take the snapshot by the log alone; where that can not be, say why and read everything.

        The log is stored first, so that what lies between two snapshots can be had and be proved.
        """
        spill = self.front.settings.temporary
        try:
            if self.log:
                self.store_log(self.server)
            timeline = Timeline(self.repository, self.entries())
            server = None if self.log and is_stored(timeline, base) else self.server
            with caught_up(self.repository, timeline, base, server, spill) as view:
                entries = counted(view.collapsed.entries, "entry", "entries")
                self.front.say(
                    f"moving snapshot {short(base.id)} forward by {entries} of the log; no collection is read"
                )
                return back_up(self.repository, AdvancedSource(view), self.options, self.report, SYSTEM_CLOCK)
        except (NotFoundError, SourceError, IntegrityError) as error:
            if is_transient(error):
                raise  # a server that is lost is not better read as a whole
            why = f"snapshot {short(base.id)} can not be moved forward by the log, {error}"
            self.front.say(f"reading all collections: {why}")
            result = self.read_all(base)
            if not isinstance(error, IntegrityError | ObjectNotFound):
                return result
            self.report.finding(f"snapshot {short(base.id)}", error)
            return _with_findings(result, [Finding(f"snapshot {short(base.id)}", error)])

    def store_log(self, server: MongoLogServer) -> None:
        """Store the log up to now, from where the stored one ends, or the first snapshot within reach."""
        backup = replace(self.options, name="", time=None)
        options = TailOptions(backup, once=True, temporary=self.front.settings.temporary)
        teller = Teller(self.front, server.options.get("set") or server.options["uri"])
        Tail(self.repository, server, options, teller, NullReporter(), SYSTEM_CLOCK).run()

    def read_all(self, base: Base | None) -> BackupResult:
        """Take the snapshot by reading every collection; ``base`` says how they are cut."""
        last = None if base is None else StoredDump(self.repository, base.snapshot)
        options = MongoOptions(
            selection=self.selection,
            temporary=self.front.settings.temporary,
            program=f"dstore {__version__}",
        )
        leaves = leaves_of(self.repository, last)
        source = MongoSource(self.deployment, leaves, options, dialect=self.dialect, clock=SYSTEM_CLOCK)
        result = back_up(self.repository, source, self.options, self.report, SYSTEM_CLOCK)
        if result.snapshot.position is None and not result.findings:
            self.front.say(
                "this server keeps no log: each collection is as it was when it was read, not of one moment"
            )
        return result

    def compared(self, base: Base | None, result: BackupResult) -> BackupResult:
        """Say whether what was read is what the snapshot before it and the log give."""
        if base is None or result.snapshot_id is None:
            self.front.say("there is nothing yet that it could be compared with")
            return result
        with closing(connect(self.uri, clock=SYSTEM_CLOCK)) as deployment:
            self.store_log(MongoLogServer(deployment, self.dialect))
        two = {base.id, result.snapshot_id}
        entries = [one for one in self.entries() if one[1].source.kind == LOG_KIND or one[0] in two]
        timeline, spill = Timeline(self.repository, entries), self.front.settings.temporary
        proof = verify_replay(self.repository, timeline, spill=spill, report=self.report)
        for link in proof.holes:
            self.front.say(f"it can not be compared with snapshot {short(base.id)}: {link.hole}")
        if proof.proven:
            self.front.say(f"no drift: it is what snapshot {short(base.id)} and the log give")
        return _with_findings(result, proof.findings)


def _with_findings(result: BackupResult, findings: Sequence[Finding]) -> BackupResult:
    return replace(result, findings=(*result.findings, *findings))
