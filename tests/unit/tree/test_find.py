import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import UsageError
from dedupstore.findings import Finding
from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import Folder, PageStore, SmallSplitter
from dedupstore.tree.find import Match, find
from dedupstore.tree.glob import Glob
from dedupstore.tree.walk import walk

from .test_history import file_node, line
from .trees import TREES, named


def fits(pattern: list[str], path: list[str]) -> bool:
    """Match components the slow and obvious way."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return fits(pattern[1:], path) or (bool(path) and fits(pattern, path[1:]))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and fits(pattern[1:], path[1:])


def parts(path: bytes) -> list[str]:
    return path.decode("utf-8", "surrogateescape").split("/")[1:]


PATTERNS = st.sampled_from(
    ["*", "a", "[a-c]", "?", "a/*", "/a/**", "**/b", "/**/b/*", "a/**/b", "**/a/**/b/**", "/*/*", "b*", "**"]
)


@given(
    st.lists(TREES, min_size=1, max_size=3),
    st.lists(st.integers(0, 2), max_size=5),
    PATTERNS,
    st.sampled_from([0, 1, 7, 1000]),
)
def test_find_equals_a_naive_model(
    trees: list[Folder], order: list[int], pattern: str, remember: int
) -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    roots = [store.tree(named(tree)) for tree in trees]
    snapshots = line(*(roots[place % len(roots)] for place in order))
    wanted = [part for part in pattern.split("/") if part]
    if "/" not in pattern:
        wanted.insert(0, "**")
    model = [
        (identifier, path, node)
        for identifier, value in reversed(snapshots)
        for path, node in walk(store.load, value.root)
        if fits(wanted, parts(path))
    ]
    found = list(find(store.load, snapshots, Glob(pattern), remember=remember))
    assert [(match.id, match.path, match.node) for match in found if isinstance(match, Match)] == model


def test_each_distinct_page_is_walked_once() -> None:
    store = PageStore(SmallSplitter(bytes(32)))
    inner = {b"%02d" % n: file_node(b"%02d" % n) for n in range(40)}
    roots = [store.tree({b"a": inner, b"b": {b"deep": inner}, b"n%d" % n: inner}) for n in range(10)]
    snapshots = line(*roots)
    store.loads.clear()
    found = list(find(store.load, snapshots, Glob("17")))
    assert len(found) == 30
    assert len(store.loads) == len(set(store.loads))
    store.loads.clear()
    assert list(find(store.load, snapshots, Glob("/a/1?/x"))) == []
    assert len(store.loads) == len(set(store.loads))
    assert len(list(find(store.load, snapshots, Glob("17"), remember=0))) == 30


def test_a_path_pattern_goes_only_where_it_can_fit() -> None:
    store = PageStore()
    root = store.tree({b"a": {b"x": file_node(b"x")}, b"b": {b"x": file_node(b"x", 1)}})
    store.loads.clear()
    (match,) = find(store.load, line(root), Glob("/a/x"))
    assert isinstance(match, Match)
    assert match.path == b"/a/x"
    assert len(store.loads) == 2


def test_damage_is_reported_in_each_snapshot_and_the_search_goes_on() -> None:
    store = PageStore()
    lost = store.tree({b"x": file_node(b"x")})
    folder = Node(b"bad", NodeKind.DIR, subtree=lost)
    root = store.tree({b"bad": folder, b"x": file_node(b"x")})
    store.lose(lost)
    found = list(find(store.load, line(root, root), Glob("x")))
    assert [type(thing) for thing in found] == [Finding, Match, Finding, Match]
    assert isinstance(found[0], Finding)
    assert found[0].where == "snapshot 01010101: /bad"


def test_names_that_are_not_text_can_be_found() -> None:
    store = PageStore()
    root = store.tree({name: file_node(name) for name in (b"\xff.txt", "é.txt".encode(), b"A.TXT")})
    snapshots = line(root)

    def names(pattern: Glob) -> set[bytes]:
        return {match.path for match in find(store.load, snapshots, pattern) if isinstance(match, Match)}

    assert names(Glob("?.txt")) == {b"/\xff.txt", b"/\xc3\xa9.txt"}
    assert names(Glob("*.txt", ignore_case=True)) == {b"/\xff.txt", b"/\xc3\xa9.txt", b"/A.TXT"}


@pytest.mark.parametrize("pattern", ["", "/", "///", "a/" * 2000])
def test_patterns_that_fit_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        Glob(pattern)
