"""Users and roles on their way into a server: as documents, password hashes and all.

MongoDB's own servers take them from two collections that only exist meanwhile
(``_mergeAuthzCollections``), and check them. Others have their collections written to.
"""

from collections.abc import Sequence

from dedupstore.errors import DedupstoreError
from dedupstore.findings import Finding
from dedupstore.sources.mongo.catalog import ADMIN
from dedupstore.sources.mongo.client import Deployment
from dedupstore.sources.mongo.failures import COMMAND_NOT_FOUND, NAMESPACE_NOT_FOUND, code_of
from dedupstore.sources.mongo.writing import Place, insert

USERS, ROLES, VERSION = "system.users", "system.roles", "system.version"
_TEMPORARY = {USERS: "dstore.temporary.users", ROLES: "dstore.temporary.roles"}
_BATCH = 500


def is_of_users(db: str, name: str) -> bool:
    """Say whether a collection holds users or roles, or how they are written."""
    return db == ADMIN and name in {USERS, ROLES, VERSION}


def load_users(deployment: Deployment, users: Sequence[bytes], roles: Sequence[bytes]) -> list[Finding]:
    """Put users and roles beside those that are there; one that is there is replaced.

    What fails is a finding: the data are of use without. Raises nothing but a lost connection's error.
    """
    if not users and not roles:
        return []
    try:
        _put(deployment, _TEMPORARY, users, roles, replace=False)
        _merge(deployment)
    except DedupstoreError as error:
        if code_of(error) != COMMAND_NOT_FOUND:
            return [Finding(f"{ADMIN}.{USERS}", error)]
    else:
        return []
    finally:
        _drop(deployment)
    try:
        _put(deployment, {USERS: USERS, ROLES: ROLES}, users, roles, replace=True)
    except DedupstoreError as error:
        return [Finding(f"{ADMIN}.{USERS}", error)]
    return []


def _put(
    deployment: Deployment,
    names: dict[str, str],
    users: Sequence[bytes],
    roles: Sequence[bytes],
    *,
    replace: bool,
) -> None:
    if not replace:
        _drop(deployment)  # of a run that was interrupted
    for name, documents in ((names[USERS], users), (names[ROLES], roles)):
        place = Place(ADMIN, name, replace=replace)
        for start in range(0, len(documents), _BATCH):
            insert(deployment, place, documents[start : start + _BATCH])


def _merge(deployment: Deployment) -> None:
    body = {
        "_mergeAuthzCollections": 1,
        "tempUsersCollection": f"{ADMIN}.{_TEMPORARY[USERS]}",
        "tempRolesCollection": f"{ADMIN}.{_TEMPORARY[ROLES]}",
        "db": "",
        "drop": False,
        "writeConcern": {"w": "majority"},
    }
    deployment.node().command(ADMIN, body, "restoring users and roles")


def _drop(deployment: Deployment) -> None:
    for name in _TEMPORARY.values():
        try:
            deployment.node().command(ADMIN, {"drop": name}, "dropping a temporary collection")
        except DedupstoreError as error:
            if code_of(error) not in {NAMESPACE_NOT_FOUND, 0}:
                return  # a user who may not; the finding of what comes first says so
