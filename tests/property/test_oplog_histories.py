"""The oplog engine against histories: at every timestamp, from every base, it gives what the server held.

Histories and what they leave come from `dedupstore.testing.oplog.history`: it shares no code with the engine.
The longest history has 2,000 operations and is restored at 50 timestamps; ``DSTORE_TEST_OPERATIONS`` sets
another number, and from 20,000 on it is restored at 200.
"""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError
from dedupstore.sources.bson.order import sort_key
from dedupstore.sources.oplog.catalog import Catalog
from dedupstore.sources.oplog.collapse import collapse
from dedupstore.sources.oplog.compose import patch_of
from dedupstore.sources.oplog.diff import apply_update
from dedupstore.sources.oplog.merge import applied
from dedupstore.sources.oplog.position import Ts
from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.chance import Chance
from dedupstore.testing.oplog.fuzzy import Base, Reader, exact
from dedupstore.testing.oplog.history import History, HistoryOptions
from dedupstore.testing.oplog.identity import id_of, identity
from dedupstore.testing.oplog.model import Written, raw_id
from dedupstore.testing.oplog.patch import patched
from dedupstore.testing.oplog.primary import Primary
from dedupstore.testing.oplog.writes import Writes
from tests.support.histories import (
    catalog_of,
    collapsed,
    described,
    difference,
    expected,
    restored,
    restored_case,
)
from tests.support.oplogcases import Case, cases

OPERATIONS = int(os.environ.get("DSTORE_TEST_OPERATIONS", "2000"))
SMALL = 2_000
"""Bytes of memory that force changes into temporary files."""

seeds = st.integers(0, 1 << 32)
versions = st.sampled_from([(4, 4), (5, 0), (6, 0), (7, 0), (8, 0)])
shapes = st.builds(
    HistoryOptions,
    version=versions,
    definitions=st.sampled_from([0.02, 0.06, 0.3]),
    transactions=st.sampled_from([0.05, 0.3]),
    capped=st.sampled_from([0.1, 0.8]),
    documents=st.sampled_from([3, 20, 1000]),
)


def base_of(history: History, start: int, end: int, seed: int) -> Base:
    return exact(history, start) if start == end else Reader(history, seed).scan(start, end)


def check(history: History, base: Base, index: int, folder: Path, **how: int) -> None:
    found = restored(history, base, history.moments[index], folder, **how)
    # Servers up to 4.4 promise no order of fields to a reader who began in the middle.
    ordered = history.version >= (5, 0) or base.start == base.end
    words = difference(found, expected(history.state(index)), field_order=ordered)
    assert not words, f"behind entry {index}, from a base of {base.start} to {base.end}: {words}"


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_entries_as_servers_write_them(case: Case, tmp_path: Path) -> None:
    if case.after is None:
        with pytest.raises(SourceError, match=case.refused.replace("$", r"\$")):
            restored_case(case, tmp_path)
    else:
        assert not difference(restored_case(case, tmp_path), case.after)


@pytest.mark.parametrize("version", [(4, 4), (5, 0), (7, 0), (8, 0)])
def test_every_timestamp_from_the_beginning(version: tuple[int, int], tmp_path: Path) -> None:
    history = History(11, 200, options=HistoryOptions(version=version, definitions=0.15, transactions=0.2))
    base = exact(history, 0)
    for index in range(len(history.entries)):
        check(history, base, index, tmp_path)


@settings(max_examples=40)
@given(seeds, shapes, st.data())
def test_any_timestamp_from_any_base(
    tmp_path_factory: pytest.TempPathFactory, seed: int, options: HistoryOptions, data: st.DataObject
) -> None:
    history = History(seed, 250, options=options)
    last = len(history.entries) - 1
    start = data.draw(st.integers(0, last))
    end = data.draw(st.integers(start, last))
    base = base_of(history, start, end, seed)
    folder = tmp_path_factory.mktemp("spill")
    for index in {end, data.draw(st.integers(end, last)), last}:
        check(history, base, index, folder, memory=data.draw(st.sampled_from([1, SMALL, 1 << 26])))


