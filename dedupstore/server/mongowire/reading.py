"""Commands that read documents: find, aggregate, count, distinct, and cursors."""

from collections.abc import Iterator
from dataclasses import replace

from dedupstore.query.failures import Failure, QueryError, bad_value, not_done
from dedupstore.query.filters import parse_filter
from dedupstore.query.finding import Answer, Find, collated, found, parse_find, piped
from dedupstore.query.paths import Path, reached, split
from dedupstore.query.stages import Stats, parse_pipeline
from dedupstore.query.targets import Target, is_simple, resolve
from dedupstore.query.values import (
    NUMBERS,
    Value,
    array_value,
    document_value,
    field_of,
    fields,
    integer_value,
    items,
    whole_number,
)
from dedupstore.query.work import OVERHEAD
from dedupstore.server.mongowire import catalog
from dedupstore.server.mongowire.batches import first_batch
from dedupstore.server.mongowire.cursors import BATCH_BYTES, Cursor
from dedupstore.server.mongowire.replies import Parts, cursor_parts
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Session
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key


def find(session: Session, request: Request) -> Parts:
    """Answer ``find``."""
    request.check(
        "filter sort projection hint skip limit batchSize singleBatch min max returnKey showRecordId "
        "tailable awaitData noCursorTimeout allowPartialResults collation allowDiskUse let term"
    )
    for name in (b"returnKey", b"showRecordId", b"tailable", b"awaitData"):
        if request.flag(name):
            raise not_done(f"find with {name.decode()}")
    for name in (b"filter", b"sort", b"projection", b"min", b"max", b"let"):
        request.document(name)  # for its type
    if request.document(b"let") != raw.EMPTY:
        raise not_done("find with let")
    asked = parse_find(request.given)
    asked = replace(asked, skip=request.number(b"skip", 0), limit=request.number(b"limit", 0) or None)
    target = _target(session, request, plain=asked.plain)
    _check_hint(request, target)
    answer = found(target, asked, session.work(request))
    cursor = Cursor(answer, f"{request.db}.{request.collection}", asked.limit)
    return first_batch(session, cursor, request.given.get(b"batchSize"), one=request.flag(b"singleBatch"))


def aggregate(session: Session, request: Request) -> Parts:
    """Answer ``aggregate``."""
    request.check("pipeline cursor explain allowDiskUse collation hint let bypassDocumentValidation")
    if request.flag(b"explain"):
        raise not_done("aggregate with explain")
    if request.document(b"let") != raw.EMPTY:
        raise not_done("aggregate with let")
    if b"cursor" not in request.given:
        raise QueryError(
            Failure.FailedToParse, "The 'cursor' option is required, except for aggregate with explain"
        )
    stages = parse_pipeline(request.array(b"pipeline"))
    if request.own[0] in NUMBERS:
        raise not_done("aggregate of a database, and not of a collection,")
    target = _target(session, request, plain=not collated(stages))
    _check_hint(request, target)
    work = session.work(request)
    if stages and isinstance(stages[0], Stats):
        document = catalog.collection_stats(session, request, stages[0].wanted)
        answer = Answer(work)
        answer.gives(answer.through(iter((document,)), stages))
    else:
        answer = piped(target, stages, work)
    batch = dict(fields(document_value(request.document(b"cursor")))).get(b"batchSize")
    return first_batch(session, Cursor(answer, f"{request.db}.{request.collection}"), batch)


def count(session: Session, request: Request) -> Parts:
    """Answer ``count``."""
    request.check("query limit skip hint collation fields")
    asked = parse_filter(request.document(b"query"))
    limit = _signed(request.given.get(b"limit"))
    skip = request.number(b"skip", 0)
    target = _target(session, request, plain=not asked.collated)
    _check_hint(request, target)
    collection = target.collection
    number = collection.count if collection is not None and not target.stages and asked.everything else None
    if number is None:
        work = session.work(request)
        answer = found(target, Find(asked, limit=skip + limit if limit else None), work)
        try:
            number = sum(1 for _ in answer)
        finally:
            answer.close()
    number = max(number - skip, 0)
    return [field_of(b"n", integer_value(min(number, limit) if limit else number))]


def _signed(value: Value | None) -> int:
    """Return a limit, which may be negative and then means the same."""
    number = 0 if value is None or value[0] not in NUMBERS else whole_number(value)
    if number is None:
        raise bad_value("the limit is no whole number")
    return abs(number)


