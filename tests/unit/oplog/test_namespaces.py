"""Which collections a log is followed for."""

import pytest

from dedupstore.sources.oplog.namespaces import followed, split


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("db.c", True),
        ("db.a.b", True),
        ("db.system.js", True),
        ("db.system.views", True),
        ("db.system.buckets.s", True),
        ("admin.system.users", True),
        ("admin.system.roles", True),
        ("admin.system.version", True),
        ("admin.system.keys", False),
        ("db.system.keys", True),
        ("local.c", False),
        ("config.transactions", False),
        ("config.system.sessions", False),
        ("config.image_collection", False),
        ("config.cache.chunks.db.c", False),
        *[
            (f"config.{name}", True)
            for name in ["chunks", "collections", "databases", "settings", "shards", "tags", "version"]
        ],
        ("db.system.profile", False),
        ("db.system.drop.5i1t1.c", False),
        ("db.__mdb_internal_x", False),
        ("__mdb_internal_search.c", False),
    ],
)
def test_followed(namespace: str, expected: bool) -> None:
    assert followed(*split(namespace)) == expected


def test_split() -> None:
    assert split("db.a.b") == ("db", "a.b")
    assert split("db") == ("db", "")
