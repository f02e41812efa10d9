"""Extended JSON v2: documents as text and back, canonical as mongodump writes it, relaxed as people read it.

Written over raw BSON rather than over Python objects, so that order, duplicate names, number types and the
deprecated types survive: ``from_json(to_json(doc)) == doc``, but for what JSON can not say (payloads and
signs of NaN, encodings of decimal128 that are not the preferred one, lengths of old binaries that disagree).
Text that is no UTF-8 passes through as lone surrogates: encode and decode with ``surrogateescape``.

Pure functions; memory a small multiple of the text.
"""

import base64
import json
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from dedupstore.errors import SourceError, UsageError
from dedupstore.sources.bson import decimal128, raw
from dedupstore.sources.bson.extparse import parse_value, string_value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000 = 253_402_300_800_000
_OLD_BINARY = 2
_PLAIN_POWERS = 6
"""Doubles from ten to this power on are written with an exponent, as Go does it."""
_TEXT = json.JSONEncoder(ensure_ascii=False).encode


def to_json(doc: bytes, *, relaxed: bool = False) -> str:
    """Return a document as extended JSON on one line, without blanks; canonical unless ``relaxed``.

    Raises `SourceError` for damaged BSON.
    """
    raw.validate(doc)
    return _object_text(doc, relaxed)


def shown(doc: bytes) -> str:
    """Return a document as relaxed extended JSON that any file takes: what is no UTF-8 is replaced."""
    return _printable(to_json(doc, relaxed=True))


def shown_value(identity: bytes) -> str:
    """Return the value of an identity (type byte, raw value) as `shown` does; ``nothing`` for ``b""``."""
    if not identity:
        return "nothing"
    text = shown(raw.document([(b"", identity[0], identity[1:])]))
    return text[len('{"":') : -1]


def from_json(text: str) -> bytes:
    """Return the document that canonical or relaxed extended JSON stands for. Raises `SourceError`."""
    try:
        kind, doc = parse_value(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"text is not extended JSON ({error}): look at the file that it comes from"
        ) from error
    if kind != raw.OBJECT:
        raise SourceError(
            f"extended JSON holds a {raw.TYPE_NAMES[kind]} where a document belongs: look at the file"
        )
    raw.validate(doc)
    return doc


def parse_id(text: str) -> bytes:
    """Return the identity (type byte, raw value) that a user means.

    Takes extended JSON (``17``, ``"abc"``, ``{"$oid": ...}``, ``{"a": 1}``), what shells print
    (``ObjectId("...")``, ``UUID("...")``), 24 hexadecimal digits as an ObjectId, and anything else that does
    not begin like JSON as a bare string. Raises `UsageError`.
    """
    bare = text.strip()
    call = _CALL.fullmatch(bare)
    if call:
        bare = json.dumps({"$oid" if call[1] == "ObjectId" else "$uuid": call[2]})
    elif _HEX_ID.fullmatch(bare):
        bare = json.dumps({"$oid": bare})
    try:
        kind, value = parse_value(bare)
        raw.validate(raw.document([(b"_id", kind, value)]))
    except (ValueError, RecursionError, SourceError) as error:
        if bare[:1] in {"{", "[", '"', ""}:
            raise UsageError(
                f"{text!r} is no _id ({error}): give a number, a string or extended JSON such as "
                '{"$oid": "0123456789abcdef01234567"}'
            ) from error
        kind, value = raw.STRING, string_value(bare)
    return bytes((kind,)) + value


