"""Writing one collection: raw documents in large unordered inserts by several threads at once.

A batch that met a lost connection is sent again; a document of it that is there already is then put in place
as a whole, as it is wherever existing documents are to be replaced. Progress is the last ``_id`` up to
which everything has arrived.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bson.timestamp import Timestamp

from dedupstore.errors import DedupstoreError, TargetError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.extjson import shown_value
from dedupstore.sources.mongo.client import Deployment, Node, document, value_of
from dedupstore.sources.mongo.cursor import Cursor, unpacked
from dedupstore.sources.mongo.failures import DUPLICATE_KEY, is_transient

BATCH_BYTES = 2 << 20
"""Of an insert: it must stay well below 16 MiB with everything around it."""
BATCH_DOCUMENTS = 10_000
ALONE = 12 << 20
"""Bytes: a longer document goes by itself, in a message that may be larger than a document."""
WRITERS = 8
ATTEMPTS = 8
_LOOK = 1000
"""Documents that are looked at in one request."""
_ZERO = re.compile(rb"\x11[^\0]*\0\0{8}")
"""A timestamp of zero, perhaps: servers put the present one in its place where it is a field of its own."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where documents go."""

    db: str
    name: str
    ordered: bool = False
    """One writer, one after another: capped collections."""
    replace: bool = False
    """Whether a document that is there already is replaced; else it is an error."""
    raw: bool = False
    """Whether the server must be told that these are buckets."""

    @property
    def doing(self) -> str:
        """For messages."""
        return f"writing {self.db}.{self.name}"


