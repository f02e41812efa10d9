"""First batches: how an answer becomes a cursor."""

from collections.abc import Iterator

from dedupstore.query.failures import bad_value
from dedupstore.query.finding import Answer
from dedupstore.query.values import NUMBERS, Value, document_value, fields, whole_number
from dedupstore.server.mongowire.cursors import FIRST_BATCH, Cursor
from dedupstore.server.mongowire.replies import Parts, cursor_parts
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Session


def first_batch(session: Session, cursor: Cursor, size: Value | None, *, one: bool = False) -> Parts:
    """Return the first batch, and keep the cursor if more is to come."""
    number = FIRST_BATCH if size is None else whole_number(size) if size[0] in NUMBERS else None
    if number is None or number < 0:
        cursor.answer.close()
        raise bad_value("batchSize must be a whole number that is not negative")
    kept = False
    try:
        batch = cursor.batch(number, session.room)
        identifier = 0
        if not cursor.done and not one:
            identifier = session.service.cursors.keep(cursor)
            kept = True
    finally:
        if not kept:
            cursor.answer.close()
    return cursor_parts(batch.parts, batch.size, identifier, cursor.namespace, first=True)


def listed(documents: Iterator[bytes], session: Session, request: Request, name: str) -> Parts:
    """Return a cursor over documents that are made here, such as those of ``listCollections``."""
    answer = Answer(session.work(request)).gives(documents)
    batch = dict(fields(document_value(request.document(b"cursor")))).get(b"batchSize")
    return first_batch(session, Cursor(answer, f"{request.db}.{name}"), batch)
