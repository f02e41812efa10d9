"""The key of the leaf rule: one for a repository, so that every way to a collection gives the same leaves."""

from dedupstore.format.crypto import derive
from dedupstore.sources.bson.siphash import KEY_SIZE

CONTEXT = "dedupstore 2026-11 v1 collection leaves"


def leaf_key(names: bytes) -> bytes:
    """Return the 16 bytes for `leaves.LeafCutter` from the key that ends tree pages (``EpochKeys.names``)."""
    return derive(CONTEXT, names)[:KEY_SIZE]
