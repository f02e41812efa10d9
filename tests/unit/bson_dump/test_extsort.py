import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import SourceError, StoreFull
from dedupstore.sources.bson import buffers, raw, runs, spill
from dedupstore.sources.bson.extsort import SortedFeed
from dedupstore.sources.bson.feed import feed_of
from tests.support.dumps import numbered

LITTLE = 1


def read(feed: SortedFeed, window: int = 3000) -> bytes:
    view, found = memoryview(bytearray(window)), bytearray()
    while size := feed.fill(view):
        found += view[:size]
    assert feed.fill(view) == 0
    feed.close()
    feed.close()
    return bytes(found)


def ids(data: bytes) -> list[bytes]:
    return [buffers.key_of(document) for document in raw.documents(data)]


def in_order(documents: list[bytes]) -> bytes:
    return b"".join(sorted(documents, key=buffers.key_of))


@given(st.lists(st.tuples(st.integers(-40, 40), st.sampled_from([0, 10, 3000])), max_size=200))
def test_documents_come_in_order(pairs: list[tuple[int, int]]) -> None:
    documents = [numbered(*pair) for pair in pairs]
    found = read(SortedFeed(feed_of(b"".join(documents)), memory=LITTLE))
    assert sorted(raw.documents(found)) == sorted(documents)
    assert ids(found) == sorted(ids(found))


@pytest.mark.parametrize("size", [0, 5000, 100_000])
@pytest.mark.parametrize("count", [0, 1, 900])
def test_many_runs_are_merged_in_more_than_one_pass(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dedupstore.sources.bson.extsort.RUNS_MAX", 3)
    documents = [
        numbered(number * 389 % 997, size) for number in range(min(count, 20_000_000 // (size + 50)))
    ]
    found = read(SortedFeed(feed_of(b"".join(documents)), memory=LITTLE), window=70_000)
    assert found == in_order(documents)


def test_what_is_in_order_but_for_a_few_makes_few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    merged = runs.merged

    def counted(file: runs.RunFile, found: list[runs.Run], memory: int) -> Iterator[memoryview]:
        made.append(len(found))
        return merged(file, found, memory)

    monkeypatch.setattr("dedupstore.sources.bson.extsort.merged", counted)
    documents = [numbered(number, 1000) for number in range(1000)]
    late = documents.pop(400)
    found = read(SortedFeed(feed_of(b"".join([*documents, late])), memory=LITTLE))
    assert found == in_order([*documents, late])
    assert made == [2]


def test_what_fits_in_one_block_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dedupstore.sources.bson.extsort.RunFile", None)
    documents = [numbered(number) for number in (3, 1, 2)]
    assert read(SortedFeed(feed_of(b"".join(documents)))) == in_order(documents)
    assert read(SortedFeed(feed_of(b""))) == b""


def test_a_document_larger_than_every_buffer(tmp_path: Path) -> None:
    documents = [numbered(3), numbered(1, 15 << 20), numbered(2), numbered(0, 15 << 20), numbered(4)]
    feed = SortedFeed(feed_of(b"".join(documents)), tmp_path, memory=LITTLE)
    assert read(feed, 1 << 20) == in_order(documents)


def test_nothing_is_ever_seen_of_the_temporary_file(tmp_path: Path) -> None:
    documents = [numbered(number * 7 % 1000, 500) for number in range(1000)]
    feed = SortedFeed(feed_of(b"".join(documents)), tmp_path, memory=LITTLE)
    open_before = len(os.listdir("/proc/self/fd"))
    assert feed.fill(memoryview(bytearray(100))) > 0
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == open_before + 1
    feed.close()
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.mark.parametrize("tail", [b"\5", b"\5\0\0\0", b"\5\0\0\0\1", b"\xff\xff\xff\xff", b"\4\0\0\0\0"])
def test_what_is_no_document_is_named_by_its_offset(tail: bytes) -> None:
    data = b"".join(numbered(number * 7 % 1000) for number in range(1000))
    for memory in (LITTLE, 64 << 20):
        feed = SortedFeed(feed_of(data + tail), memory=memory)
        with pytest.raises(SourceError) as caught:
            read(feed)
        assert caught.value.data["offset"] == len(data)
        feed.close()


def test_what_the_reader_raises_goes_through_and_leaves_nothing_open(tmp_path: Path) -> None:
    data = b"".join(numbered(number * 7 % 1000) for number in range(1000))
    inner = feed_of(data)
    left = [60_000]

    def fill(view: memoryview) -> int:
        if left[0] <= 0:
            raise SourceError("the disk is gone")
        left[0] -= len(view)
        return inner(view)

    open_before = len(os.listdir("/proc/self/fd"))
    feed = SortedFeed(fill, tmp_path, memory=LITTLE)
    with pytest.raises(SourceError, match="gone"):
        read(feed)
    feed.close()
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_full_disk_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill.os, "write", full)
    feed = SortedFeed(feed_of(b"".join(map(numbered, range(1000, 0, -1)))), tmp_path, memory=LITTLE)
    with pytest.raises(StoreFull, match="room"):
        read(feed)
    feed.close()


def test_a_folder_that_is_not_there_is_named_as_the_cause(tmp_path: Path) -> None:
    feed = SortedFeed(feed_of(b"".join(map(numbered, range(1000, 0, -1)))), tmp_path / "none", memory=LITTLE)
    with pytest.raises(SourceError, match="temporary"):
        read(feed)
    feed.close()
