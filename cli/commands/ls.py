"""``dstore ls``."""

from collections.abc import Iterator
from typing import Annotated

import typer

from dedupstore.errors import UsageError
from dedupstore.findings import Finding, printable
from dedupstore.model import Node, NodeKind
from dedupstore.repository.repository import Repository
from dedupstore.tree.walk import Lost, lookup, subtree_of, walk

from ..context import Front, Wanted, split_arguments, taken
from ..entries import entry_fields, entry_line
from ..exitcodes import status_of_findings
from ..options import At, Host, SnapshotAndPath, Tags


def run(
    ctx: typer.Context,
    what: SnapshotAndPath = None,
    at: At = None,
    host: Host = None,
    tag: Tags = None,
    long: Annotated[bool, typer.Option("--long", "-l", help="Show mode, owner, size and time.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="List everything below, not one level.")
    ] = False,
) -> int:
    """List a folder inside a snapshot."""
    front = Front.of(ctx)
    text, paths = split_arguments(what or ())
    if len(paths) > 1:
        raise UsageError(f"{len(paths)} paths were given: ls lists one, run it for each")
    with front.repository() as repository:
        repository.sync()
        wanted = Wanted(text, at, host, tuple(tag or ()), paths)
        chosen, snapshot = front.pick(repository, wanted)
        front.say(taken(chosen, snapshot))
        findings: list[Finding] = []
        top = lookup(repository.load_page, snapshot.root, b"".join(paths))
        entries = _entries(repository, top, _clean(b"".join(paths)), recursive=recursive)
        sound = _sound(entries, findings, front)
        if front.settings.json:
            front.output.array(entry_fields(path, node) for path, node in sound)
        else:
            for path, node in sound:
                front.output.line(entry_line(path, node, long=long))
        return status_of_findings([*front.doubts(repository, wanted), *findings])


def _entries(
    repository: Repository, top: Node, path: bytes, *, recursive: bool
) -> Iterator[tuple[bytes, Node | Lost]]:
    if top.kind != NodeKind.DIR:
        return iter([(path, top)])
    return walk(
        repository.load_page, subtree_of(top), base=path, descend=None if recursive else lambda *_: False
    )


def _sound(
    entries: Iterator[tuple[bytes, Node | Lost]], findings: list[Finding], front: Front
) -> Iterator[tuple[bytes, Node]]:
    """Yield the entries; tell of the pages that did not load and go on behind them."""
    for path, node in entries:
        if isinstance(node, Lost):
            findings.append(Finding(printable(path), node.error))
            front.tell(findings[-1])
        else:
            yield path, node


def _clean(path: bytes) -> bytes:
    return b"".join(b"/" + part for part in path.split(b"/") if part)
