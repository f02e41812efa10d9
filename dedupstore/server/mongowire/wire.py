"""Messages of MongoDB's wire protocol as bytes: ``OP_MSG``, and ``OP_QUERY`` for the first greeting.

::

    message  = header, body                header = i32 length, i32 id, i32 answer to, i32 opcode
    OP_MSG   = u32 flags, section*, [u32 CRC-32C of all before it]
    section  = 00 document | 01 i32 size, name NUL, document*
    OP_QUERY = i32 flags, namespace NUL, i32 skip, i32 limit, document, [document]
    OP_REPLY = i32 flags, i64 cursor, i32 start, i32 number, document*

Whatever does not add up raises `Malformed`, after which a connection can only end. Pure functions.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dedupstore.errors import SourceError
from dedupstore.server.mongowire.crc32c import crc32c
from dedupstore.sources.bson import raw

HEADER: Final = struct.Struct("<iiii")
OP_REPLY, OP_QUERY, OP_COMPRESSED, OP_MSG = 1, 2004, 2012, 2013
MESSAGE_MAX: Final = 48_000_000
"""Bytes of one message, as it is told to clients."""
CHECKED_MAX: Final = 1 << 20
"""Bytes of a message with a checksum; drivers send none, and this is worked out in Python."""

_CHECKSUM, _MORE_TO_COME, _REQUIRED = 1, 2, 0xFFFF
_U32 = struct.Struct("<I")
_I32 = struct.Struct("<i")
_REPLY = struct.Struct("<iqii")
_QUERY_FAILED = 2


class Malformed(Exception):
    """Bytes that are no message of the protocol."""


@dataclass(frozen=True, slots=True)
class Message:
    """One request."""

    id: int
    body: bytes
    """The command, a document that `raw.validate` has seen; sections of documents are arrays in it."""
    legacy: bool = False
    """Whether it came as OP_QUERY and is answered as such."""
    silent: bool = False
    """Whether no answer is wanted."""
    database: str = ""
    """For OP_QUERY, which names it outside the command."""


def decode(header: bytes, payload: bytes) -> Message:
    """Read one message. Raises `Malformed`."""
    _, identifier, _, opcode = HEADER.unpack(header)
    try:
        if opcode == OP_MSG:
            return _decode_msg(identifier, header, payload)
        if opcode == OP_QUERY:
            return _decode_query(identifier, payload)
    except (SourceError, struct.error, IndexError) as error:
        raise Malformed(str(error)) from error
    raise Malformed(f"opcode {opcode} is not spoken here")


def _decode_msg(identifier: int, header: bytes, payload: bytes) -> Message:
    (flags,) = _U32.unpack_from(payload)
    if flags & _REQUIRED & ~(_CHECKSUM | _MORE_TO_COME):
        raise Malformed(f"flags {flags:#x} are not known")
    end = len(payload)
    if flags & _CHECKSUM:
        end -= 4
        if end > CHECKED_MAX:
            raise Malformed(f"a message with a checksum has more than {CHECKED_MAX} bytes")
        if end < 4 or _U32.unpack_from(payload, end)[0] != crc32c(header + payload[:end]):
            raise Malformed("the checksum of a message is wrong")
    body: bytes | None = None
    more: list[tuple[bytes, bytes]] = []
    at = 4
    while at < end:
        kind = payload[at]
        at += 1
        if kind == 0:
            stop = raw.document_at(payload, at)
            if body is not None or stop > end:
                raise Malformed("a message has two bodies, or one that runs past its end")
            body = payload[at:stop]
        elif kind == 1:
            (size,) = _I32.unpack_from(payload, at)
            stop = at + size
            if size < 5 or stop > end:
                raise Malformed("a section of documents has an impossible length")
            more.append(_sequence(payload[at + 4 : stop]))
        else:
            raise Malformed(f"a section of kind {kind} is not known")
        at = stop
    if body is None:
        raise Malformed("a message has no body")
    if more:
        body = _joined(body, more)
    raw.validate(body)
    return Message(identifier, body, silent=bool(flags & _MORE_TO_COME))


def _sequence(section: bytes) -> tuple[bytes, bytes]:
    """Return the name of a section of documents, and the field that they are."""
    name, nul, documents = section.partition(b"\0")
    if not nul or not name:
        raise Malformed("a section of documents has no name")
    return name, raw.element(
        name, raw.ARRAY, raw.array((raw.OBJECT, doc) for doc in raw.documents(documents))
    )


def _joined(body: bytes, sections: list[tuple[bytes, bytes]]) -> bytes:
    names = [name for name, _ in sections]
    if len({*names}) != len(names) or any(one.name in names for one in raw.elements(body)):
        raise Malformed("a field is in a message twice")
    return raw.framed(body[4:-1] + b"".join(field for _, field in sections))


def _decode_query(identifier: int, payload: bytes) -> Message:
    stop = payload.index(b"\0", 4) if b"\0" in payload[4:] else -1
    if stop < 0:
        raise Malformed("a query names no collection")
    database, _, name = payload[4:stop].partition(b".")
    if name != b"$cmd":
        raise Malformed("OP_QUERY is for the first greeting only")
    start = stop + 9
    body = payload[start : raw.document_at(payload, start)]
    raw.validate(body)
    return Message(identifier, body, legacy=True, database=database.decode("utf-8", "surrogateescape"))


def encode(message: Message, identifier: int, parts: Sequence[bytes], *, failed: bool = False) -> bytes:
    """Return the answer to a message: one document, given as the bytes of its fields."""
    size = sum(map(len, parts)) + 5
    document: Iterable[bytes] = (_I32.pack(size), *parts, b"\0")
    if message.legacy:
        lead = _REPLY.pack(_QUERY_FAILED if failed else 8, 0, 0, 1)
        opcode = OP_REPLY
    else:
        lead, opcode = bytes(5), OP_MSG
    header = HEADER.pack(HEADER.size + len(lead) + size, identifier, message.id, opcode)
    return b"".join((header, lead, *document))