def distinct(session: Session, request: Request) -> Parts:
    """Answer ``distinct``: the values in the order in which they were first met."""
    request.check("key query collation hint")
    key = request.text(b"key").encode("utf-8", "surrogateescape")
    path = split(key)
    asked = parse_filter(request.document(b"query"))
    target = _target(session, request, plain=False)
    answer = found(target, Find(asked), session.work(request))
    seen: dict[bytes, Value] = {}
    size = 0
    try:
        for document in answer:
            for value in _each(document, path):
                known = sort_key(value)
                if known not in seen:
                    answer.work.hold(len(known) + len(value) + OVERHEAD)
                    seen[known] = value
                    size += len(value) + 8
                    if size > BATCH_BYTES:
                        raise QueryError(Failure.Location17217, "distinct too big, 16mb cap")
    finally:
        answer.close()
    return [field_of(b"values", array_value(seen.values()))]


def _each(document: bytes, path: Path) -> Iterator[Value]:
    """Yield the values at a path: the items of an array, never the array."""
    for value in reached(document, path, expand=False):
        if value[:1] == b"\x04":
            yield from items(value)
        elif value:
            yield value


def get_more(session: Session, request: Request) -> Parts:
    """Answer ``getMore``."""
    request.check("collection batchSize term lastKnownCommittedOpTime")
    identifier = whole_number(request.own) if request.own[0] in NUMBERS else None
    if identifier is None:
        raise bad_value("getMore needs the number of a cursor")
    namespace = f"{request.db}.{request.text(b'collection')}"
    cursors = session.service.cursors
    cursor = cursors.take(identifier, namespace)
    cursor.answer.work.check = session.watch(request.max_time)
    try:
        batch = cursor.batch(request.number(b"batchSize", 0) or None, session.room)
    except BaseException:
        cursors.drop(cursor)
        raise
    if cursor.done:
        cursors.drop(cursor)
        identifier = 0
    else:
        cursors.give(cursor)
    return cursor_parts(batch.parts, batch.size, identifier, namespace, first=False)


def kill_cursors(session: Session, request: Request) -> Parts:
    """Answer ``killCursors``."""
    request.check("cursors")
    namespace = f"{request.db}.{request.collection}"
    killed: list[Value] = []
    unknown: list[Value] = []
    for value in request.array(b"cursors"):
        identifier = whole_number(value)
        there = identifier is not None and session.service.cursors.kill(identifier, namespace)
        (killed if there else unknown).append(value)
    empty = array_value(())
    return [
        field_of(b"cursorsKilled", array_value(killed)),
        field_of(b"cursorsNotFound", array_value(unknown)),
        field_of(b"cursorsAlive", empty),
        field_of(b"cursorsUnknown", empty),
    ]


def _target(session: Session, request: Request, *, plain: bool) -> Target:
    """Return what is read; ``plain``: no collation can matter. Raises `QueryError`."""
    name = request.collection
    target = resolve(session.service.view, request.db, name, buckets=request.flag(b"rawData"))
    collation = request.document(b"collation")
    if collation != raw.EMPTY:
        if raw.field(collation, b"locale") is None:
            raise bad_value("a collation needs a locale")
        if not is_simple(collation):
            raise not_done("a collation other than {locale: 'simple'}")
    elif target.collated and not plain:
        raise not_done(
            f"comparing or sorting by the collation of {request.db}.{name} (ask with "
            "collation {locale: 'simple'} for the order of bytes): it"
        )
    return target


def _check_hint(request: Request, target: Target) -> None:
    """Refuse a hint at what is not there, or at an index that does not have every document."""
    hint = request.given.get(b"hint")
    if hint is None or target.collection is None or target.stages:
        return
    if hint[0] == raw.OBJECT:
        names = [name for name, _ in fields(hint)]
        if not names or names in ([b"$natural"], [b"_id"]):
            return
    elif hint[0] != raw.STRING:
        raise bad_value("hint must be either a string or nested object")
    elif raw.text_of(hint[1:]) == b"_id_":
        return
    for index in target.collection.info.indexes:
        given = dict(fields(document_value(index)))
        if hint in {given.get(b"name"), given.get(b"key")}:
            if given.keys() & {b"sparse", b"partialFilterExpression"}:
                raise not_done("a hint at an index that does not have every document")
            return
    raise bad_value("hint provided does not correspond to an existing index")
