import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson import buffers, raw
from tests.support.dumps import numbered
from tests.unit.bson.bson_values import SCALARS

IDS = st.one_of(
    SCALARS,
    st.integers(-5, 5).map(lambda number: (raw.INT32, raw.int32(number))),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: (raw.INT64, raw.int64(number))),
    st.integers(-(2**54), 2**54).map(lambda number: (raw.DOUBLE, raw.double(float(number)))),
    st.binary(max_size=8).map(lambda text: (raw.STRING, raw.string(text))),
)
OTHERS = st.lists(st.tuples(st.sampled_from([b"a", b""]), IDS), max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    before = draw(OTHERS) if draw(st.integers(0, 5)) == 0 else []
    own = [] if draw(st.integers(0, 9)) == 0 else [(b"_id", draw(IDS))]
    return raw.document((name, *value) for name, value in [*before, *own, *draw(OTHERS)])


PARTS = st.lists(st.lists(documents(), max_size=5), max_size=4)


def in_order(part: list[bytes]) -> list[bytes]:
    return sorted(part, key=buffers.key_of)


@given(PARTS)
def test_merging_is_sorting_and_keeps_equal_ones_in_place(parts: list[list[bytes]]) -> None:
    joined = [b"".join(part) for part in parts]
    out = memoryview(bytearray(sum(map(len, joined))))
    merged = buffers.merge(joined, None, out)
    assert merged == (len(out), tuple(map(len, joined)))
    assert bytes(out) == b"".join(in_order([document for part in parts for document in part]))


@given(PARTS, documents())
def test_a_bound_lets_through_what_is_not_above_it(parts: list[list[bytes]], limit: bytes) -> None:
    joined = [b"".join(in_order(part)) for part in parts]
    bound = buffers.key_of(limit)
    outs = [memoryview(bytearray(sum(map(len, joined)))) for _ in range(2)]
    merged = buffers.merge(joined, bound, outs[0])
    assert merged == buffers.merge_plain(joined, bound, outs[1])
    assert outs[0] == outs[1]
    kept = [each for part in parts for each in in_order(part) if buffers.key_of(each) <= bound]
    assert bytes(outs[0][: merged.size]) == b"".join(in_order(kept))


@given(st.lists(documents(), max_size=5), st.binary(max_size=20), st.integers(0, 6))
def test_whole_documents_are_found_alike(found: list[bytes], tail: bytes, most: int) -> None:
    data = b"".join(found) + tail
    whole = buffers.whole(data, most)
    assert whole == buffers.whole_plain(data, most)
    least = min(len(found), most)
    assert whole.end >= sum(map(len, found[:least]))
    assert whole.documents >= least


def test_a_document_that_is_not_whole_is_not_found() -> None:
    one = numbered(1)
    assert buffers.whole(one) == (len(one), 1, 0, len(one))
    assert buffers.whole(one[:-1]).end == 0
    assert buffers.whole(one[:-1] + b"\1").end == 0
    assert buffers.whole(struct.pack("<i", 4) + b"\0").end == 0
    assert buffers.whole(struct.pack("<i", -1) + bytes(20)).end == 0
    assert buffers.whole(one + one[:-1]) == (len(one), 1, 0, len(one))
    large = struct.pack("<i", raw.DOCUMENT_MAX + 1) + bytes(raw.DOCUMENT_MAX - 3)
    assert buffers.whole(large).end == 0


@pytest.mark.parametrize("merge", [buffers.merge, buffers.merge_plain])
def test_an_id_that_can_not_be_made_out_is_refused(merge) -> None:  # type: ignore[no-untyped-def]
    bad = raw.framed(b"\x02_id\0" + struct.pack("<i", 99) + b"x\0")
    with pytest.raises(SourceError):
        merge([bad], None, memoryview(bytearray(len(bad))))


def test_the_native_code_refuses_what_it_can_not_do() -> None:
    if buffers._native is None:
        pytest.skip("the native code was not built")
    one = numbered(1)
    with pytest.raises(ValueError, match="whole documents"):
        buffers.merge([one[:-1]], None, memoryview(bytearray(200)))
    with pytest.raises(ValueError, match="smaller"):
        buffers.merge([one], None, memoryview(bytearray(len(one) - 1)))
    with pytest.raises(TypeError):
        buffers.merge([1], None, memoryview(bytearray(1)))  # type: ignore[list-item]
