"""Which collections of a server a log is followed for, and the names that buckets have.

Left out are those that belong to the one server they lie on, or that are of no use at any other moment:
all of ``local``; of ``config`` everything but what describes a cluster; sessions, transactions and keys;
profiles; what search and drops in progress put aside. Users and roles (``admin.system.users`` and
``admin.system.roles``) are followed. Pure functions.
"""

BUCKETS = "system.buckets."
"""Before what a time series is called stand its buckets, on servers before 8.3."""
VIEWS = "system.views"
"""The collection whose documents are the views of its database: followed as definitions, not as documents."""
COMMANDS = "$cmd"

CONFIG_KEPT = frozenset(("chunks", "collections", "databases", "settings", "shards", "tags", "version"))
_LEFT_OUT = frozenset(("system.profile", "system.indexes", "system.namespaces", "system.indexBuilds"))
_LEFT_OUT_PREFIXES = ("__mdb_internal", "system.drop.")


def split(namespace: str) -> tuple[str, str]:
    """Return database and collection; the collection may have dots."""
    db, _, name = namespace.partition(".")
    return db, name


def followed(db: str, name: str) -> bool:
    """Say whether a collection's operations count."""
    if db == "config":
        return name in CONFIG_KEPT
    return not (
        db == "local"
        or name in _LEFT_OUT
        or name.startswith(_LEFT_OUT_PREFIXES)
        or db.startswith(_LEFT_OUT_PREFIXES[0])
        or (db == "admin" and name == "system.keys")
    )
