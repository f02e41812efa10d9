"""Extended JSON: against pymongo's, against the text that MongoDB's tools write, and there and back."""

import math
import struct

import bson
import pytest
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.son import SON
from hypothesis import given, settings
from hypothesis import strategies as st

from dedupstore.errors import SourceError, UsageError
from dedupstore.sources.bson import raw
from dedupstore.sources.bson.extjson import from_json, parse_id, shown, shown_value, to_json
from dedupstore.sources.bson.order import sort_key
from tests.unit.bson.bson_values import DECIMALS, DOCUMENTS, decimal, document, scoped, text

CODEC = CodecOptions(document_class=SON, datetime_conversion=DatetimeConversion.DATETIME_MS)


def one(kind: int, data: bytes) -> bytes:
    return document([(b"a", (kind, data))])


WRITTEN = [
    (0x01, struct.pack("<d", 1.0), '{"$numberDouble":"1.0"}', "1.0"),
    (0x01, struct.pack("<d", -0.0), '{"$numberDouble":"-0.0"}', "-0.0"),
    (0x01, struct.pack("<d", 123456.5), '{"$numberDouble":"123456.5"}', "123456.5"),
    (0x01, struct.pack("<d", 1e6), '{"$numberDouble":"1E+06"}', "1E+06"),
    (0x01, struct.pack("<d", -1234567.0), '{"$numberDouble":"-1.234567E+06"}', "-1.234567E+06"),
    (0x01, struct.pack("<d", 0.0001), '{"$numberDouble":"0.0001"}', "0.0001"),
    (0x01, struct.pack("<d", 1e-5), '{"$numberDouble":"1E-05"}', "1E-05"),
    (0x01, struct.pack("<d", 5e-324), '{"$numberDouble":"5E-324"}', "5E-324"),
    (0x01, struct.pack("<d", 1.5e300), '{"$numberDouble":"1.5E+300"}', "1.5E+300"),
    (0x01, struct.pack("<d", float("inf")), '{"$numberDouble":"Infinity"}', None),
    (0x01, struct.pack("<d", float("-inf")), '{"$numberDouble":"-Infinity"}', None),
    (0x01, bytes.fromhex("000000000000f87f"), '{"$numberDouble":"NaN"}', None),
    (0x02, text('é"\\/\n\x01\x7f\u2028'.encode()), '"é\\"\\\\/\\n\\u0001\x7f\\u2028"', None),
    (0x04, document([(b"0", (0x0A, b"")), (b"1", (0x08, b"\0"))]), "[null,false]", None),
    (0x05, b"\3\0\0\0\0abc", '{"$binary":{"base64":"YWJj","subType":"00"}}', None),
    (0x05, b"\7\0\0\0\2\3\0\0\0abc", '{"$binary":{"base64":"YWJj","subType":"02"}}', None),
    (0x06, b"", '{"$undefined":true}', None),
    (0x07, bytes(range(12)), '{"$oid":"000102030405060708090a0b"}', None),
    (0x09, struct.pack("<q", 0), '{"$date":{"$numberLong":"0"}}', '{"$date":"1970-01-01T00:00:00Z"}'),
    (
        0x09,
        struct.pack("<q", 253402300799999),
        '{"$date":{"$numberLong":"253402300799999"}}',
        '{"$date":"9999-12-31T23:59:59.999Z"}',
    ),
    (
        0x09,
        struct.pack("<q", 600_100),
        '{"$date":{"$numberLong":"600100"}}',
        '{"$date":"1970-01-01T00:10:00.1Z"}',
    ),
    (0x09, struct.pack("<q", -1), '{"$date":{"$numberLong":"-1"}}', None),
    (0x09, struct.pack("<q", 1 << 62), '{"$date":{"$numberLong":"4611686018427387904"}}', None),
    (
        0x0B,
        b"^a\\\0ix\0",
        '{"$regularExpression":{"pattern":"^a\\\\","options":"ix"}}',
        None,
    ),
    (
        0x0C,
        text(b"db.c") + bytes(12),
        '{"$dbPointer":{"$ref":"db.c","$id":{"$oid":"000000000000000000000000"}}}',
        None,
    ),
    (0x0D, text(b"f()"), '{"$code":"f()"}', None),
    (0x0E, text(b"s"), '{"$symbol":"s"}', None),
    (
        0x0F,
        scoped(b"f()", one(0x10, struct.pack("<i", 1))),
        '{"$code":"f()","$scope":{"a":{"$numberInt":"1"}}}',
        '{"$code":"f()","$scope":{"a":1}}',
    ),
    (0x10, struct.pack("<i", -5), '{"$numberInt":"-5"}', "-5"),
    (0x11, struct.pack("<II", 2, 1), '{"$timestamp":{"t":1,"i":2}}', None),
    (0x12, struct.pack("<q", 1 << 40), '{"$numberLong":"1099511627776"}', "1099511627776"),
    (0x13, decimal("1.10"), '{"$numberDecimal":"1.10"}', None),
    (0xFF, b"", '{"$minKey":1}', None),
    (0x7F, b"", '{"$maxKey":1}', None),
]


