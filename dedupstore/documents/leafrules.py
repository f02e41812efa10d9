"""What of a repository decides where the leaves of its collections end: for everybody who stores any."""

from collections.abc import Callable

from dedupstore.documents.stored import StoredDump
from dedupstore.repository.repository import Repository
from dedupstore.sources.bson.attempt import Leaves
from dedupstore.sources.bson.collection import CollectionInfo
from dedupstore.sources.bson.leafkey import leaf_key
from dedupstore.sources.bson.leaves import SAMPLE


def leaves_of(repo: Repository, last: StoredDump | None = None) -> Leaves:
    """Return the rules for the leaves of ``repo``.

    ``last`` is the last snapshot of the same source: its collections keep their ``k``, whatever has become
    of the sizes of their documents, or all of their leaves would be new. Where one was so small that a few
    documents decided, it is chosen again.
    """
    key = leaf_key(repo.keychain.current.names)
    max_size = repo.config.chunker.max_size
    return (
        Leaves(key, max_size) if last is None else Leaves(key, max_size, _k_of(last, min(SAMPLE, max_size)))
    )


def _k_of(last: StoredDump, enough: int) -> Callable[[CollectionInfo], int | None]:
    by_uuid: dict[bytes, int | None] = {}
    by_name: dict[tuple[str, str], int] = {}
    for folder in last.databases().values():
        for files in folder.values():
            facts, node = files.facts, files.data
            if facts is None or node is None:
                continue
            if facts.uuid:
                by_uuid[facts.uuid] = facts.k if node.size >= enough else None
            if node.size >= enough:
                by_name[facts.db, facts.name] = facts.k

    def k_of(info: CollectionInfo) -> int | None:
        return by_uuid[info.uuid] if info.uuid in by_uuid else by_name.get((info.db, info.name))

    return k_of
