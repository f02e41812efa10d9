"""Updates of any shape on documents of any shape: as another applier does them, or refused; nothing else."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.compose import patch_of
from dedupstore.sources.oplog.diff import apply_update, check_update
from dedupstore.testing.oplog.patch import patched
from dedupstore.testing.oplog.updates import Edit, difference, difference_entry, in_server_order

EXAMPLES = 100
NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"s", b"0", b"1", b"", b"x.y"])
SCALARS = st.one_of(
    st.integers(0, 3).map(lambda n: (raw.INT32, raw.int32(n))),
    st.sampled_from([b"", b"text"]).map(lambda t: (raw.STRING, raw.string(t))),
    st.just((raw.NULL, b"")),
)


def documents(values: st.SearchStrategy[tuple[int, bytes]]) -> st.SearchStrategy[bytes]:
    fields = st.lists(st.tuples(NAMES, values), max_size=4, unique_by=lambda field: field[0])
    return fields.map(lambda found: raw.document((name, *value) for name, value in found))


def nested(values: st.SearchStrategy[tuple[int, bytes]]) -> st.SearchStrategy[tuple[int, bytes]]:
    return st.one_of(
        documents(values).map(lambda doc: (raw.OBJECT, doc)),
        st.lists(values, max_size=4).map(lambda found: (raw.ARRAY, raw.array(found))),
    )


VALUES = st.one_of(SCALARS, nested(SCALARS), nested(st.one_of(SCALARS, nested(SCALARS))))
DOCUMENTS = documents(VALUES)
TWICE = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(lambda fs: raw.document((n, *v) for n, v in fs))


def section(name: bytes, fields: Iterable[tuple[bytes, tuple[int, bytes]]]) -> list[tuple[bytes, int, bytes]]:
    made = [(field, *value) for field, value in fields]
    return [(name, raw.OBJECT, raw.document(made))] if made else []


@st.composite
def differences(draw: st.DrawFn, depth: int = 3) -> bytes:
    """A difference of documents that need not fit any document."""
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    parts: dict[str, list[Any]] = {"d": [], "u": [], "i": [], "s": []}
    for name in names:
        parts[draw(st.sampled_from("duis" if depth else "dui"))].append(name)
    fields = section(b"d", [(name, (raw.BOOL, b"\0")) for name in parts["d"]])
    fields += section(b"u", [(name, draw(VALUES)) for name in parts["u"]])
    fields += section(b"i", [(name, draw(VALUES)) for name in parts["i"]])
    for name in parts["s"]:
        inner = draw(st.one_of(differences(depth - 1), arrays(depth - 1)))
        fields.append((b"s" + name, raw.OBJECT, inner))
    return raw.document(fields)


@st.composite
def arrays(draw: st.DrawFn, depth: int = 3) -> bytes:
    """A difference of arrays."""
    length = draw(st.one_of(st.none(), st.integers(0, 6)))
    fields: list[tuple[bytes, int, bytes]] = [(b"a", raw.BOOL, b"\1")]
    if length is not None:
        fields.append((b"l", raw.INT32, raw.int32(length)))
    upto = 7 if length is None else length - 1
    indexes = draw(st.lists(st.integers(0, upto), max_size=3, unique=True)) if upto >= 0 else []
    for index in sorted(indexes):
        if depth > 0 and draw(st.booleans()):
            inner = draw(st.one_of(differences(depth - 1), arrays(depth - 1)))
            fields.append((b"s%d" % index, raw.OBJECT, inner))
        else:
            fields.append((b"u%d" % index, *draw(VALUES)))
    return raw.document(fields)


PATHS = st.lists(st.sampled_from([b"a", b"b", b"0", b"1", b"12"]), min_size=1, max_size=3).map(tuple)


@st.composite
def modifiers(draw: st.DrawFn) -> bytes:
    """``$set`` and ``$unset`` of paths none of which lies in another, in the order of a server."""
    chosen: list[tuple[bytes, ...]] = []
    for path in draw(st.lists(PATHS, min_size=1, max_size=5)):
        if not any(path[: len(other)] == other or other[: len(path)] == path for other in chosen):
            chosen.append(path)
    ordered = [b".".join(edit.path) for edit in in_server_order([Edit(path, None) for path in chosen])]
    sets = [path for path in ordered if draw(st.booleans())]
    fields = [(b"$v", raw.INT32, raw.int32(1)), *section(b"$set", [(path, draw(VALUES)) for path in sets])]
    fields += section(b"$unset", [(path, (raw.BOOL, b"\1")) for path in ordered if path not in sets])
    return raw.document(fields)


@settings(max_examples=EXAMPLES)
@given(DOCUMENTS, st.lists(modifiers(), min_size=1, max_size=12))
def test_many_modifiers_are_few(before: bytes, updates: list[bytes]) -> None:
    after = before
    for update in updates:
        after = apply_update(after, update)
    patch = patch_of(updates)
    assert patch.apply(before) == after
    assert patch_of(patch.updates()).apply(before) == after
    assert len(patch.updates()) <= len(updates)


def padded(doc: bytes) -> bytes:
    """A document so long that its difference to another one is shorter."""
    return raw.framed(raw.element(b"padding", raw.BINARY, raw.binary(bytes(2000))) + doc[4:-1])


@settings(max_examples=EXAMPLES)
@given(TWICE, differences())
def test_differences_as_another_applier_does_them(before: bytes, change: bytes) -> None:
    after = apply_update(before, difference_entry(change))
    raw.validate(after)
    assert after == patched(before, difference_entry(change))


@settings(max_examples=EXAMPLES)
@given(TWICE, modifiers())
def test_modifiers_as_another_applier_does_them(before: bytes, update: bytes) -> None:
    check_update(update)
    after = apply_update(before, update)
    raw.validate(after)
    assert after == patched(before, update)


@settings(max_examples=EXAMPLES)
@given(st.lists(DOCUMENTS.map(padded), min_size=2, max_size=6))
def test_a_whole_history_is_one_update(states: list[bytes]) -> None:
    updates = []
    for before, after in pairwise(states):
        change = difference(before, after)
        assert change is not None
        updates.append(difference_entry(change))
        assert apply_update(before, updates[-1]) == after
    patch = patch_of(updates)
    (update,) = patch.updates()
    assert patch.apply(states[0]) == states[-1]
    assert apply_update(states[0], update) == states[-1]


def unordered(kind: int, data: bytes) -> object:
    """A value without the order of fields."""
    if kind == raw.OBJECT:
        return frozenset((e.name, unordered(e.type, data[e.start : e.end])) for e in raw.elements(data))
    if kind == raw.ARRAY:
        return tuple(unordered(e.type, data[e.start : e.end]) for e in raw.elements(data))
    return kind, data


@settings(max_examples=EXAMPLES)
@given(DOCUMENTS, st.lists(differences(), min_size=1, max_size=5))
def test_many_in_turn_are_one_even_where_they_do_not_fit(before: bytes, changes: list[bytes]) -> None:
    updates = [difference_entry(change) for change in changes]
    try:
        patch = patch_of(updates)
    except SourceError as error:
        event(error.message)  # a field is a document to one and an array to the next
        return
    after = before
    for update in updates:
        after = apply_update(after, update)
    assert unordered(raw.OBJECT, patch.apply(before)) == unordered(raw.OBJECT, after)
    (update,) = patch.updates()
    assert apply_update(before, update) == patch.apply(before)


@settings(max_examples=EXAMPLES)
@given(
    DOCUMENTS,
    st.one_of(differences().map(difference_entry), modifiers()),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4),
    st.integers(0, 6),
)
def test_broken_updates_are_refused(
    before: bytes, update: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(update)
    for at, byte in changes:
        broken[at % len(broken)] = byte
    try:
        after = apply_update(before, bytes(broken[: len(broken) - cut]))
    except SourceError:
        return
    assert raw.document_at(after, 0) == len(after)