_CALL = re.compile(r"""(ObjectId|UUID)\(["']([0-9A-Fa-f-]+)["']\)""")
_HEX_ID = re.compile("[0-9A-Fa-f]{24}")


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _quoted(data: bytes) -> str:
    text = _TEXT(data.decode("utf-8", "surrogateescape"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _object_text(doc: bytes, relaxed: bool) -> str:
    fields = [
        f"{_quoted(name)}:{_value_text(kind, doc[start:end], relaxed)}"
        for name, kind, start, end in raw.elements(doc)
    ]
    return "{" + ",".join(fields) + "}"


def _value_text(kind: int, value: bytes, relaxed: bool) -> str:
    if kind == raw.OBJECT:
        return _object_text(value, relaxed)
    if kind == raw.ARRAY:
        values = [_value_text(k, value[start:end], relaxed) for _, k, start, end in raw.elements(value)]
        return "[" + ",".join(values) + "]"
    if kind == raw.CODE_W_SCOPE:
        scope = raw.value_end(value, raw.STRING, 4, len(value))
        return f'{{"$code":{_quoted(value[8 : scope - 1])},"$scope":{_object_text(value[scope:], relaxed)}}}'
    if relaxed:
        plain = _relaxed_text(kind, value)
        if plain is not None:
            return plain
    return _WRITERS[kind](value)


def _relaxed_text(kind: int, value: bytes) -> str | None:
    """Return the relaxed form of a value that has one of its own."""
    if kind in {raw.INT32, raw.INT64}:
        return str(raw.int_of(kind, value))
    if kind == raw.DOUBLE:
        text = _double_text(struct.unpack("<d", value)[0])
        return text if text[-1].isdigit() else None
    if kind == raw.DATE:
        millis = raw.int_of(raw.INT64, value)
        if 0 <= millis < _YEAR_10000:
            moment = (_EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds")[:-6]
            return f'{{"$date":"{moment.rstrip("0").rstrip(".") if millis % 1000 else moment[:-4]}Z"}}'
    return None


def _double_text(number: float) -> str:
    """Write the shortest digits that give the number back, laid out as Go's ``'G'`` format does."""
    text = repr(number)
    if text in {"nan", "inf", "-inf"}:
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[text]
    sign, digits, power = Decimal(text).as_tuple()
    shortest = "".join(map(str, digits)).rstrip("0") or "0"
    exponent = int(power) + len(digits) - 1 if any(digits) else 0
    if -4 <= exponent < _PLAIN_POWERS:
        return f"{number:.1f}" if number.is_integer() else f"{Decimal(text):f}"
    fraction = f".{shortest[1:]}" if len(shortest) > 1 else ""
    return f"{'-' if sign else ''}{shortest[0]}{fraction}E{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _binary_text(value: bytes) -> str:
    subtype, data = value[4], value[5:]
    if subtype == _OLD_BINARY and data[:4] == raw.int32(len(data) - 4):
        data = data[4:]
    return f'{{"$binary":{{"base64":"{base64.b64encode(data).decode()}","subType":"{subtype:02x}"}}}}'


def _regex_text(value: bytes) -> str:
    pattern, options, _ = value.split(b"\0")
    return f'{{"$regularExpression":{{"pattern":{_quoted(pattern)},"options":{_quoted(options)}}}}}'


def _pointer_text(value: bytes) -> str:
    return f'{{"$dbPointer":{{"$ref":{_quoted(value[4:-13])},"$id":{{"$oid":"{value[-12:].hex()}"}}}}}}'


def _timestamp_text(value: bytes) -> str:
    increment, seconds = struct.unpack("<II", value)
    return f'{{"$timestamp":{{"t":{seconds},"i":{increment}}}}}'


_WRITERS: dict[int, Callable[[bytes], str]] = {
    raw.DOUBLE: lambda value: f'{{"$numberDouble":"{_double_text(struct.unpack("<d", value)[0])}"}}',
    raw.STRING: lambda value: _quoted(value[4:-1]),
    raw.BINARY: _binary_text,
    raw.UNDEFINED: lambda _: '{"$undefined":true}',
    raw.OBJECT_ID: lambda value: f'{{"$oid":"{value.hex()}"}}',
    raw.BOOL: lambda value: "true" if value[0] else "false",
    raw.DATE: lambda value: f'{{"$date":{{"$numberLong":"{raw.int_of(raw.INT64, value)}"}}}}',
    raw.NULL: lambda _: "null",
    raw.REGEX: _regex_text,
    raw.DB_POINTER: _pointer_text,
    raw.CODE: lambda value: f'{{"$code":{_quoted(value[4:-1])}}}',
    raw.SYMBOL: lambda value: f'{{"$symbol":{_quoted(value[4:-1])}}}',
    raw.INT32: lambda value: f'{{"$numberInt":"{raw.int_of(raw.INT32, value)}"}}',
    raw.TIMESTAMP: _timestamp_text,
    raw.INT64: lambda value: f'{{"$numberLong":"{raw.int_of(raw.INT64, value)}"}}',
    raw.DECIMAL128: lambda value: f'{{"$numberDecimal":"{decimal128.text(value)}"}}',
    raw.MIN_KEY: lambda _: '{"$minKey":1}',
    raw.MAX_KEY: lambda _: '{"$maxKey":1}',
}
