from hypothesis import given
from hypothesis import strategies as st

from dedupstore.findings import Finding
from dedupstore.ids import SnapshotId, TreeId
from dedupstore.model import Node, NodeKind, Snapshot
from dedupstore.testing.pages import Folder, PageStore, SmallSplitter
from dedupstore.tree.history import Version, history
from dedupstore.tree.walk import walk

from .test_select import snapshot
from .trees import TREES, flat, named


def line(*roots: TreeId, host: str = "web") -> list[tuple[SnapshotId, Snapshot]]:
    found = []
    for number, root in enumerate(roots):
        identifier, value = snapshot(number, b"/", host=host)
        found.append((identifier, with_root(value, root)))
    return found


def with_root(value: Snapshot, root: TreeId) -> Snapshot:
    fields = {name: getattr(value, name) for name in Snapshot.__slots__}
    return Snapshot(**{**fields, "root": root})


def naive(
    contents: dict[TreeId, dict[bytes, object]], snapshots: list[tuple[SnapshotId, Snapshot]], path: bytes
) -> list[tuple[SnapshotId, SnapshotId, object]]:
    runs: list[tuple[SnapshotId, SnapshotId, object]] = []
    previous: object = None
    for identifier, value in snapshots:
        node = contents[value.root].get(path)
        if node is not None:
            if node == previous:
                runs[-1] = (runs[-1][0], identifier, node)
            else:
                runs.append((identifier, identifier, node))
        previous = node
    return runs


@given(st.lists(TREES, min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=8))
def test_history_equals_a_naive_model(trees: list[Folder], order: list[int]) -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    roots = [store.tree(named(tree)) for tree in trees]
    snapshots = line(*(roots[place % len(roots)] for place in order))
    contents: dict[TreeId, dict[bytes, object]] = {root: dict(walk(store.load, root)) for root in roots}
    paths = {path for tree in trees for path, _ in flat(tree)} | {b"/nothing/here"}
    for path in sorted(paths)[:20]:
        found = list(history(store.load, snapshots, path))
        assert [(v.first, v.last, v.node) for v in found if isinstance(v, Version)] == naive(
            contents, snapshots, path
        )


def file_node(name: bytes, size: int = 0) -> Node:
    return Node(name, NodeKind.FILE, size=size)


def test_each_distinct_page_is_looked_at_once() -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    inner = {b"%02d" % n: file_node(b"%02d" % n) for n in range(40)}
    one = store.tree({b"a": inner})
    two = store.tree({b"a": inner, b"b": file_node(b"b")})
    snapshots = line(*([one, two] * 50))
    store.loads.clear()
    (version,) = history(store.load, snapshots, b"/a/17")
    assert isinstance(version, Version)
    assert version.snapshots == 100
    assert (version.first, version.last) == (snapshots[0][0], snapshots[-1][0])
    assert len(store.loads) == len(set(store.loads))


def test_a_file_put_back_has_two_versions() -> None:
    store = PageStore()
    full, bare = store.tree({b"a": file_node(b"a")}), store.tree({})
    found = list(history(store.load, line(full, full, bare, full), b"/a"))
    assert [v.snapshots for v in found if isinstance(v, Version)] == [2, 1]


def test_hosts_have_their_own_lines_and_other_sources_do_not_count() -> None:
    store = PageStore()
    here, there = store.tree({b"a": file_node(b"a", 1)}), store.tree({b"a": file_node(b"a", 2)})
    mixed = [
        pair for two in zip(line(here, here), line(there, there, host="db"), strict=True) for pair in two
    ]
    elsewhere = snapshot(7, b"/other")
    mixed.insert(2, (elsewhere[0], with_root(elsewhere[1], store.tree({}))))
    found = [v for v in history(store.load, mixed, b"/a") if isinstance(v, Version)]
    assert [(v.host, v.node.size, v.snapshots) for v in found] == [("web", 1, 2), ("db", 2, 2)]


def test_damage_is_named_for_each_snapshot_it_hurts() -> None:
    store = PageStore()
    good, bad = store.tree({b"a": file_node(b"a")}), store.tree({b"a": file_node(b"a", 1)})
    store.lose(bad)
    found = list(history(store.load, line(good, bad, bad, good), b"/a"))
    assert [type(thing) for thing in found] == [Finding, Version, Finding, Version]
    assert [thing.where for thing in found if isinstance(thing, Finding)] == [
        "snapshot 01010101: /a",
        "snapshot 02020202: /a",
    ]
