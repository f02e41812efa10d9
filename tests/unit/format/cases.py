"""Values for the tests of this folder: Hypothesis strategies, and the damage every decoder must survive."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from hypothesis import strategies as st

from dedupstore.errors import FormatError, ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.chunklist import ListPage, pack_entries, pack_refs
from dedupstore.format.config import ChunkerConfig, Epoch, RepoConfig
from dedupstore.format.rows import Contents
from dedupstore.format.session import SessionState
from dedupstore.format.tree import Page, PageRef
from dedupstore.ids import HOLE, ChunkId, PackId, SnapshotId, TreeId
from dedupstore.model import (
    ChunkKind,
    Member,
    Members,
    Node,
    NodeKind,
    PackContents,
    Record,
    Snapshot,
    SourceSpec,
    Statistics,
    Summary,
)

REPO = bytes(range(16))
ROOT_KEY = bytes(range(32, 64))
WHEN = datetime(2026, 11, 20, 10, 11, 12, 131415, tzinfo=UTC)

ids = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
count = st.integers(0, 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
instants = st.datetimes(timezones=st.just(UTC))
names = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in {b".", b".."})
)
summaries = st.builds(Summary, count, count, i64)
contents = st.lists(st.tuples(ids.map(ChunkId), u32), max_size=5).map(pack_entries)


@st.composite
def nodes(draw: st.DrawFn, name: bytes) -> Node:
    kind = draw(st.sampled_from(NodeKind))
    rest: dict[str, object] = {}
    if kind in {NodeKind.FILE, NodeKind.STREAM}:
        depth = draw(st.integers(0, c.LIST_DEPTH_MAX))
        rest = {"size": draw(count), "depth": depth, "content": draw(ids if depth else contents)}
    elif kind is NodeKind.DIR:
        rest = {"subtree": draw(ids), "summary": draw(st.none() | summaries)}
    elif kind is NodeKind.SYMLINK:
        rest = {"target": draw(st.binary(max_size=30))}
    return Node(
        name=name,
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(u32),
        gid=draw(u32),
        mtime=draw(i64),
        rdev=draw(count),
        link=draw(st.binary(max_size=16)),
        xattrs=tuple(draw(st.lists(st.tuples(names, st.binary(max_size=9)), max_size=2))),
        extra=draw(st.none() | st.dictionaries(text, st.binary(max_size=9), max_size=2)),
        **rest,
    )


@st.composite
def pages(draw: st.DrawFn) -> Page:
    level = draw(st.integers(0, c.PAGE_LEVEL_MAX))
    found = sorted(draw(st.sets(names, min_size=1 if level else 0, max_size=6)))
    summary = draw(summaries)
    if level == 0:
        return Page(0, summary, nodes=tuple(draw(nodes(name)) for name in found))
    refs = [
        PageRef(name, TreeId(ChunkId(draw(ids))), draw(summaries), draw(st.integers(1, 2**63 - 1)))
        for name in found
    ]
    return Page(level, summary, refs=tuple(refs))


@st.composite
def pack_contents(draw: st.DrawFn) -> PackContents:
    name = PackId(draw(ids))
    offset = c.PACK_HEADER_SIZE
    records: list[tuple[Record, Members]] = []
    for number in range(draw(st.integers(0, 3))):
        members = draw(
            st.lists(st.builds(Member, ids.map(ChunkId), st.integers(1, 1 << 20)), min_size=1, max_size=4)
        )
        length = draw(st.integers(1, 1 << 24))
        base = draw(st.none() | ids.map(ChunkId))
        plain = sum(member.size for member in members)
        codec = draw(st.integers(0, 2))
        records.append((Record(name, number, offset, length, codec, plain, base), Members.of(*members)))
        offset += length
    kind = draw(st.sampled_from(ChunkKind))
    size = offset + draw(st.integers(c.PACK_TRAILER_SIZE, 1 << 20))
    packed: Contents = tuple(records)
    return PackContents(name, kind, draw(u32), size, draw(ids), packed)


snapshots = st.builds(
    Snapshot,
    root=ids.map(ChunkId).map(TreeId),
    time=instants,
    host=text,
    user=text,
    source=st.builds(
        SourceSpec,
        text,
        st.lists(st.binary(max_size=30), max_size=3).map(tuple),
        st.dictionaries(text, text, max_size=3),
    ),
    parent=st.none() | ids.map(SnapshotId),
    tags=st.frozensets(text, max_size=3),
    sequence=count,
    statistics=st.builds(
        Statistics, *([count] * 9), st.floats(0, 1e9, allow_nan=False, allow_infinity=False)
    ),
    users=st.dictionaries(u32, st.binary(max_size=9), max_size=3),
    groups=st.dictionaries(u32, st.binary(max_size=9), max_size=3),
    name=text,
    position=st.none() | st.binary(max_size=20),
    hold=st.none() | text,
    expiry=st.none() | instants,
    program=text,
)


@st.composite
def sessions(draw: st.DrawFn) -> SessionState:
    state = draw(st.sampled_from(["open", "committed", "fenced"]))
    snapshot = draw(st.binary(max_size=60)) if state == "committed" else None
    return SessionState(
        state, draw(count), draw(text), draw(u32), draw(text), draw(instants), snapshot, draw(text)
    )


@st.composite
def configs(draw: st.DrawFn) -> RepoConfig:
    sizes = sorted(draw(st.lists(st.integers(c.CHUNK_SIZE_MIN, c.CHUNK_SIZE_MAX), min_size=3, max_size=3)))
    packs = sorted(draw(st.lists(st.integers(c.PACK_SIZE_MIN, c.PACK_SIZE_MAX), min_size=2, max_size=2)))
    numbers = sorted(draw(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=3)))
    return RepoConfig(
        id=draw(st.binary(min_size=16, max_size=16)),
        cipher=draw(st.sampled_from([c.CIPHER_AEGIS256, c.CIPHER_XCHACHA20])),
        chunker=ChunkerConfig(*sizes, draw(u32), draw(u32)),
        created=draw(instants),
        epochs=tuple(Epoch(number, draw(ids)) for number in numbers),
        compression=draw(text),
        pack_size=packs[0],
        pack_size_max=packs[1],
        record_size=draw(st.integers(1, c.RECORD_PLAIN_MAX)),
        small_file=draw(st.integers(0, c.CHUNK_SIZE_MAX)),
    )


def one_pack() -> PackContents:
    name = PackId(bytes(range(32)))
    record = Record(name, 0, c.PACK_HEADER_SIZE, 500, 2, 30, None)
    members = Members.of(Member(ChunkId(bytes(32)), 10), Member(ChunkId(bytes(32)), 20))
    return PackContents(name, ChunkKind.DATA, 1, 4096, bytes(32), ((record, members),))


def one_snapshot() -> Snapshot:
    return Snapshot(
        root=TreeId(ChunkId(bytes(32))),
        time=WHEN,
        host="host",
        user="user",
        source=SourceSpec("files", (b"/home",), {"k": "v"}),
        parent=None,
        tags=frozenset({"b", "a"}),
        sequence=4,
        statistics=Statistics(1, 2),
        users={0: b"root"},
        groups={0: b"root"},
        expiry=WHEN,
    )


def one_session() -> SessionState:
    return SessionState("committed", 7, "host", 123, "boot", WHEN, b"snapshot bytes", "note")


def one_config() -> RepoConfig:
    return RepoConfig(
        id=REPO,
        cipher=1,
        chunker=ChunkerConfig(131072, 262144, 1048576, 19005, 76020),
        created=WHEN,
        epochs=(Epoch(1, bytes(32)),),
        compression="zstd:2",
        pack_size=16 * c.MIB,
        pack_size_max=128 * c.MIB,
    )


def one_page() -> Page:
    content = pack_entries([(ChunkId(bytes(range(32))), 5), (HOLE, 70000)])
    newest = 1_800_000_000_123_456_789
    xattrs = ((b"user.one", b"1"), (b"user.two", b""))
    nodes = (
        Node(b"alpha", 1, 0o644, 1000, 100, -3, 70005, content, link=b"12", xattrs=xattrs),
        Node(
            b"beta",
            2,
            0o755,
            subtree=TreeId(ChunkId(bytes(range(32)))),
            summary=Summary(1, 2, 3),
            extra={"k": b"v"},
        ),
        Node(b"gamma", 3, 0o777, target=b"../alpha"),
        Node(
            b"omega\xff", 8, size=1 << 40, content=bytes(range(32)), depth=2, mtime=1_800_000_000_123_456_789
        ),
    )
    return Page(0, Summary(4, (1 << 40) + 70007, newest), nodes)


def one_branch() -> Page:
    refs = (
        PageRef(b"alpha", TreeId(ChunkId(bytes(range(32)))), Summary(10, 20, 30), 12),
        PageRef(b"omega", TreeId(ChunkId(bytes(32))), Summary(1, 2, -3), 1),
    )
    return Page(1, Summary(11, 22, 30), refs=refs)


def one_list() -> ListPage:
    return ListPage(0, pack_entries([(ChunkId(bytes(range(32))), 5), (HOLE, c.HOLE_MAX)]))


def one_list_of_lists() -> ListPage:
    return ListPage(1, pack_refs([(TreeId(ChunkId(bytes(range(32)))), 1 << 40)]))


def one_labelled_list() -> ListPage:
    chunks = [(ChunkId(bytes(range(32))), 5), (ChunkId(bytes(range(1, 33))), 70), (ChunkId(bytes(32)), 7)]
    return ListPage(0, pack_entries(chunks), (b"\x01", b"label", b"label"))


def one_labelled_list_of_lists() -> ListPage:
    refs = [(TreeId(ChunkId(bytes(range(32)))), 1 << 40), (TreeId(ChunkId(bytes(range(1, 33)))), 82)]
    return ListPage(1, pack_refs(refs), (b"\x01", bytes([255]) * c.LIST_LABEL_MAX))


def damaged(data: bytes) -> Iterator[bytes]:
    """Yield ``data`` cut at every length, longer by a byte, and with every byte altered in two ways."""
    for end in range(len(data)):
        yield data[:end]
    yield data + b"\0"
    for place in range(len(data)):
        for flip in (0x01, 0x80):
            yield data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]


def refuses(decode: Callable[[bytes], object], data: bytes) -> bool:
    """Tell whether ``decode`` refuses in one of the two allowed ways; any other exception passes through."""
    try:
        decode(data)
    except (ObjectDamaged, FormatError):
        return True
    return False