class Writer:
    """Writes documents to one place. `write` and `finish` belong to one thread; close it in every case.

    Memory: two batches a thread, and what the driver makes of them: about 60 MiB with 8 of them.
    """

    def __init__(
        self,
        deployment: Deployment,
        place: Place,
        *,
        writers: int = WRITERS,
        progress: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """``progress`` hears the identity up to which all is written, from the writing threads."""
        self._deployment = deployment
        self._place = place
        self._progress = progress
        count = 1 if place.ordered else writers
        self._queue: queue.Queue[tuple[int, list[bytes]] | None] = queue.Queue(count)
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._sent = 0
        self._next = 0
        self._done: dict[int, bytes] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"write-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def write(self, documents: Iterable[bytes]) -> None:
        """Write documents. Raises `TargetError`, `AccessError`, and what the documents raise."""
        batch: list[bytes] = []
        size = 0
        for doc in documents:
            if batch and (size + len(doc) > BATCH_BYTES or len(batch) == BATCH_DOCUMENTS):
                self._send(batch)
                batch, size = [], 0
            batch.append(doc)
            size += len(doc)
        if batch:
            self._send(batch)

    def finish(self) -> None:
        """Wait until all is written; raises what went wrong."""
        with self._changed:
            while self._next < self._sent and self._error is None:
                self._changed.wait()
        self._check()

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _send(self, batch: list[bytes]) -> None:
        self._check()
        self._queue.put((self._sent, batch))
        self._sent += 1

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            number, batch = task
            try:
                if self._error is None:
                    insert(self._deployment, self._place, batch)
                    self._arrived(number, raw.id_of(batch[-1]))
            except BaseException as error:  # noqa: BLE001 - handed to whoever writes
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()

    def _arrived(self, number: int, last: bytes) -> None:
        with self._changed:
            self._done[number] = last
            upto = b""
            while self._next in self._done:
                upto = self._done.pop(self._next)
                self._next += 1
            if upto:
                self._progress(upto)
            self._changed.notify_all()


def insert(deployment: Deployment, place: Place, batch: Sequence[bytes]) -> None:
    """Write a batch, on whatever node answers. Raises `TargetError` naming the first document refused."""
    again = place.replace
    for attempt in range(ATTEMPTS):
        node = deployment.node()
        try:
            _insert(node, place, batch, replace=again)
        except DedupstoreError as error:
            if not is_transient(error) or attempt == ATTEMPTS - 1:
                raise
            deployment.pause(attempt)
            deployment.replace(node)
            again = True  # what of it arrived is not known
        else:
            return


def _insert(node: Node, place: Place, batch: Sequence[bytes], *, replace: bool) -> None:
    alone = len(batch) == 1 and len(batch[0]) > ALONE
    if alone:
        duplicate = node.insert_alone(place.db, place.name, batch[0], place.doing, replace=replace)
        if duplicate:
            raise _refused(place, batch[0], "is there already")
    else:
        body: dict[str, Any] = {
            "insert": place.name,
            "documents": [document(doc) for doc in batch],
            "ordered": place.ordered,
            "bypassDocumentValidation": True,
        }
        reply = node.command(place.db, _raw_and_zero(node, place, body), place.doing)
        refused = _refusals(reply)
        if refused:
            _settle(node, place, batch, refused, replace=replace)
    if alone or not _keeps_zero(node):
        _keep_zeros(node, place, batch)


def _settle(
    node: Node, place: Place, batch: Sequence[bytes], refused: list[tuple[int, int, str]], *, replace: bool
) -> None:
    """Replace what is there already, where that is wanted; raise for everything else."""
    for index, code, said in refused:
        if code != DUPLICATE_KEY or not replace:
            raise _refused(place, batch[index], f"was answered with {said!r} ({code})")
    if place.ordered:  # the server stopped at the first one
        _replace(node, place, batch[refused[0][0]])
        rest = batch[refused[0][0] + 1 :]
        if rest:
            _insert(node, place, rest, replace=replace)
        return
    for index, _, _ in refused:
        _replace(node, place, batch[index])


def _replace(node: Node, place: Place, doc: bytes) -> None:
    identity = raw.id_of(doc)
    query = document(raw.document([(b"_id", identity[0], identity[1:])]))
    body: dict[str, Any] = {
        "update": place.name,
        "updates": [{"q": query, "u": document(doc), "upsert": True}],
        "bypassDocumentValidation": True,
    }
    for _, code, said in _refusals(node.command(place.db, _raw_and_zero(node, place, body), place.doing)):
        raise _refused(place, doc, f"was answered with {said!r} ({code})")


def _raw_and_zero(node: Node, place: Place, body: dict[str, Any]) -> dict[str, Any]:
    if _keeps_zero(node):
        body["bypassEmptyTsReplacement"] = True
    if place.raw:
        body["rawData"] = True
    return body


def _keeps_zero(node: Node) -> bool:
    """Say whether a server can be told to leave timestamps of zero alone."""
    return node.facts.mongod and node.facts.numbers >= (8, 2)


def _keep_zeros(node: Node, place: Place, batch: Sequence[bytes]) -> None:
    """Look whether the server put the present time where a zero was, and put the zeros back."""
    doubtful = {}
    for doc in batch:
        if _ZERO.search(doc) is not None and (names := _zeros(doc)):
            doubtful[raw.id_of(doc)] = (doc, names)
    identities = [identity for identity in doubtful if identity]
    for start in range(0, len(identities), _LOOK):
        part = identities[start : start + _LOOK]
        wanted = raw.array((identity[0], identity[1:]) for identity in part)
        query = {"_id": document(raw.document([(b"$in", raw.ARRAY, wanted)]))}
        with node.session() as session:
            body = {"find": place.name, "filter": query}
            with Cursor(node, place.db, body, place.doing, session=session) as cursor:
                for found in cursor.documents():
                    doc, names = doubtful.get(raw.id_of(found), (found, []))
                    if found != doc:
                        _put_zeros(node, place, doc, names)


def _zeros(doc: bytes) -> list[bytes]:
    """Return the fields that are timestamps of zero; that of ``_id`` is left alone by servers."""
    zero = raw.timestamp(0, 0)
    return [
        name
        for name, kind, start, end in raw.elements(doc)
        if kind == raw.TIMESTAMP and doc[start:end] == zero and name != b"_id"
    ]


def _put_zeros(node: Node, place: Place, doc: bytes, names: Sequence[bytes]) -> None:
    """Set fields to zero by a pipeline, in whose results servers leave zeros alone."""
    identity = raw.id_of(doc)
    query = document(raw.document([(b"_id", identity[0], identity[1:])]))
    stages = [
        {
            "$replaceWith": {
                "$setField": {
                    "field": {"$literal": name.decode("utf-8", "surrogateescape")},
                    "input": "$$ROOT",
                    "value": {"$literal": Timestamp(0, 0)},
                }
            }
        }
        for name in names
    ]
    body = {"update": place.name, "updates": [{"q": query, "u": stages}], "bypassDocumentValidation": True}
    for _, code, said in _refusals(node.command(place.db, body, place.doing)):
        raise _refused(place, doc, f"has a timestamp of zero that can not be kept: {said!r} ({code})")


def _refusals(reply: bytes) -> list[tuple[int, int, str]]:
    """Return the errors in a reply to a write: position, code, what was said."""
    found = value_of(reply, b"writeErrors")
    if found is None or found[0] != raw.ARRAY:
        return []
    errors = []
    for error in raw.documents(unpacked(found[1]).data):
        index, code, said = (value_of(error, name) for name in (b"index", b"code", b"errmsg"))
        errors.append(
            (
                raw.int_of(*index) if index else 0,
                raw.int_of(*code) if code else 0,
                raw.text_of(said[1]).decode("utf-8", "replace")[:200] if said else "",
            )
        )
    return sorted(errors)


def _refused(place: Place, doc: bytes, how: str) -> TargetError:
    return TargetError(
        f"{place.doing}: the document with the _id {shown_value(raw.id_of(doc))} {how}; "
        "empty the target or let existing documents be replaced"
    )
