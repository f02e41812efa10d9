"""A pack: sealed records, a sealed directory that lists them, and a trailer that anyone can check.

`PackBuilder` fills one preallocated buffer from several threads: space is reserved under the
caller's lock, sealing and reading back happen outside it. `read_header`, `read_trailer` and
`read_directory` are the way back. The layout is in ``FORMAT.md``, section *Packs*.
"""

import mmap
import struct
from dataclasses import dataclass

import msgspec

from dedupstore.errors import FormatError, IntegrityError, ObjectDamaged, UsageError
from dedupstore.format import constants as c
from dedupstore.format.crypto import Cipher, get_cipher, keyed_hash, plain_hash
from dedupstore.format.keys import EpochKeys
from dedupstore.format.padding import padme
from dedupstore.format.payload import decode_payload, encode_payload
from dedupstore.format.rows import Row, decode_rows, encode_rows
from dedupstore.ids import ChunkId, PackId, short
from dedupstore.model import ChunkKind, Data, Members, PackContents, Record

CLOSE_FROM = 0.6
"""A pack that is at least this full (of its capacity) may be closed where little padding is lost."""
CLOSE_WASTE = 0.001
"""... that is, where padding would add less than this part of its size."""


@dataclass(frozen=True, slots=True)
class PackHeader:
    """The first `constants.PACK_HEADER_SIZE` bytes of a pack, checked."""

    kind: ChunkKind
    cipher: int
    epoch: int
    salt: bytes
    commitment: bytes


class _Directory(msgspec.Struct, frozen=True, array_like=True):
    rows: list[Row]


_DECODER = msgspec.msgpack.Decoder(_Directory)


def pack_key(keys: EpochKeys, kind: ChunkKind, repo_id: bytes, name: PackId, salt: bytes) -> bytes:
    """Derive the key of one pack. It binds kind, repository and name, so packs can not be swapped."""
    secret = keys.data if kind is ChunkKind.DATA else keys.tree
    return keyed_hash(secret, b"".join((c.LABEL_PACK_KEY, salt, name, bytes([kind]), repo_id)))


def record_ad(
    kind: int, repo_id: bytes, number: int, codec: int, plain_length: int, base: bytes | None
) -> bytes:
    """Return the associated data that a record is sealed with."""
    return c.RECORD_AD.pack(c.PACK_VERSION, kind, repo_id, number, codec, plain_length, base or c.NO_BASE)


