"""Verify, on chunk lists with labels: sound ones, and ones that a writer put together wrongly."""

from pathlib import Path

import pytest

from dedupstore.format.chunklist import ListPage, encode_list_page, pack_entries, pack_refs
from dedupstore.format.tree import PageSplitter
from dedupstore.ids import TreeId
from dedupstore.model import Node, NodeKind
from dedupstore.objectstore.memory import MemoryStore
from dedupstore.ops.verify.checker import verify
from dedupstore.repository.session import WriteSession
from dedupstore.tree.build import ContentBuilder, FolderBuilder
from tests.support import repos


def leaf(session: WriteSession, labels: tuple[bytes, ...]) -> tuple[TreeId, int]:
    """Store a level 0 page of chunks of five bytes."""
    entries = [(session.put(b"%05d" % number).id, 5) for number in range(2)]
    return session.save_page(encode_list_page(ListPage(0, pack_entries(entries), labels))), 10


def commit(session: WriteSession, content: bytes, depth: int, size: int) -> None:
    folder = FolderBuilder(session.save_page, PageSplitter(session.keychain.current.names))
    folder.add(Node(b"t", NodeKind.STREAM, size=size, content=content, depth=depth))
    session.commit(repos.blank_snapshot(folder.finish()[0]))


def test_a_labelled_list_is_sound(tmp_path: Path) -> None:
    with repos.create(MemoryStore(), tmp_path) as repo:
        with repo.writing() as session:
            builder = ContentBuilder(session.save_page)
            for number in range(9000):
                data = b"%05d" % (number // 2)
                builder.append(session.put(data).id, 5, data)
            content, depth = builder.finish()
            assert depth == 2
            commit(session, content, depth, builder.size)
        assert verify(repo, data=True).findings == ()


@pytest.mark.parametrize(
    ("refs", "first", "second", "bad"),
    [
        ((b"a", b"c"), (b"a", b"b"), (b"c", b"d"), 0),
        ((b"a", b"c"), (b"a", b"c"), (b"c", b"c"), 0),
        ((b"a", b"c"), (b"a", b"d"), (b"c", b"d"), 1),  # reaches over the next one's first
        ((b"a", b"c"), (b"a", b"b"), (b"d", b"e"), 1),  # does not begin as said
        ((b"a", b"c"), (), (b"c", b"d"), 1),
        ((), (b"a", b"b"), (b"c", b"d"), 2),
        ((b"b", b"c"), (b"b", b"b"), (b"c", b"d"), 0),
    ],
)
def test_labels_that_do_not_fit_are_damage(
    tmp_path: Path, refs: tuple[bytes, ...], first: tuple[bytes, ...], second: tuple[bytes, ...], bad: int
) -> None:
    with repos.create(MemoryStore(), tmp_path) as repo:
        with repo.writing() as session:
            below = [leaf(session, first), leaf(session, second)]
            top = session.save_page(encode_list_page(ListPage(1, pack_refs(below), refs)))
            commit(session, top, 2, 20)
        findings = verify(repo).findings
        assert len(findings) == bad
        assert all("labels" in finding.error.message for finding in findings)


def test_a_limit_holds_over_several_levels(tmp_path: Path) -> None:
    with repos.create(MemoryStore(), tmp_path) as repo:
        with repo.writing() as session:
            lower = [
                (session.save_page(encode_list_page(ListPage(1, pack_refs([page]), labels[:1]))), page[1])
                for labels in ((b"a", b"x"), (b"c", b"d"))
                for page in [leaf(session, labels)]
            ]
            top = session.save_page(encode_list_page(ListPage(2, pack_refs(lower), (b"a", b"c"))))
            commit(session, top, 3, 20)
        (finding,) = verify(repo).findings
        assert "labels" in finding.error.message
