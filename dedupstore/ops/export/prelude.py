"""What a snapshot says of the server that its collections are of: how files of a dump begin."""

from dedupstore.documents.reading import in_order
from dedupstore.errors import NotFoundError, SourceError
from dedupstore.format.chunklist import decode_list_page
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.collection import PRELUDE, server_version
from dedupstore.tree.walk import entries_of, lookup, nodes_of, subtree_of

UNKNOWN = "unknown"
"""What mongodump writes where it could not ask."""
_MAX = 65_536


def version_in(repo: Repository, snapshot: Snapshot) -> str:
    """Return the server's version, or `UNKNOWN`.

    The prelude lies beside the databases; in a dump of one database, inside it.
    """
    for path in snapshot.source.paths:
        top = lookup(repo.load_page, snapshot.root, path)
        if top.kind != NodeKind.DIR:
            continue
        for folder in (top, *(node for node in _nodes(repo, top) if node.kind == NodeKind.DIR)):
            for node in _nodes(repo, folder):
                if node.name == PRELUDE and node.size <= _MAX:
                    return _read(repo, node) or UNKNOWN
    return UNKNOWN


def _nodes(repo: Repository, folder: Node) -> list[Node]:
    return list(nodes_of(repo.load_page, subtree_of(folder)))


def _read(repo: Repository, node: Node) -> str:
    content = entries_of(lambda page: decode_list_page(repo.load_tree(page)), node)
    try:
        return server_version(b"".join(in_order(repo, content)))
    except (SourceError, NotFoundError):
        return ""
