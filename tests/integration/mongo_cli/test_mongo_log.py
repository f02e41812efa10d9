"""Every version of a document, as the command shows it, against what the server held."""

import json
import random
from itertools import groupby

from cli.context import SLICES
from dedupstore.documents.slices import KIND
from dedupstore.sources.bson.extjson import shown_value, to_json
from dedupstore.sources.bson.order import sort_key
from dedupstore.testing.oplog.fuzzy import exact
from dedupstore.testing.oplog.history import History, HistoryOptions
from tests.integration.mongo_cli.conftest import Place
from tests.support.generated import put_base, put_slices, settled

HISTORY = History(5, 900, options=HistoryOptions(documents=12))
BASE, LAST = settled(HISTORY, 100), 400


def states(db: str, name: str, identity: bytes) -> list[bytes | None]:
    """What a document was, each time that it changed."""
    found: list[bytes | None] = []
    wanted = sort_key(identity)
    for index in range(BASE, LAST + 1):
        collection = HISTORY.state(index).described().get((db, name))
        documents = {} if collection is None else collection.documents
        now = next((one for key, one in documents.items() if sort_key(key) == wanted), None)
        if not found or found[-1] != now:
            found.append(now)
    return found


def test_versions_are_those_that_the_server_held(place: Place) -> None:
    with place.open() as repo:
        put_base(repo, place.folder, HISTORY, exact(HISTORY, BASE))
        put_slices(repo, HISTORY, BASE - 50, LAST, number=3)
    chance = random.Random(2)
    collections = [(name, one) for name, one in HISTORY.state(LAST).described().items() if one.documents]
    for (db, name), one in chance.sample(collections, min(3, len(collections))):
        identity = chance.choice(sorted(one.documents))
        words = ["mongo", "log", f"{db}.{name}", f"--id={shown_value(identity)}"]
        wanted = states(db, name, identity)
        if wanted[0] is None:
            wanted = wanted[1:]
        rows = place.program.rows(*words)
        # A transaction may change it several times at one operation, and an update nothing at all.
        ends = [
            document for document, _ in groupby({row["operation"]: row["document"] for row in rows}.values())
        ]
        assert ends == [None if one is None else json.loads(to_json(one, relaxed=True)) for one in wanted]
        text = place.program.text(*words)
        headings = [line for line in text.splitlines() if not line.startswith("  ")]
        assert len(headings) == len(rows)


def test_what_nobody_knows_is_said(place: Place) -> None:
    with place.open() as repo:
        put_base(repo, place.folder, HISTORY, exact(HISTORY, BASE))
    ran = place.program.run("mongo", "log", "shop.nothing", "--id", "5")
    assert ran.out == b""
    assert "nothing here tells of a document 5 in shop.nothing" in ran.last
    assert place.program.rows("mongo", "log", "shop.nothing", "--id", "5") == []


def test_the_front_end_knows_slices_by_the_right_name() -> None:
    assert SLICES == KIND
