"""Golden vectors of format version 1: written once, read for ever."""

import json
from pathlib import Path

import pytest

from dedupstore.format import chunklist, config, segment, session, snapshot, tree
from dedupstore.format.codec import expand
from dedupstore.format.constants import ARGON2_MEMORY_MIN, ARGON2_PASSES_MIN, PAGE_MIN_ENTRIES
from dedupstore.format.crypto import chunk_id, get_cipher, plain_hash
from dedupstore.format.envelope import open_object, seal_object
from dedupstore.format.keys import (
    Argon2Cost,
    Passphrase,
    Secret,
    decode_slot,
    derive_epoch,
    encode_slot,
    open_slot,
    parse_key_file,
)
from dedupstore.format.padding import padme
from dedupstore.ids import PackId
from tests.unit.format import cases

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/format/version1.json").read_text())
LABELS = json.loads((Path(__file__).parents[2] / "vectors/format/labels-v2.json").read_text())
KEYS = derive_epoch(1, bytes.fromhex(VECTORS["epoch"]["secret"]))


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_ids() -> None:
    for case in VECTORS["ids"]:
        assert chunk_id(raw(case["key"]), raw(case["data"])).hex() == case["id"]
        assert plain_hash(raw(case["data"])).hex() == case["plain_hash"]


@pytest.mark.parametrize("name", ["id_data", "id_tree", "chunker", "data", "tree", "meta", "names", "pad"])
def test_epoch_keys(name: str) -> None:
    assert getattr(KEYS, name).hex() == VECTORS["epoch"][name]


def test_seals() -> None:
    for case in VECTORS["seal"]:
        cipher = get_cipher(case["cipher"])
        ad, number, key = raw(case["ad"]), case["number"], raw(case["key"])
        assert cipher.seal(raw(case["plain"]), ad=ad, number=number, key=key).hex() == case["sealed"]
        assert cipher.open(raw(case["sealed"]), ad=ad, number=number, key=key).hex() == case["plain"]


def test_padme() -> None:
    for size, padded in VECTORS["padme"]:
        assert padme(size) == padded


@pytest.mark.parametrize("case", VECTORS["slots"], ids=["passphrase", "key file"])
def test_slots(case: dict[str, str]) -> None:
    secret: Secret
    if "passphrase" in case:
        secret, cipher, label = Passphrase(raw(case["passphrase"])), 1, "me"
    else:
        secret, cipher, label = parse_key_file(case["key_file"], cases.REPO), 2, "server"
    assert open_slot(decode_slot(raw(case["slot"])), secret) == cases.ROOT_KEY == raw(VECTORS["root_key"])
    again = encode_slot(
        cases.ROOT_KEY,
        secret,
        repo_id=cases.REPO,
        cipher=cipher,
        label=label,
        created=cases.WHEN,
        cost=Argon2Cost(ARGON2_MEMORY_MIN, ARGON2_PASSES_MIN),
        salt=bytes(range(16)),
    )
    assert again.hex() == case["slot"]


def test_config() -> None:
    stored = raw(VECTORS["config"])
    assert config.decode_config(stored, cases.ROOT_KEY) == cases.one_config()
    assert (
        config.encode_config(cases.one_config(), cases.ROOT_KEY, salt=raw(VECTORS["objects"][0]["salt"]))
        == stored
    )


def test_payloads() -> None:
    payloads = {name: raw(text) for name, text in VECTORS["payloads"].items()}
    packs, removed = [cases.one_pack()], [PackId(bytes(32))]
    assert segment.decode_segment(payloads["segment"]) == segment.IndexSegment(tuple(packs), tuple(removed))
    assert segment.encode_segment(packs, removed) == payloads["segment"]
    assert snapshot.decode_snapshot(payloads["snapshot"]) == cases.one_snapshot()
    assert snapshot.encode_snapshot(cases.one_snapshot()) == payloads["snapshot"]
    assert session.decode_session(payloads["session"]) == cases.one_session()
    assert session.encode_session(cases.one_session()) == payloads["session"]


@pytest.mark.parametrize("case", VECTORS["objects"], ids=lambda case: f"{case['what']}-{case['cipher']}")
def test_objects(case: dict[str, str]) -> None:
    kind, name, stored = int(case["kind"]), raw(case["name"]), raw(case["object"])
    payload = raw(VECTORS["payloads"][case["what"]])
    assert open_object(kind, stored, key=KEYS.meta, repo_id=cases.REPO, name=name) == payload
    again = seal_object(
        kind,
        payload,
        cipher=get_cipher(int(case["cipher"])),
        epoch=int(case["epoch"]),
        key=KEYS.meta,
        repo_id=cases.REPO,
        name=name,
        salt=raw(case["salt"]),
    )
    assert again == stored


def test_pages() -> None:
    pages = {
        "leaf": cases.one_page(),
        "branch": cases.one_branch(),
        "empty": tree.Page(0, cases.Summary()),
    }
    assert {name: tree.encode_page(page).hex() for name, page in pages.items()} == VECTORS["pages"]
    assert {name: tree.decode_page(raw(text)) for name, text in VECTORS["pages"].items()} == pages


def test_lists() -> None:
    lists = {"entries": cases.one_list(), "references": cases.one_list_of_lists()}
    assert {name: chunklist.encode_list_page(page).hex() for name, page in lists.items()} == VECTORS["lists"]
    assert {name: chunklist.decode_list_page(raw(text)) for name, text in VECTORS["lists"].items()} == lists


def test_labelled_lists() -> None:
    lists = {"entries": cases.one_labelled_list(), "references": cases.one_labelled_list_of_lists()}
    assert {name: chunklist.encode_list_page(page).hex() for name, page in lists.items()} == LABELS["lists"]
    assert {name: chunklist.decode_list_page(raw(text)) for name, text in LABELS["lists"].items()} == lists


def test_page_ends() -> None:
    case = VECTORS["page_ends"]
    splitter = tree.PageSplitter(raw(case["names_key"]))
    names = [case["pattern"].encode() % number for number in range(case["count"])]
    ends = [place for place, name in enumerate(names) if splitter.cut_after(name, PAGE_MIN_ENTRIES)]
    assert ends == case["ends"]


def test_records() -> None:
    for case in VECTORS["records"]:
        plain = raw(case["plain"])
        base = None if case["base"] is None else raw(case["base"])
        assert expand(case["codec"], raw(case["packed"]), len(plain), base) == plain
