"""``verify --replay``: each snapshot of a server and the log behind it must give the next one."""

from dataclasses import dataclass, field

from dedupstore.documents.timeline import timelines
from dedupstore.documents.verify_replay import ReplayResult, verify_replay
from dedupstore.findings import Finding
from dedupstore.ids import short
from dedupstore.progress import Reporter
from dedupstore.repository.repository import Repository

from .context import Front
from .render import Fields, counted
from .serverlist import servers_in


@dataclass
class Proof:
    """What came of it, for all servers."""

    findings: list[Finding] = field(default_factory=list)
    fields: list[Fields] = field(default_factory=list)
    """For JSON, an object a server."""
    lines: list[str] = field(default_factory=list)
    """For people."""


def prove(front: Front, repository: Repository, report: Reporter) -> Proof:
    """Replay what there is. Raises `StoreError` and `AccessError`; everything else is a finding."""
    entries = repository.snapshots()
    lines = timelines(repository, entries)
    proof = Proof()
    for server in servers_in(entries):
        timeline = lines.get(server.lineage)
        if timeline is None:
            continue
        result = verify_replay(repository, timeline, spill=front.settings.temporary, report=report)
        proof.findings += result.findings
        proof.fields.append(_fields(str(server), result))
        proof.lines += _lines(str(server), result)
    if not proof.fields:
        proof.lines.append("no snapshot here says where a log stood, so there is nothing to replay")
    return proof


def _fields(server: str, result: ReplayResult) -> Fields:
    return {
        "server": server,
        "proven": [[base.hex(), following.hex()] for base, following in result.proven],
        "not_replayable": [
            {"from": link.base.id.hex(), "to": link.following.id.hex(), "why": link.hole}
            for link in result.holes
        ],
        "entries": result.entries,
        "collections": result.collections,
        "leaves": result.leaves,
        "leaves_cut": result.leaves_cut,
    }


def _lines(server: str, result: ReplayResult) -> list[str]:
    found = [
        f"{server}: nothing can be replayed from snapshot {short(link.base.id)} to "
        f"{short(link.following.id)}: {link.hole}"
        for link in result.holes
    ]
    proven = len(result.proven)
    entries = counted(result.entries, "entry", "entries")
    if proven:
        found.append(
            f"{server}: {counted(proven, 'snapshot')} proved to be what the one before and the log give "
            f"({entries}, {counted(result.leaves, 'leaf', 'leaves')} compared)"
        )
    elif not result.holes and not result.findings:
        found.append(f"{server}: there is one snapshot, so there is nothing to compare the log with yet")
    return found
