from hypothesis import given
from hypothesis import strategies as st

from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import Folder, PageStore, SmallSplitter
from dedupstore.tree.diff import Change, ChangeKind, compare, diff
from dedupstore.tree.walk import walk

from .trees import TREES, named


def naive(store: PageStore, old: TreeId, new: TreeId) -> list[Change]:
    before, after = dict(walk(store.load, old)), dict(walk(store.load, new))
    changes = []
    for path in sorted(before.keys() | after.keys(), key=lambda path: path.split(b"/")):
        left, right = before.get(path), after.get(path)
        assert left is None or isinstance(left, Node)
        assert right is None or isinstance(right, Node)
        kind = compare(left, right)
        if kind is not None:
            changes.append(Change(path, kind, left, right))
    return changes


def edited(tree: Folder, other: Folder) -> Folder:
    """Return the tree with a few entries of another one mixed in, so that most of it stays."""
    mixed = dict(tree)
    for number, name in enumerate(sorted(other)):
        if number % 3 == 0:
            mixed.pop(name, None)
        else:
            mixed[name] = other[name]
    return mixed


@given(TREES, TREES, st.booleans())
def test_diff_equals_a_naive_model(tree: Folder, other: Folder, mix: bool) -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    old, new = store.tree(named(tree)), store.tree(named(edited(tree, other) if mix else other))
    assert list(diff(store.load, old, new)) == naive(store, old, new)
    assert list(diff(store.load, new, old)) == naive(store, new, old)
    assert list(diff(store.load, old, old)) == []


SIZES = st.sets(st.integers(0, 300), max_size=200)


@given(SIZES, st.sets(st.integers(0, 300), max_size=5))
def test_large_folders_with_few_changes(numbers: set[int], changed: set[int]) -> None:
    store = PageStore(SmallSplitter(bytes(32)))

    def folder(values: set[int]) -> TreeId:
        return store.folder([Node(b"%03d" % value, NodeKind.FILE) for value in values])

    old, new = folder(numbers), folder(numbers ^ changed)
    assert list(diff(store.load, old, new)) == naive(store, old, new)


def test_only_what_differs_is_loaded() -> None:
    store = PageStore()
    nodes = [Node(b"%06d" % n, NodeKind.FILE) for n in range(50_000)]
    untouched = {b"%03d" % n: Node(b"%03d" % n, NodeKind.FILE) for n in range(50)}
    old = store.tree({b"big": {node.name: node for node in nodes}, b"same": untouched})
    nodes[33_333] = Node(b"033333", NodeKind.FILE, size=5)
    new = store.tree({b"big": {node.name: node for node in nodes}, b"same": untouched})
    store.loads.clear()
    changes = list(diff(store.load, old, new))
    assert [(change.path, change.kind) for change in changes] == [(b"/big/033333", ChangeKind.CONTENT)]
    assert len(store.loads) == 6  # root, top of big, one leaf; twice


def test_a_folder_that_grew_a_level_is_still_compared_page_by_page() -> None:
    store = PageStore()
    nodes = [Node(b"%06d" % n, NodeKind.FILE) for n in range(60_000)]
    few, all_of_them = store.folder(nodes[:1000]), store.folder(nodes)
    assert sum(1 for _ in diff(store.load, few, all_of_them)) == 59_000
    assert {change.kind for change in diff(store.load, all_of_them, few)} == {ChangeKind.REMOVED}


def test_kinds_of_change() -> None:
    node = Node(b"n", NodeKind.FILE, mode=0o644, mtime=5, size=1, content=bytes(36))

    def like(**changes: object) -> Node:
        fields = {name: getattr(node, name) for name in Node.__struct_fields__}
        return Node(**{**fields, **changes})  # type: ignore[arg-type]

    assert compare(node, like()) is None
    assert compare(None, node) is ChangeKind.ADDED
    assert compare(node, None) is ChangeKind.REMOVED
    assert compare(node, like(kind=int(NodeKind.SYMLINK))) is ChangeKind.TYPE
    for field, value in (
        ("content", b"\1" * 36),
        ("depth", 1),
        ("size", 2),
        ("target", b"x"),
        ("rdev", 3),
    ):
        assert compare(node, like(**{field: value})) is ChangeKind.CONTENT
    for field, value in (
        ("mode", 0),
        ("uid", 1),
        ("gid", 1),
        ("mtime", 6),
        ("link", b"l"),
        ("xattrs", ((b"a", b"b"),)),
        ("extra", {"a": b"b"}),
    ):
        assert compare(node, like(**{field: value})) is ChangeKind.METADATA
    assert compare(node, like(subtree=bytes(32))) is None


def test_a_file_that_became_a_folder() -> None:
    store = PageStore()
    inside = Node(b"x", NodeKind.FILE)
    old = store.tree({b"a": Node(b"a", NodeKind.FILE), b"b": inside})
    new = store.tree({b"a": {b"x": inside}, b"b": inside})
    found = [(change.path, change.kind) for change in diff(store.load, old, new, base=b"/top")]
    assert found == [(b"/top/a", ChangeKind.TYPE), (b"/top/a/x", ChangeKind.ADDED)]
