"""What collections and documents were at a moment, as the commands give it, against a model of the server."""

import gzip
import json
import random
from pathlib import Path

import pytest

from dedupstore.sources.bson import raw
from dedupstore.sources.bson.archive import Archive
from dedupstore.sources.bson.collection import VIEW, CollectionInfo, parse_metadata
from dedupstore.sources.bson.extjson import from_json, shown_value, to_json
from dedupstore.testing.oplog.fuzzy import Reader, exact
from dedupstore.testing.oplog.history import History
from dedupstore.testing.oplog.model import VIEWS, Collection
from tests.integration.mongo_cli.conftest import Place
from tests.support.generated import SERVER, put_base, put_collections, put_slices, settled
from tests.support.generated import place as place_of
from tests.unit.export.views import Listed

HISTORY = History(7, 1500)
LAST = 500


@pytest.fixture
def chain(place: Place) -> Place:
    """A snapshot that was read while operations went on, and slices of the log before and after."""
    with place.open() as repo:
        put_slices(repo, HISTORY, 0, LAST, number=5)
        put_base(repo, place.folder, HISTORY, Reader(HISTORY, 1).scan(60, 90))
    return place


def collections(index: int) -> dict[tuple[str, str], Collection]:
    return {name: one for name, one in HISTORY.state(index).described().items() if name[1] != VIEWS}


def operation(index: int) -> str:
    return str(place_of(HISTORY, index).ts)


def dump_in(folder: Path) -> dict[tuple[str, str], tuple[str, list[bytes]]]:
    found = {}
    for path in folder.rglob("*.metadata.json"):
        info = parse_metadata(path.read_bytes(), path.parent.name)
        data = path.with_name(path.name.replace(".metadata.json", ".bson"))
        assert data.exists() == (info.kind != VIEW)
        found[info.db, info.name] = info.kind, list(raw.documents(data.read_bytes())) if data.exists() else []
    return found


def check_dump(found: dict[tuple[str, str], tuple[str, list[bytes]]], index: int) -> None:
    wanted = collections(index)
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        kind, documents = found[name]
        assert kind == one.kind
        assert sorted(documents) == sorted(one.documents.values())


def test_one_document_at_any_operation(chain: Place) -> None:
    chance = random.Random(5)
    for index in chance.sample(range(100, LAST + 1), 12):
        for (db, name), one in collections(index).items():
            if one.documents:
                identity, document = chance.choice(sorted(one.documents.items()))
                words = [f"{db}.{name}", "--id", shown_value(identity), "--at", operation(index)]
                if shown_value(identity).startswith("-"):
                    words[1:3] = [f"--id={shown_value(identity)}"]
                assert chain.program.run("mongo", "get", *words, "--raw").out == document


def test_a_snapshot_of_a_part_does_not_hide_the_rest(place: Place) -> None:
    """What is of everything is taken as of a time, though a later snapshot of one database serves as well."""
    with place.open() as repo:
        put_slices(repo, HISTORY, 0, LAST)
        put_base(repo, place.folder, HISTORY, exact(HISTORY, 100))
        db = next(iter(collections(200)))[0]
        part = [
            Listed(CollectionInfo(*name, one.kind, one.uuid), list(one.documents.values()))
            for name, one in collections(200).items()
            if name[0] == db
        ]
        ends = place_of(HISTORY, 200), place_of(HISTORY, 200)
        put_collections(repo, place.folder, part, ends=ends, options=SERVER | {"only": db})
    target = place.folder / "dump"
    place.program.run("restore", "--at", operation(LAST), "--target", target)
    check_dump(dump_in(target), LAST)


def test_what_is_named_is_an_operation_that_there_was(chain: Place) -> None:
    last = place_of(HISTORY, LAST).ts
    target = chain.folder / "dump"
    summary = chain.program.summary("restore", "--at", f"@{last.seconds - 1}", "--target", target)
    assert str(summary["operation"]) in {operation(index) for index in range(LAST)}


