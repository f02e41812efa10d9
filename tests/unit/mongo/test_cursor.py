"""The documents of a reply, taken out of the array that they come in."""

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.mongo import cursor
from dedupstore.sources.mongo.cursor import Batch, unpacked, unpacked_plain

DOCUMENTS = st.lists(
    st.dictionaries(st.text("abc", max_size=3), st.integers(-9, 9) | st.text(max_size=5), max_size=3),
    max_size=130,
)


def packed(documents: list[bytes]) -> bytes:
    return raw.array((raw.OBJECT, doc) for doc in documents)


@given(DOCUMENTS)
def test_documents_come_out_as_they_went_in(values: list[dict[str, object]]) -> None:
    documents = [bson.encode(value) for value in values]
    batch = unpacked(packed(documents))
    assert batch == unpacked_plain(packed(documents))
    assert batch.data == b"".join(documents)
    assert batch.number == len(documents)
    if documents:
        assert batch.data[batch.last :] == documents[-1]


def test_positions_of_any_length() -> None:
    whole = packed([bson.encode({"n": n}) for n in range(10_012)])
    assert unpacked(whole).number == 10_012
    assert unpacked(whole) == unpacked_plain(whole)


@pytest.mark.parametrize("cut", range(12))
def test_a_short_buffer_is_refused(cut: int) -> None:
    whole = packed([b"\x05\0\0\0\0"])
    with pytest.raises(SourceError):
        unpacked(whole[:cut])
    assert unpacked(raw.EMPTY) == Batch(b"", 0, 0)


@given(DOCUMENTS, st.data())
def test_damage_is_refused_or_stays_within_the_documents(
    values: list[dict[str, object]], data: st.DataObject
) -> None:
    whole = bytearray(packed([bson.encode(value) for value in values]))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        batch = unpacked_plain(bytes(whole))
    except SourceError:
        assert cursor._native is None or cursor._native.unpack(whole) is None
        return
    assert unpacked(bytes(whole)) == batch
    assert len(list(raw.documents(batch.data))) == batch.number


@pytest.mark.parametrize("kind", [raw.ARRAY, raw.INT32, raw.NULL])
def test_what_is_no_document_is_refused(kind: int) -> None:
    value = {raw.ARRAY: raw.EMPTY, raw.INT32: raw.int32(1), raw.NULL: b""}[kind]
    with pytest.raises(SourceError, match="no array of documents"):
        unpacked(raw.array([(kind, value)]))