@pytest.mark.parametrize("seed", range(3))
def test_the_longest_history_at_random_timestamps(seed: int, tmp_path: Path) -> None:
    operations = OPERATIONS if seed == 0 else min(OPERATIONS, 600)
    history = History(seed, operations)
    chance = Chance(seed)
    last = len(history.entries) - 1
    for _ in range(200 if operations >= 20_000 else 50):
        index = chance.below(last + 1)
        end = max(0, index - chance.pick([0, 10, 200, last // 4, last]))
        start = max(0, end - chance.pick([0, 0, 3, 40, last // 10]))
        check(
            history,
            base_of(history, start, end, seed),
            index,
            tmp_path,
            memory=chance.pick([1 << 16, 1 << 26]),
        )


@settings(max_examples=15)
@given(seeds, shapes, st.data())
def test_stretches_on_top_of_each_other_are_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, options: HistoryOptions, data: st.DataObject
) -> None:
    """What one gives is a base for the next, which reads from where transactions were open."""
    history = History(seed, 200, options=options)
    last = len(history.entries) - 1
    first, second = sorted((data.draw(st.integers(0, last)), data.draw(st.integers(0, last))))
    folder = tmp_path_factory.mktemp("spill")
    base = exact(history, 0)
    with collapsed(history, base, history.moments[first], folder) as outcome:
        since = outcome.open_since
        catalog = Catalog(outcome.catalog.collections())
    expected_start = history.replay_start(first)
    begin = first + 1 if since is None else history.moments.index((since.seconds, since.increment))
    assert begin == expected_start
    between = exact(history, first)._replace(replay=begin)
    whole = restored(history, between, history.moments[second], folder, catalog=catalog)
    assert not difference(whole, expected(history.state(second)))


@settings(max_examples=15)
@given(seeds, shapes, st.data())
def test_one_document_is_found_as_all_of_them_are(
    tmp_path_factory: pytest.TempPathFactory, seed: int, options: HistoryOptions, data: st.DataObject
) -> None:
    history = History(seed, 200, options=options)
    last = len(history.entries) - 1
    start = data.draw(st.integers(0, last))
    base = exact(history, start)
    held = {meta.uuid: {raw_id(document): document for document in found} for meta, found in base.collections}
    folder = tmp_path_factory.mktemp("spill")
    memory = data.draw(st.sampled_from([1, SMALL, 1 << 26]))
    with collapsed(history, base, history.moments[last], folder, memory=memory) as outcome:
        for place, collection in expected(history.state(last)).items():
            if collection.kind == "view" or bson.find(collection.options, b"capped"):
                continue
            key = outcome.catalog.find(*place)
            assert key is not None
            before = {} if outcome.discards(key) else held.get(collection.uuid, {})
            for name in {*before, *collection.documents}:
                change = outcome.change(key, name)
                found = before.get(name) if change is None else applied(change, before.get(name))
                assert found == collection.documents.get(name)


@settings(max_examples=15)
@given(seeds, shapes, st.sampled_from(["shop", "Crm"]))
def test_a_base_of_one_database_gives_that_database(
    tmp_path_factory: pytest.TempPathFactory, seed: int, options: HistoryOptions, db: str
) -> None:
    history = History(seed, 200, options=options)
    last = len(history.entries) - 1
    base = exact(history, last // 2)
    part = base._replace(
        collections=tuple(scanned for scanned in base.collections if scanned.meta.db == db),
        views={place: view for place, view in base.views.items() if place[0] == db},
    )
    folder = tmp_path_factory.mktemp("spill")
    catalog = catalog_of(part, covers=lambda of, _: of == db)
    found = restored(history, part, history.moments[last], folder, catalog=catalog)
    wanted = {place: held for place, held in expected(history.state(last)).items() if place[0] == db}
    assert not difference(found, wanted)


@given(seeds, versions)
@settings(max_examples=20)
def test_an_update_gives_the_same_document_by_both_rules(seed: int, version: tuple[int, int]) -> None:
    """On the document it was made for, and on any other, which stands for one that is ahead."""
    history = History(seed, 150, options=HistoryOptions(version=version, documents=5, definitions=0.02))
    held = [
        change.document
        for index in range(len(history.entries))
        for change in history.changes(index)
        if isinstance(change, Written) and change.document is not None
    ]
    chance = Chance(seed)
    for entry in history.entries:
        if bson.text(bson.find(entry, b"op")) == "u":
            update = bson.find(entry, b"o")
            assert update is not None
            for document in (chance.pick(held), chance.pick(held)):
                assert apply_update(document, update.raw) == patched(document, update.raw)


@settings(max_examples=150)
@given(seeds, st.integers(2, 8), st.data())
def test_updates_put_together_do_what_each_does_in_turn(seed: int, count: int, data: st.DataObject) -> None:
    """Also to a document that is ahead of the first of them, and where they are put together in two parts."""
    chance = Chance(seed)
    primary = Primary(chance, (8, 0))
    writes = Writes(primary, 0.0, 1000)
    documents = [primary.values.document(bson.int32(1), [])]
    updates = []
    while len(updates) < count:
        way = chance.pick(["operators", "pipeline"])
        after, update = writes.changed(documents[-1], frozenset({b"_id"}), way)
        if after != documents[-1] and bson.find(update, b"_id") is None:
            documents.append(after)
            updates.append(update)
    middle = data.draw(st.integers(0, count))
    parts = (*patch_of(updates[:middle]).updates(), *patch_of(updates[middle:]).updates())
    for document in documents:
        in_turn = document
        for update in updates:
            in_turn = patched(in_turn, update)
        assert in_turn == documents[-1]
        assert patch_of(updates).apply(document) == documents[-1]
        assert patch_of(parts).apply(document) == documents[-1]


@given(seeds)
@settings(max_examples=20)
def test_identities_are_ordered_and_told_apart_by_both_rules(seed: int) -> None:
    history = History(seed, 150)
    documents = {
        raw_id(document): id_of(document)
        for held in history.state(len(history.entries) - 1).documents.values()
        for document in held.values()
    }
    ours = sorted(documents, key=lambda name: (identity(documents[name]), name))
    theirs = sorted(documents, key=lambda name: (sort_key(name), name))
    assert ours == theirs


@pytest.mark.parametrize("seed", range(4))
def test_what_is_before_a_timestamp_and_of_one_collection(seed: int, tmp_path: Path) -> None:
    """With ``before`` its entry does not count; with ``keep`` other collections' documents do not."""
    history = History(seed, 250)
    last = len(history.entries) - 1
    base = exact(history, last // 3)
    after, before = (Ts(*history.moments[index]) for index in (base.start, last - 5))
    entries = history.entries[base.replay :]
    with collapse(entries, catalog_of(base), spill=tmp_path, after=after, before=before) as outcome:
        assert not difference(described(outcome, base), expected(history.state(last - 6)))
    wanted = expected(history.state(last))
    place, held = max(wanted.items(), key=lambda item: len(item[1].documents))
    with collapse(
        entries, catalog_of(base), spill=tmp_path, after=after, keep=lambda key, _: key == held.uuid
    ) as outcome:
        found = described(outcome, base)
    assert found.keys() == wanted.keys()
    assert not difference({place: found[place]}, {place: held})


def test_entries_out_of_order_are_refused(tmp_path: Path) -> None:
    history = History(1, 30)
    with pytest.raises(SourceError, match="order"):
        collapse(reversed(history.entries), catalog_of(exact(history, 0)), spill=tmp_path)


def test_a_time_before_the_end_of_the_reading_is_refused(tmp_path: Path) -> None:
    history = History(1, 100)
    base = Reader(history, 1).scan(20, 60)
    with pytest.raises(SourceError, match=str(Ts(*history.moments[60]))):
        restored(history, base, history.moments[40], tmp_path)