@pytest.mark.parametrize(("kind", "value", "canonical", "relaxed"), WRITTEN)
def test_every_type_is_written_as_the_tools_do(
    kind: int, value: bytes, canonical: str, relaxed: str | None
) -> None:
    doc = one(kind, value)
    assert to_json(doc) == f'{{"a":{canonical}}}'
    assert to_json(doc, relaxed=True) == f'{{"a":{relaxed or canonical}}}'
    assert from_json(to_json(doc)) == doc
    assert shown_value(bytes((kind,)) + value) == relaxed or canonical


def lossless(doc: bytes) -> bool:
    """Whether JSON can say all that is in a document."""
    return all(sayable(kind, doc[start:end]) for _, kind, start, end in raw.elements(doc))


def sayable(kind: int, value: bytes) -> bool:
    if kind == raw.DECIMAL128:
        return decimal_text(value) is not None
    if kind == raw.DOUBLE:
        return not math.isnan(struct.unpack("<d", value)[0])
    if kind == raw.BINARY and value[4] == 2:
        return value[5:9] == struct.pack("<i", len(value) - 9)
    if kind in {raw.OBJECT, raw.ARRAY}:
        return lossless(value)
    return kind != raw.CODE_W_SCOPE or lossless(value[raw.value_end(value, raw.STRING, 4, len(value)) :])


def decimal_text(value: bytes) -> str | None:
    written = str(bson.Decimal128.from_bid(value))
    return written if bson.Decimal128(written).bid == value else None


@given(DOCUMENTS)
@settings(max_examples=300)
def test_there_and_back(doc: bytes) -> None:
    found = from_json(to_json(doc))
    assert [e.name for e in raw.elements(found)] == [e.name for e in raw.elements(doc)]
    if lossless(doc):
        assert to_json(found) == to_json(doc)
        assert b"$" in doc or found == doc  # a document whose names are those of a wrapper can not be told
    shown(doc).encode()


SAFE = st.recursive(
    st.one_of(
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**63), 2**63 - 1).map(bson.Int64),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.booleans(),
        st.none(),
        st.binary(min_size=12, max_size=12).map(bson.ObjectId),
        st.tuples(st.binary(max_size=9), st.sampled_from([0, 1, 2, 3, 4, 5, 128])).map(
            lambda pair: bson.Binary(*pair)
        ),
        st.integers(-(2**62), 2**62).map(bson.DatetimeMS),
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).map(
            lambda pair: bson.Timestamp(*pair)
        ),
        st.sampled_from(DECIMALS).filter(lambda written: written != "-NaN").map(bson.Decimal128),
        st.sampled_from([bson.MinKey(), bson.MaxKey(), bson.Regex("^a", "im"), bson.Code("f()")]),
        st.just(bson.Code("f()", {"x": 1})),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b.c", "é", ""]), inner, max_size=3),
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["_id", "x", "y", "é"]), SAFE, max_size=4))
@settings(max_examples=300)
def test_pymongo_reads_what_is_written(value: dict[str, object]) -> None:
    doc = bson.encode(value, codec_options=CODEC)
    options = json_util.JSONOptions(
        json_mode=json_util.JSONMode.CANONICAL,
        document_class=SON,
        datetime_conversion=DatetimeConversion.DATETIME_MS,
    )
    read = json_util.loads(to_json(doc), json_options=options)
    assert bson.encode(read, codec_options=CODEC) == doc
    theirs = json_util.dumps(bson.decode(doc, CODEC), json_options=options)
    assert from_json(theirs) == doc


