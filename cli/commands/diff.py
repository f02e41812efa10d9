"""``dstore diff``."""

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer

from dedupstore.errors import NotFoundError, UsageError
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.tree.diff import Change, ChangeKind, diff
from dedupstore.tree.select import Entry
from dedupstore.tree.walk import lookup, subtree_of

from ..context import Front, Wanted, split_paths, taken
from ..entries import entry_fields
from ..options import At, Host, Tags
from ..render import Fields, path_fields, path_shown

SIGNS = {
    ChangeKind.ADDED: "+",
    ChangeKind.REMOVED: "-",
    ChangeKind.TYPE: "T",
    ChangeKind.CONTENT: "M",
    ChangeKind.METADATA: "U",
}


def run(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A] [B] [PATH]",
            show_default=False,
            help="Two snapshots (B: latest by default), and a path to look below.",
        ),
    ] = None,
    at: At = None,
    host: Host = None,
    tag: Tags = None,
) -> None:
    """Show what changed between two snapshots.

    Each line begins with + added, - removed, M content, U metadata only, or T another type. With --at
    the first snapshot is the one of that time.
    """
    front = Front.of(ctx)
    names = [text for text in what or () if not text.startswith("/")]
    paths = split_paths([text for text in what or () if text.startswith("/")])
    if len(paths) > 1 or len(names) > (2 if at is None else 1):
        raise UsageError("diff compares two snapshots below one path: see 'dstore diff --help'")
    if not names and at is None:
        raise UsageError("which snapshot shall be compared? Name one, or give --at TIME")
    with front.repository() as repository:
        repository.sync()
        first = None if at is not None else names.pop(0)
        tags = tuple(tag or ())
        old = front.pick(repository, Wanted(first, at, host, tags, paths))
        new = front.pick(repository, Wanted(names[0] if names else None, None, host, tags, paths))
        front.say(f"from {taken(*old)}")
        front.say(f"to   {taken(*new)}")
        changes = _changes(repository, old, new, b"".join(paths))
        if front.settings.json:
            front.output.array(map(_fields, changes))
            return
        counts: Counter[ChangeKind] = Counter()
        for change in changes:
            counts[change.kind] += 1
            front.output.line(f"{SIGNS[change.kind]} {path_shown(change.path)}")
        summary = ", ".join(f"{counts[kind]} {kind.value}" for kind in ChangeKind if counts[kind])
        front.say(summary or "no difference")


def _changes(repository: Repository, old: Entry, new: Entry, path: bytes) -> Iterator[Change]:
    base = b"".join(b"/" + part for part in path.split(b"/") if part)
    before, after = _top(repository, old[1], base), _top(repository, new[1], base)
    if before is None or after is None:
        raise NotFoundError(
            f"{path_shown(path)} is not a folder in both snapshots: 'dstore history' shows its versions"
        )
    return diff(repository.load_page, before, after, base=base)


def _top(repository: Repository, snapshot: Snapshot, path: bytes) -> TreeId | None:
    node: Node = lookup(repository.load_page, snapshot.root, path)
    return subtree_of(node) if node.kind == NodeKind.DIR else None


def _fields(change: Change) -> Fields:
    fields: dict[str, object] = {**path_fields(change.path), "change": change.kind.value}
    for side, node in (("old", change.old), ("new", change.new)):
        fields[side] = None if node is None else entry_fields(change.path, node)
    return fields
