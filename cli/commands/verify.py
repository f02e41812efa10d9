"""``dstore verify``."""

from typing import Annotated

import typer

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
) -> int:
    """Check that everything is there and whole.

    Without --data: every object is there, every pack, tree page and index agrees with the others.
    """
    front = Front.of(ctx)
    tune()
    with front.repository() as repository, progress_for(front.output) as report:
        result = verify(repository, data=data, report=report)
    front.output.event("summary", _fields(result))
    if result.findings:
        note(
            f"{counted(len(result.findings), 'problem')} found: keep the repository as it is "
            "and look at each above"
        )
    else:
        front.output.remark(
            f"{result.snapshots} snapshots, {result.packs} packs and {result.chunks} chunks are whole"
            + (f"; {size_shown(result.bytes_read)} read" if data else "; their data was not read (--data)")
        )
    return status_of_findings(result.findings)


def _fields(result: VerifyResult) -> dict[str, object]:
    return {
        "snapshots": result.snapshots,
        "packs": result.packs,
        "chunks": result.chunks,
        "bytes_read": result.bytes_read,
        "unlisted_packs": result.unlisted_packs,
        "unlisted_bytes": result.unlisted_bytes,
        "findings": len(result.findings),
    }