@pytest.mark.parametrize(
    ("written", "kind", "value"),
    [
        ("1", 0x10, struct.pack("<i", 1)),
        ("2147483648", 0x12, struct.pack("<q", 1 << 31)),
        ("-9223372036854775808", 0x12, struct.pack("<q", -(1 << 63))),
        ("9223372036854775808", 0x01, struct.pack("<d", 2.0**63)),
        ("1.0", 0x01, struct.pack("<d", 1.0)),
        ('{"$date":"2020-01-01T00:00:00.5+01:00"}', 0x09, struct.pack("<q", 1577833200500)),
        ('{"$date":"1969-12-31T23:59:59.9999Z"}', 0x09, struct.pack("<q", -1)),
        ('{"$date":5}', 0x09, struct.pack("<q", 5)),
        ('{"$binary":"YWJj","$type":"0"}', 0x05, b"\3\0\0\0\0abc"),
        ('{"$uuid":"00010203-0405-0607-0809-0a0b0c0d0e0f"}', 0x05, b"\x10\0\0\0\4" + bytes(range(16))),
        (
            '{"$regex":"a","$options":""}',
            0x03,
            document([(b"$regex", (2, text(b"a"))), (b"$options", (2, text(b"")))]),
        ),
        ('{"$type":"a"}', 0x03, document([(b"$type", (2, text(b"a")))])),
        ('{"$gt":{"$numberInt":"1"}}', 0x03, document([(b"$gt", (0x10, struct.pack("<i", 1)))])),
        ('{"a":1,"a":2}', 0x03, document([(b"a", (0x10, b"\1\0\0\0")), (b"a", (0x10, b"\2\0\0\0"))])),
    ],
)  # fmt: skip
def test_other_ways_to_write_it(written: str, kind: int, value: bytes) -> None:
    assert from_json(f'{{"a":{written}}}') == one(kind, value)


