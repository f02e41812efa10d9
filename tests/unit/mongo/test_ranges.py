"""Ranges of ``_id``: together they are the collection, whatever was sampled."""

import bson
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.mongo.ranges import Range, ranges_between

VALUES = (
    st.integers(-5, 5)
    | st.floats(-5, 5)
    | st.text("ab", max_size=3)
    | st.booleans()
    | st.none()
    | st.binary(max_size=3)
)
IDENTITIES = st.lists(VALUES.map(lambda value: raw.id_of(bson.encode({"_id": value}))), max_size=40)


@given(IDENTITIES, st.integers(1, 12), IDENTITIES)
def test_every_id_is_in_exactly_one_range(sampled: list[bytes], wanted: int, others: list[bytes]) -> None:
    ranges = ranges_between(sampled, wanted)
    assert 1 <= len(ranges) <= wanted
    for identity in others + sampled:
        assert sum(holds(part, identity) for part in ranges) == 1


@given(IDENTITIES, st.integers(1, 12))
def test_ranges_are_in_order(sampled: list[bytes], wanted: int) -> None:
    ranges = ranges_between(sampled, wanted)
    assert ranges[0].low == b""
    assert ranges[-1].high == b""
    fences = [sort_key(part.low) for part in ranges[1:]]
    assert fences == sorted(set(fences))


def holds(part: Range, identity: bytes) -> bool:
    key = sort_key(identity)
    return (not part.low or sort_key(part.low) <= key) and (not part.high or key < sort_key(part.high))
