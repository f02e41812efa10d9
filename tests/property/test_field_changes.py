"""What changed between two documents: said completely, and nothing else."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from dedupstore.documents.fields import FieldChange, changed_fields
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.extjson import shown_value

NAMES = st.sampled_from(["", "a", "b", "a.b", "ü", "$x"])
LEAVES = st.integers(-3, 3) | st.text(max_size=3) | st.none() | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=5)


def value(found: object) -> tuple[int, bytes]:
    match found:
        case bool():
            return raw.BOOL, bytes((found,))
        case None:
            return raw.NULL, b""
        case int():
            return raw.INT32, raw.int32(found)
        case str():
            return raw.STRING, raw.string(found)
        case list():
            return raw.ARRAY, raw.array(map(value, found))
    assert isinstance(found, Mapping)
    return raw.OBJECT, document(found)


def document(fields: Mapping[str, object]) -> bytes:
    return raw.document((name.encode(), *value(one)) for name, one in fields.items())


def paths(changes: list[FieldChange]) -> list[str]:
    return [
        f"{'.'.join(name.decode() for name in change.path)}: "
        f"{'' if change.before is None else shown_value(change.before)}"
        f">{'' if change.after is None else shown_value(change.after)}"
        for change in changes
    ]


@given(DOCUMENTS)
def test_a_document_is_no_different_from_itself(fields: dict[str, object]) -> None:
    assert list(changed_fields(document(fields), document(fields))) == []


@given(DOCUMENTS, DOCUMENTS)
def test_undone_backwards_it_is_what_it_was(before: dict[str, object], after: dict[str, object]) -> None:
    there = set(changed_fields(document(before), document(after)))
    back = {
        FieldChange(path, new, old) for path, old, new in changed_fields(document(after), document(before))
    }
    assert there == back
    assert bool(there) == (document(before) != document(after))


@given(st.dictionaries(NAMES, LEAVES, max_size=5), st.dictionaries(NAMES, LEAVES, max_size=5))
def test_every_plain_field_is_told_once(before: dict[str, object], after: dict[str, object]) -> None:
    changes = list(changed_fields(document(before), document(after)))
    wanted = {
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or value(before[name]) != value(after[name])
    }
    told = [change.path[0].decode() for change in changes if change.path]
    assert sorted(told) == sorted(wanted)
    if not wanted and document(before) != document(after):
        assert [change.path for change in changes] == [()]


def test_what_an_array_gains_or_loses_moves_nothing_else() -> None:
    def told(before: list[object], after: list[object]) -> list[str]:
        return paths(list(changed_fields(document({"x": before}), document({"x": after}))))

    assert told([1, 2], [1, 2, 3]) == ["x.2: >3"]
    assert told([1, 2, 3], [2, 3]) == ["x.0: 1>"]
    assert told([1, 2, 3], [1, 5, 3]) == ["x.1: 2>5"]
    assert told([{"a": 1}, 2], [{"a": 2}, 2]) == ["x.0.a: 1>2"]


def test_a_name_that_occurs_twice() -> None:
    before = raw.document([(b"a", raw.INT32, raw.int32(1)), (b"a", raw.INT32, raw.int32(2))])
    after = raw.document([(b"a", raw.INT32, raw.int32(1)), (b"a", raw.INT32, raw.int32(3))])
    assert paths(list(changed_fields(before, after))) == ["a: 2>3"]
