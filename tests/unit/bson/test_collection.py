"""Metadata as mongodump writes it, names as it escapes them, and facts that come back as they were packed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedupstore.errors import FormatError, ObjectDamaged, SourceError
from dedupstore.model import Node, NodeKind
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.collection import (
    EXTRA,
    NAME_MAX,
    CollectionFacts,
    CollectionInfo,
    collection_name,
    file_name,
    metadata_json,
    parse_metadata,
    prelude_json,
    read_facts,
    server_version,
)
from dedupstore.sources.bson.extjson import from_json

UUID = bytes(range(16))
ID_INDEX = from_json('{"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"}')
WRITTEN = (
    b'{"options":{"capped":true,"size":{"$numberLong":"4096"}},'
    b'"indexes":[{"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"},'
    b'{"v":{"$numberInt":"2"},"key":{"b":{"$numberDouble":"-1.0"},"a":{"$numberInt":"1"}},"name":"b_-1_a_1"}],'
    b'"uuid":"000102030405060708090a0b0c0d0e0f","collectionName":"orders","type":"collection"}'
)


def test_metadata_of_a_real_dump_comes_back_byte_for_byte() -> None:
    info = parse_metadata(WRITTEN, "shop")
    assert (info.db, info.name, info.kind, info.uuid) == ("shop", "orders", "collection", UUID)
    assert info.namespace == "shop.orders"
    assert info.options == from_json('{"capped":true,"size":{"$numberLong":"4096"}}')
    assert info.indexes[0] == ID_INDEX
    assert [e.name for e in raw.elements(info.indexes[1])] == [b"v", b"key", b"name"]
    assert info.more == raw.EMPTY
    assert metadata_json(info) == WRITTEN


def test_a_bare_collection() -> None:
    info = CollectionInfo("db", "a")
    written = metadata_json(info)
    assert written == b'{"indexes":[],"collectionName":"a","type":"collection"}'
    assert parse_metadata(written, "db") == info


def test_a_view() -> None:
    options = from_json('{"viewOn":"orders","pipeline":[{"$match":{"a":{"$gt":{"$numberInt":"1"}}}}]}')
    info = CollectionInfo("db", "v", "view", b"", options)
    assert parse_metadata(metadata_json(info), "db") == info


def test_what_is_unknown_is_kept() -> None:
    written = WRITTEN[:-1] + b',"later":{"a":{"$numberInt":"1"}},"later":null}'
    assert metadata_json(parse_metadata(written, "shop")) == written


def test_metadata_of_an_old_dump() -> None:
    """Before 4.2 there were no names, types or uuids in it, and numbers were relaxed."""
    written = b'{"options":{},"indexes":[{"v":1,"key":{"_id":1},"name":"_id_","ns":"db.c d"}]}'
    info = parse_metadata(written, "db", "c d")
    assert (info.name, info.kind, info.uuid, info.options) == ("c d", "collection", b"", raw.EMPTY)
    assert raw.field(info.indexes[0], b"v") == (b"v", raw.INT32, 7, 11)
    for options, kind in (('{"viewOn":"c","pipeline":[]}', "view"), ('{"timeseries":{}}', "timeseries")):
        old = f'{{"options":{options},"indexes":null}}'.encode()
        found = parse_metadata(old, "db", "c")
        assert (found.kind, found.indexes) == (kind, ())


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (b"", "not extended JSON"),
        (b"[]", "array where a document"),
        (b"{}", "does not name"),
        (b'{"collectionName":"a","type":"table"}', "unknown type 'table'"),
        (b'{"collectionName":"a","uuid":"12"}', "uuid that is none"),
        (b'{"collectionName":"a","uuid":"x"}', "uuid that is none"),
        (b'{"collectionName":"a","indexes":[1]}', "no document"),
        (b"\xff", "not extended JSON"),
    ],
)
def test_unusable_metadata(written: bytes, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        parse_metadata(written, "db")


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("orders", b"orders"),
        ("c é/%", b"c+%C3%A9%2F%25"),
        ("a.b-c_d~e", b"a.b-c_d~e"),
        ("a+b", b"a%2Bb"),
        ("a\nb", b"a%0Ab"),
        ("x" * 238, b"x" * 238),
        ("x" * 239, b"x" * 208 + b"%24" + b"Nq75d-cu3iRxNs-ce3Tvf9gagoU"),
        ("é" * 40, b"%C3%A9" * 34 + b"%C3%" + b"%24" + b"vwYqY6fSxDXZKVgUjO6HAzPeaB0"),
    ],
)
def test_names_of_files(name: str, escaped: bytes) -> None:
    assert file_name(name) == escaped
    assert collection_name(escaped) == (name if len(escaped) < NAME_MAX or name == escaped.decode() else None)


@given(st.text(min_size=1, max_size=120))
def test_any_name(name: str) -> None:
    try:
        escaped = file_name(name)
    except UnicodeEncodeError:
        return  # a lone surrogate, which no source gives
    assert len(escaped) <= NAME_MAX
    assert b"/" not in escaped
    assert collection_name(escaped) in {name, None}
    assert (collection_name(escaped) is None) == (len(escaped) == NAME_MAX and b"%24" in escaped[208:])


def test_prelude() -> None:
    written = prelude_json("8.2.11", "dstore 1.0")
    assert written == b'{"ServerVersion":"8.2.11","ToolVersion":"dstore 1.0"}'
    assert server_version(written) == "8.2.11"
    assert server_version(b"{}") == ""
    assert server_version(b'{"ServerVersion":8}') == ""


FACTS = CollectionFacts(k=5, in_order=True, documents=1 << 40, db="db", name="c é", uuid=UUID)


def node(extra: dict[str, bytes] | None) -> Node:
    return Node(b"c.bson", NodeKind.STREAM, extra=extra)


def test_facts_come_back() -> None:
    assert read_back(FACTS.pack()) == FACTS
    assert (
        FACTS.pack().hex() == "970105c3cf0000010000000000a26462a46320c3a9c410000102030405060708090a0b0c0d0e0f"
    )


def read_back(packed: bytes) -> CollectionFacts | None:
    return read_facts(node({EXTRA: packed}))


def test_a_node_without_documents() -> None:
    assert read_facts(node(None)) is None
    assert read_facts(node({"other": b""})) is None


def test_later_facts_are_refused() -> None:
    with pytest.raises(FormatError, match="version 2"):
        read_back(msgspec.msgpack.encode((2, "whatever")))


@given(st.binary(max_size=40))
def test_facts_that_make_no_sense(packed: bytes) -> None:
    try:
        read_back(packed)
    except (ObjectDamaged, FormatError):
        return


@pytest.mark.parametrize("packed", [b"", b"\x90", b"\xc0", b"\x91\x01", FACTS.pack()[:-1], b"\x80"])
def test_damaged_facts(packed: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        read_back(packed)
