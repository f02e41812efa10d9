"""Reading one range of a collection to its end, whatever happens to the connection or the collection's name.

A range that broke off is gone on with after the last ``_id`` that arrived, on the same node or another of its
set. A collection that was renamed is read on under its new name. One that was dropped ends where it is if
the log of the time is kept, since the log tells of it; without a log that is `SourceVanished`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from dedupstore.errors import DedupstoreError, SourceError, SourceVanished
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo.catalog import Listed, is_still, name_of
from dedupstore.sources.mongo.client import Deployment, Node
from dedupstore.sources.mongo.cursor import Batch, Cursor
from dedupstore.sources.mongo.failures import (
    CURSOR_NOT_FOUND,
    NAMESPACE_NOT_FOUND,
    QUERY_PLAN_KILLED,
    SNAPSHOT_TOO_OLD,
    SNAPSHOT_UNAVAILABLE,
    code_of,
    interrupted,
    is_transient,
)
from dedupstore.sources.mongo.ranges import Plan, Range, plan_after

ATTEMPTS = 8
"""How often a range is asked for again without a document in between."""
_GONE = frozenset((NAMESPACE_NOT_FOUND, QUERY_PLAN_KILLED))
_OVER = frozenset((SNAPSHOT_TOO_OLD, SNAPSHOT_UNAVAILABLE))


class Moment(Protocol):
    """What is asked of the moment, or the time, that the collections are read at."""

    def concern_of(self, capped: bool) -> dict[str, Any] | None:
        """Return the read concern for a collection, as of now; asked again before every read."""
        ...

    @property
    def logged(self) -> bool:
        """Whether the log of the time of reading is kept, so that a drop need not be an error."""
        ...

    def pass_over(self) -> bool:
        """The server has no longer what it was at the moment: say whether to read on as things are now."""
        ...

    def check(self, node: Node) -> None:
        """Raise `SourceError` (transient) if a node is not as far as the time of reading."""
        ...


@dataclass(slots=True)
class Subject:
    """A collection while it is read."""

    listed: Listed
    name: str
    """What it is called now."""
    plan: Plan

    @property
    def doing(self) -> str:
        """For messages."""
        return f"reading {self.listed.info.namespace}"


class RangeReader:
    """One range. `batches` belongs to one thread. Memory: one reply."""

    def __init__(
        self,
        deployment: Deployment,
        moment: Moment,
        subject: Subject,
        part: Range,
        stopped: Callable[[], bool],
    ) -> None:
        self._deployment = deployment
        self._moment = moment
        self._subject = subject
        self._part = part
        self._stopped = stopped
        self._last = b""  # identity of the last document that arrived
        self._began = False
        self._failed = 0

    def batches(self) -> Iterator[Batch]:
        """Yield the range's documents. Raises `SourceError` and its kin, `AccessError`, `Interrupted`."""
        while True:
            node = self._deployment.node()
            try:
                yield from self._read(node)
            except DedupstoreError as error:
                if not self._goes_on(node, error):
                    return
            else:
                return

    def _read(self, node: Node) -> Iterator[Batch]:
        subject = self._subject
        plan, part = subject.plan, self._part
        concern = self._moment.concern_of(subject.listed.capped)
        if self._last:
            after = plan_after(node, subject.listed, plan, concern)
            if after is None:
                raise SourceError(f"{subject.doing} broke off and can not be gone on with: run it again")
            plan, part = after, part._replace(low=self._last)
        body = plan.body(subject.name, part, concern)
        info = subject.listed.info
        with (
            node.session() as session,
            Cursor(node, info.db, body, subject.doing, size=plan.documents, session=session) as cursor,
        ):
            skip = self._last
            for batch in cursor.batches():
                if self._stopped():
                    raise interrupted(subject.doing)
                self._failed = 0
                if skip:
                    batch, skip = _without_first(batch, skip), b""
                if batch.number:
                    self._began = True
                    self._last = raw.id_of(batch.data, batch.last)
                    yield batch

    def _goes_on(self, node: Node, error: DedupstoreError) -> bool:
        """Make ready for another attempt; False if the collection is gone and that is well. Or raise."""
        code = code_of(error)
        if code in _OVER and self._moment.pass_over():
            return True
        if code in _GONE:
            return self._is_there(node, error)
        if not is_transient(error):
            raise error
        self._count(error)
        if code != CURSOR_NOT_FOUND:
            self._wait_for(self._deployment.replace(node))
        return True

    def _is_there(self, node: Node, error: DedupstoreError) -> bool:
        info = self._subject.listed.info
        name = name_of(node, info.db, info.uuid) if info.uuid else None
        if name is None and self._moment.logged and info.uuid:
            return False
        if name is None:
            raise vanished(self._subject.listed) from error
        if name == self._subject.name:
            self._count(error)
        self._subject.name = name
        return True

    def _wait_for(self, node: Node) -> None:
        """Wait until a node that took over has what was read before."""
        for attempt in range(ATTEMPTS * 10):
            try:
                self._moment.check(node)
            except SourceError as error:
                if not is_transient(error) or attempt == ATTEMPTS * 10 - 1:
                    raise
                self._deployment.pause(attempt)
            else:
                return

    def _count(self, error: DedupstoreError) -> None:
        self._failed += 1
        if self._failed > ATTEMPTS or (self._began and not self._last):
            raise error
        self._deployment.pause(self._failed - 1)


def check_unchanged(deployment: Deployment, listed: Listed) -> None:
    """Raise `SourceVanished` if a collection was dropped while it was read, or another has its name now."""
    info = listed.info
    if not info.uuid:
        return
    node = deployment.node()
    try:
        still = is_still(node, info.db, listed.data, info.uuid)
    except SourceError as error:
        if not is_transient(error):
            raise
        still = is_still(deployment.replace(node), info.db, listed.data, info.uuid)
    if not still:
        raise vanished(listed)


def vanished(listed: Listed) -> SourceVanished:
    """Return the error for a collection that is gone."""
    name = listed.info.namespace
    return SourceVanished(
        f"{name} was dropped or renamed while it was read: run it again if it should be there"
    )


def _without_first(batch: Batch, identity: bytes) -> Batch:
    """Leave out the first document if it is the one that arrived last before."""
    if raw.id_of(batch.data) != identity:
        return batch
    end = raw.document_at(batch.data, 0)
    return Batch(batch.data[end:], batch.number - 1, max(batch.last - end, 0))
