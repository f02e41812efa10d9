"""How fast folders become pages and pages become folders again: 10 000 entries each.

pytest benchmarks/test_tree.py --benchmark-only
"""

from random import Random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dedupstore.format.constants import LIST_ENTRY
from dedupstore.format.tree import decode_page, encode_page
from dedupstore.model import Node, NodeKind
from dedupstore.testing.pages import SPLITTER, PageStore
from dedupstore.tree.build import ContentBuilder, FolderBuilder
from dedupstore.tree.diff import diff
from dedupstore.tree.glob import Glob
from dedupstore.tree.walk import lookup, nodes_of

COUNT = 10_000


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    rng = Random(1)
    return [
        Node(
            b"file-%06d.txt" % n,
            NodeKind.FILE,
            mode=0o644,
            uid=1000,
            gid=1000,
            mtime=1_790_000_000_000_000_000 + n,
            size=20_000,
            content=LIST_ENTRY.pack(rng.randbytes(32), 20_000),
        )
        for n in range(COUNT)
    ]


def test_build(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    def build() -> None:
        store = PageStore()
        builder = FolderBuilder(store.save, SPLITTER)
        builder.add_all(nodes)
        builder.finish()

    benchmark(build)


def test_content_list(benchmark: BenchmarkFixture) -> None:
    rng = Random(1)
    entries = b"".join(LIST_ENTRY.pack(rng.randbytes(32), 8000) for _ in range(COUNT))
    labels = [b"%012d" % n for n in range(COUNT)]

    def build() -> None:
        builder = ContentBuilder(PageStore().save)
        for at in range(0, COUNT, 500):
            builder.extend(
                entries[at * LIST_ENTRY.size : (at + 500) * LIST_ENTRY.size], labels[at : at + 500]
            )
        builder.finish()

    benchmark(build)


def test_encode(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    store = PageStore()
    store.folder(nodes)
    pages = [decode_page(page) for page in store.pages.values()]
    benchmark(lambda: [encode_page(page) for page in pages])


def test_decode(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    store = PageStore()
    store.folder(nodes)
    benchmark(lambda: [decode_page(page) for page in store.pages.values()])


def test_read_all(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    store = PageStore()
    top = store.folder(nodes)
    assert benchmark(lambda: sum(1 for _ in nodes_of(store.load, top))) == COUNT


def test_lookup(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    store = PageStore()
    top = store.folder(nodes)
    benchmark(lambda: lookup(store.load, top, b"/file-007777.txt"))


def test_diff_of_one_change(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    store = PageStore()
    old = store.folder(nodes)
    new = store.folder([*nodes[:5000], *nodes[5001:]])
    assert benchmark(lambda: len(list(diff(store.load, old, new)))) == 1


def test_match_names(benchmark: BenchmarkFixture, nodes: list[Node]) -> None:
    glob = Glob("*7777*")
    names = [node.name for node in nodes]
    benchmark(lambda: [glob.step(glob.start, name) for name in names])
