"""Segments, tree pages, chunk lists, snapshots, sessions, config: there and back, and what they refuse."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.format import chunklist, config, segment, session, snapshot, tree
from dedupstore.format import constants as c
from dedupstore.format.rows import decode_rows
from dedupstore.ids import PackId
from dedupstore.model import PackContents, Snapshot
from tests.unit.format import cases
from tests.unit.format.cases import ROOT_KEY

DECODERS: dict[str, Callable[[bytes], object]] = {
    "segment": segment.decode_segment,
    "page": tree.decode_page,
    "list": chunklist.decode_list_page,
    "labelled": chunklist.decode_list_page,
    "snapshot": snapshot.decode_snapshot,
    "session": session.decode_session,
    "config": lambda data: config.decode_config(data, ROOT_KEY),
    "header": config.read_config_header,
}
STARTS = {
    "segment": b"\x01\x92",
    "page": b"\x01\x00\x92\x93\x00\x00\x00",
    "list": c.LIST_MAGIC + b"\x01",
    "labelled": c.LIST_MAGIC + b"\x02\x00\x00\x00\x01\x00\x00\x00",
    "snapshot": b"\x01\x9b",
    "session": b"\x01\x96\xa4open",
    "config": c.CONFIG_MAGIC + b"\x01\x00\x01",
    "header": c.CONFIG_MAGIC + b"\x01\x00\x01",
}
every_decoder = pytest.mark.parametrize("what", DECODERS)


@given(st.lists(cases.pack_contents(), max_size=3), st.lists(cases.ids.map(PackId), max_size=3))
def test_segments(packs: list[PackContents], removed: list[PackId]) -> None:
    found = segment.decode_segment(segment.encode_segment(packs, removed))
    assert found == segment.IndexSegment(tuple(packs), tuple(removed))


@given(cases.pages())
def test_pages(page: tree.Page) -> None:
    data = tree.encode_page(page)
    assert tree.decode_page(data) == page
    assert tree.decode_page(memoryview(bytearray(data))) == page
    assert tree.encode_page(tree.decode_page(data)) == data
    tree.check_page(page)


@given(cases.snapshots)
def test_snapshots(value: Snapshot) -> None:
    data = snapshot.encode_snapshot(value)
    assert snapshot.decode_snapshot(data) == value
    assert snapshot.encode_snapshot(snapshot.decode_snapshot(data)) == data


@given(cases.sessions())
def test_sessions(value: session.SessionState) -> None:
    assert session.decode_session(session.encode_session(value)) == value


@given(cases.configs())
def test_configs(value: config.RepoConfig) -> None:
    data = config.encode_config(value, ROOT_KEY)
    assert config.decode_config(data, ROOT_KEY) == value
    assert config.read_config_header(data) == config.ConfigHeader(1, value.id, value.cipher, ())


@given(
    st.integers(0, c.LIST_DEPTH_MAX - 1),
    st.lists(st.tuples(cases.ids, st.integers(1, 2**32 - 1)), min_size=1, max_size=9),
)
def test_list_pages(level: int, entries: list[tuple[chunklist.ChunkId, int]]) -> None:
    packed = chunklist.pack_entries(entries) if level == 0 else chunklist.pack_refs(entries)  # type: ignore[arg-type]
    page = chunklist.ListPage(level, packed)
    found = chunklist.decode_list_page(chunklist.encode_list_page(page))
    assert found == page
    read = chunklist.iter_entries if level == 0 else chunklist.iter_refs
    assert list(read(found.entries)) == entries


@given(
    st.integers(0, c.LIST_DEPTH_MAX - 1),
    st.lists(
        st.tuples(cases.ids, st.integers(1, 2**32 - 1), st.binary(min_size=1, max_size=c.LIST_LABEL_MAX)),
        min_size=1,
        max_size=9,
    ),
)
def test_labelled_list_pages(level: int, entries: list[tuple[chunklist.ChunkId, int, bytes]]) -> None:
    pairs = [(identifier, size) for identifier, size, _ in entries]
    packed = chunklist.pack_entries(pairs) if level == 0 else chunklist.pack_refs(pairs)  # type: ignore[arg-type]
    page = chunklist.ListPage(level, packed, tuple(sorted(label for _, _, label in entries)))
    data = chunklist.encode_list_page(page)
    assert chunklist.decode_list_page(data) == page
    assert chunklist.decode_list_page(memoryview(bytearray(data))) == page
    plain = chunklist.encode_list_page(chunklist.ListPage(level, packed))
    assert data[5 : len(plain)] == plain[5:]  # who wants only the bytes reads the same


def example(what: str) -> bytes:
    """Return one valid encoding, small, with most fields in use."""
    values: dict[str, Callable[[], bytes]] = {
        "segment": lambda: segment.encode_segment([cases.one_pack()], [PackId(bytes(32))]),
        "page": lambda: tree.encode_page(cases.one_page()),
        "list": lambda: chunklist.encode_list_page(cases.one_list()),
        "labelled": lambda: chunklist.encode_list_page(cases.one_labelled_list()),
        "snapshot": lambda: snapshot.encode_snapshot(cases.one_snapshot()),
        "session": lambda: session.encode_session(cases.one_session()),
        "config": lambda: config.encode_config(cases.one_config(), ROOT_KEY),
        "header": lambda: config.encode_config(cases.one_config(), ROOT_KEY)[: c.CONFIG_HEADER_SIZE + 1],
    }
    return values[what]()


@every_decoder
def test_every_damage_is_refused_or_harmless(what: str) -> None:
    decode = DECODERS[what]
    decode(example(what))
    for data in cases.damaged(example(what)):
        cases.refuses(decode, data)  # any exception but the two allowed ones passes through


def test_every_damage_to_a_config_is_noticed() -> None:
    for data in cases.damaged(example("config")):
        assert cases.refuses(DECODERS["config"], data)


@pytest.mark.parametrize("what", ["segment", "page", "snapshot", "session", "list", "labelled", "config"])
def test_what_is_cut_off_is_refused(what: str) -> None:
    data = example(what)
    for end in range(len(data)):
        assert cases.refuses(DECODERS[what], data[:end])
    assert cases.refuses(DECODERS[what], data + b"\0")


@pytest.mark.parametrize(
    ("what", "place"),
    [("segment", 0), ("page", 0), ("labelled", 4), ("snapshot", 0), ("session", 0), ("config", 8)],
)
def test_later_versions_are_named(what: str, place: int) -> None:
    data = bytearray(example(what))
    data[place] += 1
    unknown = f"version {data[place]} is unknown"
    with pytest.raises(FormatError, match=unknown):
        DECODERS[what](bytes(data))
    # ... even when nothing after the number is understood
    with pytest.raises(FormatError, match=unknown):
        DECODERS[what](bytes(data[: place + 2]).ljust(c.CONFIG_HEADER_SIZE, b"\xc1"))


@every_decoder
@given(data=st.binary(max_size=300))
def test_noise(what: str, data: bytes) -> None:
    cases.refuses(DECODERS[what], data)
    cases.refuses(DECODERS[what], STARTS[what] + data)


@every_decoder
def test_deep_nesting_and_huge_lengths(what: str) -> None:
    start = STARTS[what]
    for bomb in (
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ):
        for prefix in (b"\x01", b"\x01\x00", b"\x01\x00\x92", start, start + b"\xc0"):
            assert cases.refuses(DECODERS[what], prefix + bomb)


@pytest.mark.parametrize("what", ["segment", "snapshot", "session"])
def test_fields_appended_later_are_ignored(what: str) -> None:
    data = example(what)
    fields = msgspec.msgpack.decode(data[1:])
    later = data[:1] + msgspec.msgpack.encode([*fields, "new", 1])
    assert DECODERS[what](later) == DECODERS[what](data)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([b"b", b"a"], "order"),
        ([b"a", b"a"], "twice"),
        ([b""], "empty"),
        ([b"a/b"], "slash"),
        ([b"/"], "slash"),
        ([b"a\0"], "zero"),
        ([b"."], "'.'"),
        ([b".."], "'..'"),
        ([b"-", b".", b"a"], "'.'"),
        ([b"-", b"..", b"a"], "'..'"),
    ],
)
def test_names_that_must_not_be_believed(bad: list[bytes], why: str) -> None:
    nodes = tuple(cases.Node(name, 1) for name in bad)
    with pytest.raises(ObjectDamaged, match=why):
        tree.decode_page(tree.encode_page(tree.Page(0, cases.Summary(), nodes)))
    refs = tuple(tree.PageRef(name, bytes(32), cases.Summary(), 1) for name in bad)  # type: ignore[arg-type]
    with pytest.raises(ObjectDamaged, match=why):
        tree.decode_page(tree.encode_page(tree.Page(1, cases.Summary(), refs=refs)))


@pytest.mark.parametrize(
    "rest",
    [
        {"kind": 0},
        {"kind": 9},
        {"kind": -1},
        {"kind": 1, "size": -1},
        {"kind": 3, "size": -1},
        {"kind": 1, "content": bytes(35)},
        {"kind": 8, "content": bytes(37)},
        {"kind": 1, "content": bytes(36), "depth": 1},
        {"kind": 1, "content": bytes(32), "depth": c.LIST_DEPTH_MAX + 1},
        {"kind": 1, "content": bytes(32), "depth": -1},
        {"kind": 2},
        {"kind": 2, "subtree": bytes(31)},
        {"kind": 2, "subtree": bytes(32), "summary": cases.Summary(-1)},
    ],
)
def test_nodes_that_must_not_be_believed(rest: dict[str, object]) -> None:
    page = tree.Page(0, cases.Summary(), (cases.Node(b"name", **rest),))  # type: ignore[arg-type]
    with pytest.raises(ObjectDamaged):
        tree.decode_page(tree.encode_page(page))


@pytest.mark.parametrize(
    "page",
    [
        tree.Page(0, cases.Summary(-1)),
        tree.Page(0, cases.Summary(0, -1)),
        tree.Page(1, cases.Summary()),
        tree.Page(
            c.PAGE_LEVEL_MAX + 1, cases.Summary(), refs=(tree.PageRef(b"a", bytes(32), cases.Summary(), 1),)
        ),  # type: ignore[arg-type]
        tree.Page(1, cases.Summary(), refs=(tree.PageRef(b"a", bytes(31), cases.Summary(), 1),)),  # type: ignore[arg-type]
        tree.Page(1, cases.Summary(), refs=(tree.PageRef(b"a", bytes(32), cases.Summary(), 0),)),  # type: ignore[arg-type]
        tree.Page(1, cases.Summary(), refs=(tree.PageRef(b"a", bytes(32), cases.Summary(-1), 1),)),  # type: ignore[arg-type]
    ],
)
def test_pages_that_must_not_be_believed(page: tree.Page) -> None:
    with pytest.raises(ObjectDamaged):
        tree.decode_page(tree.encode_page(page))


def test_page_ends() -> None:
    splitter = tree.PageSplitter(bytes(32))
    names = [b"file-%06d" % number for number in range(300_000)]
    lengths, inside = [], 0
    for name in names:
        inside += 1
        if splitter.cut_after(name, inside):
            lengths.append(inside)
            inside = 0
    assert min(lengths) >= c.PAGE_MIN_ENTRIES
    assert max(lengths) <= c.PAGE_MAX_ENTRIES
    assert 640 <= sum(lengths) / len(lengths) <= 900
    assert splitter.cut_after(b"any", c.PAGE_MAX_ENTRIES)
    assert splitter.cut_after(b"any", 1, c.PAGE_MAX_BYTES)
    other = tree.PageSplitter(bytes([1] * 32))
    assert [splitter.cut_after(n, 500) for n in names[:5000]] != [
        other.cut_after(n, 500) for n in names[:5000]
    ]


def test_list_page_ends() -> None:
    low, high = cases.ChunkId(bytes(32)), cases.ChunkId(b"\xff" * 32)
    assert not chunklist.cut_list_after(low, c.LIST_MIN_ENTRIES - 1)
    assert chunklist.cut_list_after(low, c.LIST_MIN_ENTRIES)
    assert not chunklist.cut_list_after(high, c.LIST_MAX_ENTRIES - 1)
    assert chunklist.cut_list_after(high, c.LIST_MAX_ENTRIES)
    edge = cases.ChunkId((c.LIST_THRESHOLD - 1).to_bytes(4, "little") + bytes(28))
    beyond = cases.ChunkId(c.LIST_THRESHOLD.to_bytes(4, "little") + bytes(28))
    assert chunklist.cut_list_after(edge, 100)
    assert not chunklist.cut_list_after(beyond, 100)


def test_content_size_and_halves() -> None:
    content = chunklist.pack_entries([(cases.ChunkId(bytes(32)), 3), (cases.ChunkId(bytes(32)), 2**32 - 1)])
    assert chunklist.content_size(content) == 2**32 + 2
    for read in (chunklist.iter_entries, chunklist.iter_refs, chunklist.content_size):
        with pytest.raises(ObjectDamaged):
            read(bytes(35))


@pytest.mark.parametrize("level", [0, 1])
def test_an_entry_of_no_length_is_refused(level: int) -> None:
    """Pages that repeat below each other are bounded by their lengths alone."""
    pack = c.LIST_REF.pack if level else c.LIST_ENTRY.pack
    page = chunklist.ListPage(level, pack(bytes(32), 1) + pack(bytes(32), 0))
    with pytest.raises(ObjectDamaged, match="no length"):
        chunklist.decode_list_page(chunklist.encode_list_page(page))


BAD_LABELS = [
    (b"a", b"b"),
    (b"a", b"b", b"c", b"d"),
    (b"b", b"a", b"c"),
    (b"", b"a", b"b"),
    (b"a", b"b", b"c" * (c.LIST_LABEL_MAX + 1)),
]


@pytest.mark.parametrize("labels", BAD_LABELS)
def test_labels_that_could_not_be_read_back(labels: tuple[bytes, ...]) -> None:
    page = chunklist.ListPage(0, c.LIST_ENTRY.pack(bytes(32), 1) * 3, labels)
    with pytest.raises(ValueError, match="labels do not fit"):
        chunklist.encode_list_page(page)


@pytest.mark.parametrize("labels", BAD_LABELS[:4])
def test_labels_that_nobody_should_have_written(labels: tuple[bytes, ...]) -> None:
    header = c.LIST_HEADER.pack(c.LIST_MAGIC, c.LIST_LABELLED, 0, 3)
    entries = c.LIST_ENTRY.pack(bytes(32), 1) * 3
    with pytest.raises(ObjectDamaged, match="has labels"):
        chunklist.decode_list_page(header + entries + bytes(map(len, labels)) + b"".join(labels))


@pytest.mark.parametrize(
    ("length", "size"), [(c.RECORD_PLAIN_MAX + 33, 1 << 26), (100, c.PACK_SIZE_MAX + 1), (0, 1 << 20)]
)
def test_rows_that_would_cost_too_much_are_refused(length: int, size: int) -> None:
    name = PackId(bytes(32))
    row = (length, c.CODEC_RAW, 1, None, c.MEMBER.pack(bytes(32), 1))
    with pytest.raises(ObjectDamaged, match="makes no sense"):
        decode_rows(name, [row], size)


@pytest.mark.parametrize(
    "page", [(0, b""), (0, bytes(35)), (1, bytes(36)), (c.LIST_DEPTH_MAX, bytes(40)), (-1, bytes(40))]
)
def test_list_pages_that_could_not_be_read_back(page: tuple[int, bytes]) -> None:
    with pytest.raises(ValueError, match="no list page"):
        chunklist.encode_list_page(chunklist.ListPage(*page))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": ()},
        {"epochs": (config.Epoch(2, bytes(32)), config.Epoch(1, bytes(32)))},
        {"epochs": (config.Epoch(1, bytes(31)),)},
        {"epochs": (config.Epoch(0, bytes(32)),)},
        {"chunker": config.ChunkerConfig(52, 60, 70, 1, 1)},
        {"chunker": config.ChunkerConfig(100, 60, 70, 1, 1)},
        {"chunker": config.ChunkerConfig(60, 60, c.CHUNK_SIZE_MAX + 1, 1, 1)},
        {"chunker": config.ChunkerConfig(60, 60, 70, 1 << 32, 1)},
        {"pack_size": c.PACK_SIZE_MIN - 1},
        {"pack_size_max": 1},
        {"record_size": 0},
        {"small_file": -1},
        {"id": bytes(15)},
    ],
)
def test_configs_that_make_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="a repository can not have"):
        config.encode_config(replace(cases.one_config(), **change), ROOT_KEY)  # type: ignore[arg-type]


def test_a_feature_that_is_not_understood_is_named() -> None:
    with pytest.raises(FormatError, match="'erasure'"):
        config.encode_config(replace(cases.one_config(), features=("erasure",)), ROOT_KEY)
    features = msgspec.msgpack.encode(["erasure"])
    data = c.CONFIG_HEADER.pack(c.CONFIG_MAGIC, 1, 1, 0, cases.REPO, len(features)) + features
    with pytest.raises(FormatError, match="'erasure'"):
        config.read_config_header(data)


def test_another_root_key_does_not_open_a_config() -> None:
    with pytest.raises(ObjectDamaged, match="does not open"):
        config.decode_config(example("config"), bytes(32))


def test_epochs_do_not_show_their_secrets() -> None:
    assert repr(config.Epoch(3, b"secret" * 5)) == "Epoch(number=3)"
    assert "x00" not in repr(replace(cases.one_config(), id=b"\1" * 16))


def test_what_can_not_be_stored_is_refused_on_writing() -> None:
    with pytest.raises(ValueError, match="zone"):
        snapshot.encode_snapshot(replace(cases.one_snapshot(), time=datetime(2026, 1, 1)))  # noqa: DTZ001
    with pytest.raises(UsageError, match="not valid Unicode"):
        snapshot.encode_snapshot(replace(cases.one_snapshot(), host="bad\udcff"))
    for state, stored in [("open", b"x"), ("fenced", b"x"), ("committed", None)]:
        with pytest.raises(ValueError, match=state):
            session.encode_session(replace(cases.one_session(), state=state, snapshot=stored))  # type: ignore[arg-type]


@given(st.integers(-(2**63), 2**64 - 1))
def test_any_instant_is_read_or_refused(micros: int) -> None:
    fields = msgspec.msgpack.decode(session.encode_session(cases.one_session())[1:])
    fields[5] = micros
    with suppress(ObjectDamaged):
        assert session.decode_session(b"\x01" + msgspec.msgpack.encode(fields)).started.tzinfo is not None


def test_snapshot_ids_are_plain_hashes() -> None:
    stored = bytearray(b"stored bytes")
    assert snapshot.snapshot_id(stored) == snapshot.plain_hash(bytes(stored))
