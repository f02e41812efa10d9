"""``dstore verify``."""

import importlib
from typing import Annotated

import typer

from dedupstore.findings import Finding
from dedupstore.ops.verify.checker import VerifyResult, verify

from ..context import Front
from ..exitcodes import status_of_findings
from ..progress import progress_for
from ..render import counted, note, size_shown
from ..tuning import tune


def run(
    ctx: typer.Context,
    data: Annotated[
        bool, typer.Option("--data", help="Also read and check every byte that is stored.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also replay servers' logs from snapshot to snapshot.")
    ] = False,
) -> int:
    """Check that everything is there and whole.

    Without --data: every object is there, every pack, tree page and index agrees with the others. With
    --replay each snapshot of a MongoDB server and the log behind it must give the next snapshot.
    """
    front = Front.of(ctx)
    tune()
    lines: list[str] = []
    with front.repository() as repository, progress_for(front.output) as report:
        result = verify(repository, data=data, report=report)
        findings: list[Finding] = list(result.findings)
        fields = _fields(result)
        if replay:
            repository.sync()
            proof = importlib.import_module("..proving", __package__).prove(front, repository, report)
            findings += proof.findings
            lines = proof.lines
            fields["replay"] = proof.fields
    front.output.event("summary", {**fields, "findings": len(findings)})
    for line in lines:
        front.output.remark(line)
    if findings:
        note(
            f"{counted(len(findings), 'problem')} found: keep the repository as it is and look at each above"
        )
    else:
        front.output.remark(
            f"{result.snapshots} snapshots, {result.packs} packs and {result.chunks} chunks are whole"
            + (f"; {size_shown(result.bytes_read)} read" if data else "; their data was not read (--data)")
        )
    return status_of_findings(findings)


def _fields(result: VerifyResult) -> dict[str, object]:
    return {
        "snapshots": result.snapshots,
        "packs": result.packs,
        "chunks": result.chunks,
        "bytes_read": result.bytes_read,
        "unlisted_packs": result.unlisted_packs,
        "unlisted_bytes": result.unlisted_bytes,
    }