def test_a_document_is_shown_as_extended_json(chain: Place) -> None:
    (db, name), one = next((n, one) for n, one in collections(LAST).items() if one.documents)
    identity, document = next(iter(one.documents.items()))
    words = ["mongo", "get", f"{db}.{name}", f"--id={shown_value(identity)}", "--at", operation(LAST)]
    assert chain.program.text(*words).rstrip("\n").encode("utf-8", "replace") == to_json(
        document, relaxed=True
    ).encode("utf-8", "replace")
    assert from_json(chain.program.text(*words, "--canonical")) == document
    answer = chain.program.json(*words)
    assert isinstance(answer, dict)
    assert answer["operation"] == operation(LAST)
    assert answer["collection"] == f"{db}.{name}"
    assert answer["document"] == json.loads(to_json(document, relaxed=True))


def test_what_is_not_there_ends_with_status_1_and_a_sentence(chain: Place) -> None:
    (db, name), _ = next(iter(collections(LAST).items()))
    ran = chain.program.run(
        "mongo", "get", f"{db}.{name}", "--id", "no such thing", "--at", operation(LAST), status=1
    )
    assert ran.out == b""
    assert 'has no document with the _id "no such thing" in the state after operation' in ran.last
    assert ran.err.count("state after operation") == 1
    assert "there is no shop.nothing in the state" in chain.program.error(
        "mongo", "get", "shop.nothing", "--id", "1", "--at", operation(LAST), status=1
    )


def test_a_folder_and_an_archive_of_any_operation(chain: Place, tmp_path: Path) -> None:
    for number, index in enumerate(random.Random(6).sample(range(100, LAST + 1), 4)):
        target = tmp_path / f"dump{number}"
        summary = chain.program.summary("restore", "--at", operation(index), "--target", target)
        check_dump(dump_in(target), index)
        assert summary["operation"] == operation(index)
        assert summary["documents"] == sum(len(one.documents) for one in collections(index).values())


def test_an_archive_is_whole_or_not_there(chain: Place, tmp_path: Path) -> None:
    out = tmp_path / "out.archive"
    chain.program.run("mongo", "dump", "--archive", out, "--at", operation(LAST))
    piped = chain.program.run("mongo", "dump", "--archive", "-", "--at", operation(LAST)).out
    assert out.read_bytes() == piped
    packed = chain.program.run("mongo", "dump", "--archive", "-", "--gzip", "--at", operation(LAST)).out
    assert gzip.decompress(packed) == piped
    with out.open("rb") as file:
        found = {
            (entry.namespace.db, entry.namespace.collection)
            for entry in Archive(file.fileno(), "it").prelude.entries
        }
    assert found == collections(LAST).keys()
    assert not list(tmp_path.glob("*partial"))


def test_the_state_before_an_operation(chain: Place) -> None:
    index = next(
        i for i in range(200, LAST) if HISTORY.state(i).described() != HISTORY.state(i - 1).described()
    )
    target = chain.folder / "before"
    chain.program.run("restore", "--at", operation(index), "--before-op", "--target", target)
    check_dump(dump_in(target), index - 1)


def test_a_time_of_day_means_all_of_its_second(chain: Place) -> None:
    seconds = place_of(HISTORY, 250).ts.seconds
    last = max(i for i in range(LAST) if HISTORY.moments[i].seconds <= seconds)
    target = chain.folder / "second"
    chain.program.run("restore", "--at", f"@{seconds}", "--target", target)
    check_dump(dump_in(target), last)


def test_the_snapshot_itself_is_made_exact_by_the_log(chain: Place) -> None:
    target = chain.folder / "itself"
    chain.program.run("restore", "latest", "--target", target, "--rename", "*.*=*.*")
    check_dump(dump_in(target), 90)


def test_a_hole_is_refused_with_both_its_ends(place: Place) -> None:
    with place.open() as repo:
        put_base(repo, place.folder, HISTORY, exact(HISTORY, settled(HISTORY, 50)))
        put_slices(repo, HISTORY, 50, 100)
        put_slices(repo, HISTORY, 200, 300, proven=False)
        put_base(repo, place.folder, HISTORY, exact(HISTORY, settled(HISTORY, 250)))
    said = place.program.error("restore", "--at", operation(150), "--target", place.folder / "x", status=1)
    assert operation(100) in said
    assert operation(250) in said
    assert not (place.folder / "x").exists()
    rows = place.program.rows("mongo", "ranges")
    assert [(row["start"], row["end"]) for row in rows] == [
        (operation(50), operation(100)),
        (operation(250), operation(300)),
    ]
