"""Documents of any shape, whole and broken: walked as they were built, or refused, never anything else."""

from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.model import Data
from dedupstore.sources.bson import raw
from tests.unit.bson.bson_values import DOCUMENTS, parts


def trouble(walk: Callable[[Any], Iterable[object] | None], data: Data) -> int | None:
    """Return the byte at which a walk finds something wrong."""
    try:
        list(walk(data) or ())
    except SourceError as error:
        offset = error.data["offset"]
        assert isinstance(offset, int)
        return offset
    return None


def rebuilt(doc: bytes) -> bytes:
    """Put a document together again from what walking finds, all the way down."""
    fields = []
    for name, kind, start, end in raw.elements(doc):
        value = doc[start:end]
        if kind in {raw.OBJECT, raw.ARRAY}:
            value = rebuilt(value)
        elif kind == raw.CODE_W_SCOPE:
            scope = raw.value_end(value, raw.STRING, 4, len(value))
            value = value[:scope] + rebuilt(value[scope:])
        fields.append((name, kind, value))
    return raw.document(fields)


@given(DOCUMENTS)
@settings(max_examples=300)
def test_walking_gives_back_what_was_built(doc: bytes) -> None:
    raw.validate(doc)
    assert rebuilt(doc) == doc
    assert [(e.name, (e.type, doc[e.start : e.end])) for e in raw.elements(doc)] == parts(doc)
    identities = [bytes((kind,)) + data for name, (kind, data) in parts(doc) if name == b"_id"]
    assert raw.id_of(doc) == (identities[0] if identities else b"")


@given(
    doc=DOCUMENTS,
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 8),
    more=st.binary(max_size=3),
)
@settings(max_examples=400)
def test_broken_documents(doc: bytes, changes: list[tuple[int, int]], cut: int, more: bytes) -> None:
    broken = bytearray(doc)
    for at, byte in changes:
        broken[at % len(doc)] = byte
    data = bytes(broken[: len(doc) - cut]) + more
    if trouble(raw.validate, data) is None:
        assert rebuilt(data) == data
    for walk in (raw.elements, raw.id_of, raw.documents):
        here, shifted = trouble(walk, data), trouble(walk, memoryview(data))
        assert here == shifted
        assert here is None or 0 <= here <= len(data)


@given(st.binary(max_size=80))
@settings(max_examples=500)
def test_any_bytes(data: bytes) -> None:
    framed = raw.framed(data)
    try:
        raw.validate(framed)
    except SourceError:
        return
    assert rebuilt(framed) == framed
