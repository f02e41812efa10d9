"""Logs with bytes changed, entries lost or cut: replayed, or refused with a `SourceError`; nothing else."""

import tempfile
from functools import lru_cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson import raw
from dedupstore.sources.oplog.catalog import Catalog
from dedupstore.sources.oplog.collapse import collapse
from dedupstore.sources.oplog.position import Ts
from dedupstore.testing.oplog.history import History, HistoryOptions

VERSIONS = [(4, 4), (5, 0), (8, 0)]


@lru_cache
def log(number: int) -> tuple[bytes, ...]:
    """A short log with much in it."""
    options = HistoryOptions(version=VERSIONS[number], definitions=0.4, transactions=0.2, documents=10)
    return tuple(History(number, 150, options=options).entries)


def read_all(entries: list[bytes], spill: Path, memory: int, fuzzy_until: Ts | None) -> None:
    """Replay a log onto nothing and read all that comes of it."""
    with collapse(entries, Catalog(), spill=spill, memory=memory, fuzzy_until=fuzzy_until) as found:
        for key in found.catalog.followed_keys():
            for document in found.documents(key, lambda: iter(())):
                assert raw.document_at(document, 0) == len(document)


@settings(max_examples=150)
@given(
    st.integers(0, len(VERSIONS) - 1),
    st.lists(st.tuples(st.integers(0), st.integers(0), st.integers(0, 255)), max_size=3),
    st.lists(st.tuples(st.integers(0), st.sampled_from(["lose", "cut", "twice"])), max_size=2),
    st.sampled_from([1 << 20, 3000]),
    st.sampled_from([None, Ts(2**32 - 1, 0)]),
)
def test_broken_logs(
    number: int,
    changes: list[tuple[int, int, int]],
    accidents: list[tuple[int, str]],
    memory: int,
    fuzzy_until: Ts | None,
) -> None:
    entries = list(log(number))
    for place, at, byte in changes:
        entry = bytearray(entries[place % len(entries)])
        entry[at % len(entry)] = byte
        entries[place % len(entries)] = bytes(entry)
    for place, accident in accidents:
        place %= len(entries)
        if accident == "lose":
            del entries[place]
        elif accident == "cut":
            entries[place] = entries[place][: len(entries[place]) // 2]
        else:
            entries.insert(place, entries[place])
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_all(entries, Path(folder), memory, fuzzy_until)
        except SourceError as error:
            error.message.encode()
            assert changes or accidents
