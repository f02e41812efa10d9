"""The table of commands, and what is said to all others.

Before a user has proved who they are, only those in `GREETINGS` are answered. Commands that write are
refused by name, others that are not known as MongoDB does it.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from dedupstore.query.failures import Failure, QueryError
from dedupstore.server.mongowire import catalog, diagnostics, greeting, reading
from dedupstore.server.mongowire.replies import Parts
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Session

Command: TypeAlias = Callable[[Session, Request], Parts]

GREETINGS: Final[dict[str, Command]] = {
    "hello": greeting.hello,
    "isMaster": greeting.hello,
    "ismaster": greeting.hello,
    "saslStart": greeting.sasl_start,
    "saslContinue": greeting.sasl_continue,
    "logout": greeting.logout,
    "ping": diagnostics.ping,
    "buildInfo": diagnostics.build_info,
    "buildinfo": diagnostics.build_info,
    "connectionStatus": greeting.connection_status,
}
COMMANDS: Final[dict[str, Command]] = {
    "find": reading.find,
    "aggregate": reading.aggregate,
    "count": reading.count,
    "distinct": reading.distinct,
    "getMore": reading.get_more,
    "killCursors": reading.kill_cursors,
    "listDatabases": catalog.list_databases,
    "listCollections": catalog.list_collections,
    "listIndexes": catalog.list_indexes,
    "collStats": catalog.coll_stats,
    "collstats": catalog.coll_stats,
    "dbStats": catalog.db_stats,
    "dbstats": catalog.db_stats,
    "hostInfo": diagnostics.host_info,
    "serverStatus": diagnostics.server_status,
    "getParameter": diagnostics.get_parameter,
    "getCmdLineOpts": diagnostics.command_line,
    "getLog": diagnostics.get_log,
    "whatsmyuri": diagnostics.whats_my_uri,
    "startSession": diagnostics.start_session,
    "endSessions": diagnostics.ping,
    "refreshSessions": diagnostics.ping,
    "killSessions": diagnostics.ping,
    "explain": diagnostics.explain,
}
READS: Final = frozenset(("find", "aggregate", "count", "distinct", "getMore"))
"""Commands that read documents, of which so many run at a time as `Service.turns` says."""
WRITES: Final = frozenset(
    name
    for line in (
        "insert update delete findAndModify findandmodify bulkWrite create createIndexes drop dropDatabase",
        "dropIndexes deleteIndexes renameCollection collMod convertToCapped cloneCollectionAsCapped compact",
        "reIndex applyOps createUser updateUser dropUser dropAllUsersFromDatabase grantRolesToUser",
        "revokeRolesFromUser createRole updateRole dropRole grantRolesToRole revokeRolesFromRole",
        "grantPrivilegesToRole revokePrivilegesFromRole setParameter setFeatureCompatibilityVersion shutdown",
        "fsync fsyncUnlock mapReduce mapreduce commitTransaction abortTransaction godinsert appendOplogNote",
        "createSearchIndexes updateSearchIndex dropSearchIndex _mergeAuthzCollections logRotate profile",
    )
    for name in line.split()
)


def answer(session: Session, request: Request) -> Parts:
    """Answer a command with the fields of a document, all but ``ok``. Raises what it fails with."""
    command = GREETINGS.get(request.name)
    if command is None:
        if not session.open:
            raise QueryError(Failure.Unauthorized, f"Command {request.name} requires authentication")
        command = COMMANDS.get(request.name)
    if command is not None:
        if request.name not in READS:
            return command(session, request)
        with session.service.turns:
            return command(session, request)
    if request.name in WRITES:
        raise QueryError(
            Failure.CommandNotSupported,  # IllegalOperation makes mongosh speak of retryable writes
            f"{request.name} is refused: this server is read-only, it shows a backup; "
            "to write, restore to a MongoDB with 'dstore mongo load'",
        )
    raise QueryError(Failure.CommandNotFound, f"no such command: '{request.name}'")