class PackBuilder:
    """One pack in the making, in a buffer of its final capacity.

    Threads: `fits`, `reserve`, `close` and `full` are called under the owner's lock; `seal` by any
    thread for the space it reserved. Memory: the buffer, plus 36 bytes a chunk.
    """

    def __init__(  # the eight things a pack is bound to
        self,
        buffer: mmap.mmap,
        *,
        name: PackId,
        kind: ChunkKind,
        keys: EpochKeys,
        repo_id: bytes,
        cipher: Cipher,
        salt: bytes,
    ) -> None:
        self.name = name
        self.kind = kind
        self.buffer = buffer
        self._repo_id = repo_id
        self._cipher = cipher
        self._salt = salt
        self._epoch = keys.number
        self._key = pack_key(keys, kind, repo_id, name, salt)
        commitment = keyed_hash(self._key, c.LABEL_COMMITMENT)
        buffer[: c.PACK_HEADER_SIZE] = c.PACK_HEADER.pack(
            c.PACK_MAGIC,
            c.PACK_VERSION,
            kind,
            cipher.number,
            keys.number,
            salt,
            commitment,
            c.WRAP_EPOCH_KEY,
            bytes(c.PACK_RESERVED_SIZE),
        )
        self._used = c.PACK_HEADER_SIZE
        self._directory_bytes = 16
        self._records: list[tuple[Record, Members]] = []
        self.unsealed = 0
        """Reserved records whose sealing has not ended; kept by the owner under its lock."""

    @property
    def records(self) -> int:
        """How many records were reserved."""
        return len(self._records)

    def _total(self, more: int, entries: int) -> int:
        directory = c.ENVELOPE_LENGTH_SIZE + self._directory_bytes + entries
        tail = padme(directory) + self._cipher.tag_size + c.PACK_TRAILER_SIZE
        return self._used + more + tail

    def fits(self, length: int, members: int) -> bool:
        """Say whether a record of ``length`` compressed bytes and so many chunks still fits."""
        sealed = length + self._cipher.tag_size
        return padme(self._total(sealed, _entry_bytes(members))) <= len(self.buffer)

    def reserve(
        self, length: int, codec: int, plain_length: int, members: Members, base: ChunkId | None
    ) -> Record:
        """Take space for a record of ``length`` compressed bytes; the caller checked `fits`.

        Raises `UsageError` for one that no reader would take: its pack, and every segment that lists it,
        would be refused.
        """
        if not 0 < plain_length <= c.RECORD_PLAIN_MAX or len(self._records) == c.RECORDS_MAX:
            raise UsageError(
                f"a record of {plain_length} bytes can not be stored: the limit is {c.RECORD_PLAIN_MAX}"
            )
        sealed = length + self._cipher.tag_size
        record = Record(self.name, len(self._records), self._used, sealed, codec, plain_length, base)
        self._records.append((record, members))
        self._used += sealed
        self._directory_bytes += _entry_bytes(len(members))
        return record

    def seal(self, record: Record, data: Data, scratch: bytearray) -> None:
        """Seal ``data`` into the reserved place and open it again into ``scratch``.

        ``scratch`` holds at least ``len(data)`` bytes and belongs to the calling thread. Raises
        `IntegrityError` when what was sealed does not open to the same bytes (bad memory, mostly). That it
        opens is not enough: XChaCha20-Poly1305 computes its tag from the ciphertext, so one that was
        spoilt before that has a good tag.
        """
        ad = record_ad(
            self.kind, self._repo_id, record.number, record.codec, record.plain_length, record.base
        )
        cipher, key, number = self._cipher, self._key, record.number
        cipher.seal_into(self.buffer, record.offset, data, ad=ad, number=number, key=key)
        with memoryview(self.buffer) as whole, whole[record.offset : record.offset + record.length] as sealed:
            size = cipher.open_into(scratch, 0, sealed, ad=ad, number=number, key=key)
        if size != len(data) or not scratch.startswith(data):  # one memcmp, 35 µs a MiB
            raise IntegrityError("a record did not read back as it was written; run again on sound memory")

    def good_end(self) -> bool:
        """Say whether this is a good place to close: nearly full, and padding would cost little."""
        total = self._total(0, 0)
        return total >= CLOSE_FROM * len(self.buffer) and padme(total) - total <= CLOSE_WASTE * total

    def finish(self, pad: bytes) -> PackContents:
        """Write pad, directory and trailer; the object is then ``buffer[:contents.size]``.

        ``pad`` is at least `pad_size` random bytes, so that its place can not be told from a
        record's. Every reserved record must be sealed.
        """
        payload = encode_payload(c.DIRECTORY_VERSION, _Directory(encode_rows(self._records)))
        body = c.ENVELOPE_LENGTH.pack(len(payload)) + payload
        body += bytes(padme(len(body)) - len(body))
        sealed_length = len(body) + self._cipher.tag_size
        total = self._used + sealed_length + c.PACK_TRAILER_SIZE
        size = min(padme(total), len(self.buffer))
        at = size - c.PACK_TRAILER_SIZE - sealed_length
        self.buffer[self._used : at] = pad[: at - self._used]
        ad = record_ad(self.kind, self._repo_id, c.DIRECTORY_NUMBER, c.CODEC_RAW, len(body), None)
        self._cipher.seal_into(self.buffer, at, body, ad=ad, number=c.DIRECTORY_NUMBER, key=self._key)
        hash_at = size - c.PACK_TRAILER_SIZE + c.PACK_HASH_OFFSET
        self.buffer[size - c.PACK_TRAILER_SIZE : hash_at] = c.PACK_TRAILER.pack(
            sealed_length, bytes(12), bytes(c.HASH_SIZE)
        )[: c.PACK_HASH_OFFSET]
        with memoryview(self.buffer) as whole, whole[:hash_at] as before:
            self.buffer[hash_at:size] = plain_hash(before)
        return PackContents(self.name, self.kind, self._epoch, size, self._salt, tuple(self._records))

    def pad_size(self) -> int:
        """Return an upper bound of the random bytes that `finish` needs."""
        total = self._total(0, 0)
        return max(0, min(padme(total), len(self.buffer)) - self._used)


