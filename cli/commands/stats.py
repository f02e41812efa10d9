"""``dstore stats``."""

import typer

from dedupstore.ops.stats import statistics

from ..context import Front
from ..progress import Silent
from ..render import Column, size_shown


def run(ctx: typer.Context) -> None:
    """Show sizes and ratios."""
    front = Front.of(ctx)
    with front.repository() as repository:
        stats = statistics(repository, Silent(front.output))
    front.output.document(
        {
            "snapshots": stats.snapshots,
            "logical_bytes": stats.logical_bytes,
            "unique_bytes": stats.unique_bytes,
            "stored_bytes": stats.stored_bytes,
            "dedup_ratio": stats.dedup_ratio,
            "compression_ratio": stats.compression_ratio,
            "total_ratio": stats.total_ratio,
            "tree_bytes": stats.tree_bytes,
            "data_chunks": stats.data_chunks,
            "tree_chunks": stats.tree_chunks,
            "packs": stats.packs,
        }
    )
    rows = [
        ("snapshots", str(stats.snapshots)),
        ("all files of all snapshots", size_shown(stats.logical_bytes)),
        ("different data among them", size_shown(stats.unique_bytes)),
        ("stored, all packs", size_shown(stats.stored_bytes)),
        ("deduplication", f"{stats.dedup_ratio:.2f}x"),
        ("compression", f"{stats.compression_ratio:.2f}x"),
        ("together", f"{stats.total_ratio:.2f}x"),
    ]
    front.output.table([Column("what"), Column("value", right=True)], rows)