@pytest.mark.parametrize(
    "written",
    [
        "", "{", "[]", "1", '"a"', "{'a':1}", '{"a":NaN}', '{"a":Infinity}', '{"a":01}', '{"a":1} {}',
        '{"a":{"$oid":"xyz"}}', '{"a":{"$oid":5}}', '{"a":{"$numberInt":"2147483648"}}',
        '{"a":{"$numberInt":1}}', '{"a":{"$numberLong":"1.5"}}',
        '{"a":{"$numberLong":"9223372036854775808"}}', '{"a":{"$numberDouble":"abc"}}',
        '{"a":{"$numberDecimal":"1e"}}', '{"a":{"$numberDecimal":"1_0"}}',
        '{"a":{"$numberDecimal":"12345678901234567890123456789012345"}}',
        '{"a":{"$numberDecimal":"1E+6145"}}', '{"a":{"$numberDecimal":"1E-6177"}}',
        '{"a":{"$numberDecimal":"1E+99999999"}}',
        '{"a":{"$binary":{"base64":"?","subType":"00"}}}', '{"a":{"$binary":{"base64":"","subType":"xyz"}}}',
        '{"a":{"$binary":{"base64":""}}}', '{"a":{"$binary":5}}', '{"a":{"$date":"yesterday"}}',
        '{"a":{"$date":true}}', '{"a":{"$date":99999999999999999999}}', '{"a":{"$timestamp":{"t":-1,"i":0}}}',
        '{"a":{"$timestamp":{"t":4294967296,"i":0}}}', '{"a":{"$timestamp":{"t":"1","i":0}}}',
        '{"a":{"$regularExpression":{"pattern":"a\\u0000","options":""}}}', '{"a":{"$minKey":2}}',
        '{"a":{"$undefined":false}}', '{"a":{"$code":5}}', '{"a":{"$code":"a","$scope":5}}',
        '{"a":{"$symbol":null}}', '{"a":{"$uuid":"00"}}', '{"a":{"$dbPointer":{"$ref":"a"}}}',
        '{"a\\u0000":1}', '{"a":"\\ud800"}', '{"a":1' + "0" * 400 + "}", '{"a":' * 250 + "1" + "}" * 250,
        '{"a":' * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_extended_json(written: str) -> None:
    with pytest.raises(SourceError):
        from_json(written)


@given(st.text(max_size=40))
@settings(max_examples=300)
def test_any_text(written: str) -> None:
    try:
        raw.validate(from_json(written))
    except SourceError:
        return


def test_text_that_is_no_utf8() -> None:
    doc = document([(b"\xff", (0x02, text(b"a\xfe")))])
    written = to_json(doc)
    assert from_json(written) == doc
    assert from_json(written.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")) == doc
    assert shown(doc) == '{"\ufffd":"a\ufffd"}'


@pytest.mark.parametrize("written", DECIMALS)
def test_decimals(written: str) -> None:
    doc = one(0x13, decimal(written))
    expected = str(bson.Decimal128(written)).replace("-NaN", "NaN")
    assert to_json(doc) == f'{{"a":{{"$numberDecimal":"{expected}"}}}}'
    if expected != "NaN":
        assert from_json(to_json(doc)) == doc
    assert from_json(f'{{"a":{{"$numberDecimal":"{written}"}}}}') == doc


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("17", b"\x10" + struct.pack("<i", 17)),
        (" -5 ", b"\x10" + struct.pack("<i", -5)),
        ("5000000000", b"\x12" + struct.pack("<q", 5_000_000_000)),
        ("1.5", b"\x01" + struct.pack("<d", 1.5)),
        ("abc", b"\x02" + text(b"abc")),
        ('"abc"', b"\x02" + text(b"abc")),
        ('"17"', b"\x02" + text(b"17")),
        ("two words", b"\x02" + text(b"two words")),
        ("007", b"\x02" + text(b"007")),
        ("NaN", b"\x02" + text(b"NaN")),
        ("true", b"\x08\1"),
        ("null", b"\x0a"),
        ("66b0c0ffee66b0c0ffee0001", b"\x07" + bytes.fromhex("66b0c0ffee66b0c0ffee0001")),
        ('"66b0c0ffee66b0c0ffee0001"', b"\x02" + text(b"66b0c0ffee66b0c0ffee0001")),
        ('ObjectId("66b0c0ffee66b0c0ffee0001")', b"\x07" + bytes.fromhex("66b0c0ffee66b0c0ffee0001")),
        ("ObjectId('66B0C0FFEE66B0C0FFEE0001')", b"\x07" + bytes.fromhex("66b0c0ffee66b0c0ffee0001")),
        ('{"$oid":"66b0c0ffee66b0c0ffee0001"}', b"\x07" + bytes.fromhex("66b0c0ffee66b0c0ffee0001")),
        ('UUID("00010203-0405-0607-0809-0a0b0c0d0e0f")', b"\x05\x10\0\0\0\4" + bytes(range(16))),
        ('{"a":1}', b"\x03" + document([(b"a", (0x10, struct.pack("<i", 1)))])),
        (
            '{"b":{"$numberLong":"1"},"a":[]}',
            b"\x03" + document([(b"b", (0x12, struct.pack("<q", 1))), (b"a", (4, raw.EMPTY))]),
        ),
        ('{"$minKey":1}', b"\xff"),
    ],
)  # fmt: skip
def test_an_id_as_people_type_it(written: str, expected: bytes) -> None:
    assert parse_id(written) == expected
    assert sort_key(parse_id(shown_value(expected))) == sort_key(expected)


@pytest.mark.parametrize(
    "written", ["", " ", "{", '"abc', '{"$oid":"12"}', "[1", "ObjectId('12')", '{"a":1}x']
)
def test_what_is_no_id(written: str) -> None:
    with pytest.raises(UsageError, match="is no _id"):
        parse_id(written)


def test_no_id_is_shown_too() -> None:
    assert shown_value(b"") == "nothing"


def test_damage_is_not_written() -> None:
    with pytest.raises(SourceError, match="neither false nor true"):
        to_json(one(0x08, b"\2"))
