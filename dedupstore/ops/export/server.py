"""A live server as the outlet: documents first, then indexes, views and users."""

from dataclasses import dataclass
from pathlib import Path

from dedupstore.clock import Clock
from dedupstore.errors import TargetError
from dedupstore.ops.export.export import Outlet
from dedupstore.sources.mongo.client import connect
from dedupstore.sources.mongo.load import Existing, Loader, LoadOptions

EXISTING = {one.value: one for one in Existing}


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """Where to, and what becomes of what is there."""

    uri: str
    """With credentials: in no message, not stored."""
    existing: Existing = Existing.REFUSE
    state: Path | None = None
    """File that keeps how far it has come, so that a second run can go on."""
    anew: bool = False
    """Whether it begins from the start whatever is in that file."""
    users: bool = True
    indexes: bool = True


def server_outlet(target: ServerTarget, job: str, clock: Clock, *, look: bool = False) -> Outlet:
    """Connect, and return the server as an outlet; with ``look`` one that writes nothing.

    ``job`` says what is loaded, so that ``state`` is not taken for that of another restore. Raises
    `UsageError` for a URI that can not be read or a state of another job, `AccessError`, `TargetError`.
    """
    deployment = connect(target.uri, family=TargetError, clock=clock)
    options = LoadOptions(
        existing=target.existing,
        dry_run=look,
        users=target.users,
        indexes=target.indexes,
        state=target.state,
        anew=target.anew,
    )
    try:
        return Loader(deployment, options, job=job, clock=clock)
    except BaseException:
        deployment.close()
        raise