def _entry_bytes(members: int) -> int:
    """Upper bound of a directory entry's encoding."""
    return 64 + members * c.MEMBER_SIZE


def read_header(name: PackId, data: Data) -> PackHeader:
    """Parse a pack's first bytes; raises `ObjectDamaged` or, for a newer version, `FormatError`."""
    if len(data) < c.PACK_HEADER_SIZE:
        raise ObjectDamaged(f"pack {short(name)} is cut off in its header; run `dstore verify --data`")
    magic, version, kind, cipher, epoch, salt, commitment, wrap, _ = c.PACK_HEADER.unpack_from(data)
    if magic != c.PACK_MAGIC:
        raise ObjectDamaged(f"pack {short(name)} does not begin as a pack; run `dstore verify --data`")
    if version != c.PACK_VERSION or wrap != c.WRAP_EPOCH_KEY:
        raise FormatError(
            f"pack {short(name)} has version {version}, key wrap {wrap}: use a newer dstore to read it"
        )
    try:
        return PackHeader(ChunkKind(kind), cipher, epoch, salt, commitment)
    except ValueError as error:
        raise ObjectDamaged(f"pack {short(name)} is of unknown kind {kind}; run `dstore verify`") from error


def open_header(name: PackId, data: Data, keys: EpochKeys, repo_id: bytes) -> tuple[PackHeader, bytes]:
    """Parse the header and derive the pack's key; the commitment must match.

    Raises `ObjectDamaged` when this is not the pack that was stored under that name here.
    """
    header = read_header(name, data)
    key = pack_key(keys, header.kind, repo_id, name, header.salt)
    if header.epoch != keys.number or keyed_hash(key, c.LABEL_COMMITMENT) != header.commitment:
        raise ObjectDamaged(
            f"pack {short(name)} was not written under that name in this repository; "
            "run `dstore verify --data`"
        )
    return header, key


def read_trailer(name: PackId, data: Data, size: int) -> tuple[int, bytes]:
    """Parse the last `constants.PACK_TRAILER_SIZE` bytes: sealed directory's length, hash of the rest."""
    try:
        length, _, digest = c.PACK_TRAILER.unpack(data)
    except struct.error as error:
        raise ObjectDamaged(f"pack {short(name)} is cut off in its trailer") from error
    if not c.ENVELOPE_LENGTH_SIZE <= length <= size - c.PACK_HEADER_SIZE - c.PACK_TRAILER_SIZE:
        raise ObjectDamaged(f"pack {short(name)} is cut off, or its trailer is damaged; run `dstore verify`")
    return length, digest


def read_directory(
    name: PackId, size: int, header: PackHeader, key: bytes, repo_id: bytes, sealed: Data
) -> PackContents:
    """Open a pack's directory: what lies where in it, checked for sense."""
    cipher = get_cipher(header.cipher)
    length = len(sealed) - cipher.tag_size
    ad = record_ad(header.kind, repo_id, c.DIRECTORY_NUMBER, c.CODEC_RAW, max(length, 0), None)
    try:
        body = cipher.open(sealed, ad=ad, number=c.DIRECTORY_NUMBER, key=key)
        (stated,) = c.ENVELOPE_LENGTH.unpack_from(body)
    except (IntegrityError, struct.error) as error:
        raise ObjectDamaged(
            f"the directory of pack {short(name)} does not open; run `dstore verify --data`"
        ) from error
    payload = memoryview(body)[c.ENVELOPE_LENGTH_SIZE : c.ENVELOPE_LENGTH_SIZE + stated]
    rows = decode_payload(_DECODER, c.DIRECTORY_VERSION, payload, "pack directory").rows
    limit = size - c.PACK_TRAILER_SIZE - len(sealed)
    return PackContents(name, header.kind, header.epoch, size, header.salt, decode_rows(name, rows, limit))
