import pytest
from hypothesis import given

from dedupstore.errors import NotFoundError, ObjectDamaged, StoreError
from dedupstore.format.tree import Page, encode_page
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind, Summary
from dedupstore.testing.pages import Folder, PageStore, SmallSplitter
from dedupstore.tree.walk import Lost, find_in, leaves_of, lookup, nodes_of, walk

from .trees import TREES, flat, named


def small_store() -> PageStore:
    return PageStore(SmallSplitter(bytes(32)))


def file_node(name: bytes) -> Node:
    return Node(name, NodeKind.FILE)


def folder_of(count: int) -> dict[bytes, Node]:
    return {b"%06d" % n: file_node(b"%06d" % n) for n in range(count)}


@given(TREES)
def test_walk_yields_every_path_in_order(tree: Folder) -> None:
    store = small_store()
    tree = named(tree)
    root = store.tree(tree)
    seen = [
        (path, None if node.kind == NodeKind.DIR else node)
        for path, node in walk(store.load, root)
        if isinstance(node, Node)
    ]
    assert seen == list(flat(tree))


@given(TREES)
def test_lookup_equals_the_model(tree: Folder) -> None:
    store = small_store()
    tree = named(tree)
    root = store.tree(tree)
    for path, node in flat(tree):
        found = lookup(store.load, root, path)
        assert found == node or (node is None and found.kind == NodeKind.DIR)
        assert found.name == path.rpartition(b"/")[2]
        with pytest.raises(NotFoundError):
            lookup(store.load, root, path + b"/no such thing")


def test_lookup_names_what_is_missing() -> None:
    store = small_store()
    root = store.tree({b"srv": {b"a": file_node(b"a")}})
    with pytest.raises(NotFoundError, match=r"^/srv/b does not exist"):
        lookup(store.load, root, b"/srv/b/c")
    with pytest.raises(NotFoundError, match=r"^/srv/a is not a folder"):
        lookup(store.load, root, b"/srv/a/c")
    assert lookup(store.load, root, b"//srv//a/").name == b"a"


def test_lookup_of_the_root_is_a_folder_without_a_name() -> None:
    store = small_store()
    root = store.tree(folder_of(20))
    top = lookup(store.load, root, b"/")
    assert (top.name, top.kind, top.subtree, top.summary) == (b"", NodeKind.DIR, root, Summary(20, 0, 0))


def test_lookup_loads_one_page_a_level() -> None:
    store = PageStore()
    root = store.folder(folder_of(100_000).values())
    depth = store.load(root).level + 1
    store.loads.clear()
    assert find_in(store.load, root, b"012345") == file_node(b"012345")
    assert len(store.loads) == depth == 2
    assert find_in(store.load, root, b"") is None
    assert find_in(store.load, root, b"012345+") is None
    assert find_in(store.load, root, b"zzz") is None


def test_folders_are_read_lazily() -> None:
    store = PageStore()
    root = store.folder(folder_of(20_000).values())
    store.loads.clear()
    next(nodes_of(store.load, root))
    assert len(store.loads) == 2
    assert sum(map(len, leaves_of(store.load, root))) == 20_000


def test_subtrees_are_skipped_unloaded() -> None:
    store = small_store()
    root = store.tree({b"a": folder_of(50), b"b": {b"x": file_node(b"x")}})
    store.loads.clear()
    seen = [path for path, _ in walk(store.load, root, descend=lambda path, _: path != b"/a")]
    assert seen == [b"/a", b"/b", b"/b/x"]
    assert len(store.loads) == 2
    below = lookup(store.load, root, b"/b").subtree
    assert [path for path, _ in walk(store.load, TreeId(below), base=b"/b")] == [b"/b/x"]  # type: ignore[arg-type]


def test_deep_trees_need_no_deep_stack() -> None:
    store = small_store()
    tree: Folder = {b"leaf": file_node(b"leaf")}
    for _ in range(2_000):
        tree = {b"d": store_node(store, tree)}
    root = store.tree(tree)
    paths = [path for path, _ in walk(store.load, root)]
    assert len(paths) == 2_001
    assert lookup(store.load, root, paths[-1]).name == b"leaf"


def store_node(store: PageStore, tree: Folder) -> Node:
    top = store.tree(tree)
    return Node(b"d", NodeKind.DIR, subtree=top, summary=store.load(top).summary)


def test_every_lost_page_is_reported_and_the_walk_goes_on() -> None:
    store = small_store()
    tree = {b"a": folder_of(40), b"b": {b"x": file_node(b"x")}, b"c": folder_of(3)}
    root = store.tree(tree)
    everything = dict(walk(store.load, root))
    for page, kept in list(store.pages.items()):
        store.lose(page)
        seen = list(walk(store.load, root))
        lost = [(path, found) for path, found in seen if isinstance(found, Lost)]
        assert len(lost) == 1
        assert lost[0][1].page == page
        assert isinstance(lost[0][1].error, NotFoundError)
        alive = {path: found for path, found in seen if isinstance(found, Node)}
        assert alive.items() <= everything.items()
        missing = everything.keys() - alive.keys()
        assert all(path.startswith(lost[0][0]) for path in missing)
        store.pages[page] = kept


def test_nodes_of_raises_what_load_raised() -> None:
    store = small_store()
    top = store.folder(folder_of(40).values())
    store.lose(store.load(top).refs[-1].id)
    with pytest.raises(NotFoundError):
        list(nodes_of(store.load, top))


def test_an_unreachable_store_ends_the_walk() -> None:
    store = small_store()
    root = store.tree({b"a": folder_of(4)})

    def load(identifier: TreeId) -> Page:
        if identifier == root:
            return store.load(identifier)
        raise StoreError("the disk is gone: plug it in")

    with pytest.raises(StoreError, match="plug it in"):
        list(walk(load, root))


def test_a_page_in_the_wrong_place_is_damage() -> None:
    store = small_store()
    page = store.load(store.folder(folder_of(40).values()))
    assert page.level >= 2
    swapped = Page(page.level, page.summary, (), (page.refs[0], *page.refs[2:]))
    for bad in (
        Page(page.level + 1, page.summary, (), page.refs),  # children two levels down
        Page(page.level, page.summary, (), (type(page.refs[0])(b"!", *astuple(page.refs[0])[1:]),)),
    ):
        with pytest.raises(ObjectDamaged, match="wrong place"):
            list(nodes_of(store.load, store.save(encode_page(bad))))
    assert len(list(nodes_of(store.load, store.save(encode_page(swapped))))) < 40


def astuple(ref: object) -> tuple[object, ...]:
    return tuple(getattr(ref, field) for field in type(ref).__struct_fields__)  # type: ignore[attr-defined]
