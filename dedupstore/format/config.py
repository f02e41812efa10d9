"""The ``config`` object: what a repository is, in a part anyone can read and a part that is sealed.

The clear part says which program and which key slots can read the rest: version, cipher, repository
id, and the features a reader must understand. The sealed part is an envelope under the root key,
bound to the hash of the clear part, so neither can be exchanged alone. It holds the parameters
that all writers must share and the secrets of all epochs.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from dedupstore.errors import FormatError, ObjectDamaged, UsageError
from dedupstore.format import constants as c
from dedupstore.format.crypto import derive, get_cipher, plain_hash
from dedupstore.format.envelope import open_object, seal_object
from dedupstore.format.payload import decode_payload, encode_payload, from_micros, to_micros
from dedupstore.model import Data

KNOWN_FEATURES: frozenset[str] = frozenset()
"""Features this program understands; version 1 needs none."""


class Epoch(NamedTuple):
    """A generation of keys. The one with the greatest number is for new writes."""

    number: int
    secret: bytes

    def __repr__(self) -> str:
        """Show the number only."""
        return f"Epoch(number={self.number})"


class ChunkerConfig(NamedTuple):
    """Where chunks may end; sizes in bytes, thresholds out of 2**32."""

    min_size: int
    normal: int
    max_size: int
    strict: int
    loose: int


@dataclass(frozen=True, slots=True)
class ConfigHeader:
    """The clear part of ``config``; not to be believed before `decode_config` succeeds."""

    version: int
    repo_id: bytes
    cipher: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepoConfig:
    """Everything that all users of a repository must agree on. Sizes are bytes."""

    id: bytes
    cipher: int
    chunker: ChunkerConfig
    created: datetime
    epochs: tuple[Epoch, ...]
    """At least one, by ascending number."""
    compression: str = "zstd:1"
    """Default for new records; a run may choose another."""
    pack_size: int = 16 * c.MIB
    """What data packs start at."""
    pack_size_max: int = 32 * c.MIB
    """What they grow to with the repository."""
    record_size: int = c.RECORD_SIZE
    """Most plaintext that consecutive chunks share a record up to."""
    small_file: int = c.SMALL_FILE
    """Files below this are one chunk each, and share records."""
    features: tuple[str, ...] = ()
    version: int = field(default=c.CONFIG_VERSION)


class _Epoch(msgspec.Struct, frozen=True, array_like=True):
    """As stored: fields for wrapped data keys can be appended, a tuple would refuse them."""

    number: int
    secret: bytes


class _Sealed(msgspec.Struct, frozen=True, array_like=True):
    chunker: ChunkerConfig
    compression: str
    pack_size: int
    pack_size_max: int
    record_size: int
    small_file: int
    created: int
    epochs: list[_Epoch]


_FEATURES_ENCODER = msgspec.msgpack.Encoder()
_FEATURES_DECODER = msgspec.msgpack.Decoder(tuple[str, ...])
_SEALED_DECODER = msgspec.msgpack.Decoder(_Sealed)


def encode_config(config: RepoConfig, root_key: bytes, *, salt: bytes | None = None) -> bytes:
    """Return the bytes of the ``config`` object.

    ``salt`` (32 bytes) is random unless given. Raises `UsageError` for values out of range,
    `FormatError` for a cipher, version or feature this program does not know.
    """
    if config.version != c.CONFIG_VERSION:
        raise FormatError(f"repository version {config.version} is unknown: a newer dstore is needed")
    _check_features(config.features)
    wrong = _wrong(config)
    if wrong is not None:
        raise UsageError(f"a repository can not have {wrong}: choose another value")
    features = _FEATURES_ENCODER.encode(config.features)
    clear = (
        c.CONFIG_HEADER.pack(c.CONFIG_MAGIC, config.version, config.cipher, 0, config.id, len(features))
        + features
    )
    sealed = _Sealed(
        chunker=config.chunker,
        compression=config.compression,
        pack_size=config.pack_size,
        pack_size_max=config.pack_size_max,
        record_size=config.record_size,
        small_file=config.small_file,
        created=to_micros(config.created),
        epochs=[_Epoch(epoch.number, epoch.secret) for epoch in config.epochs],
    )
    return clear + seal_object(
        c.OBJECT_CONFIG,
        encode_payload(c.CONFIG_PAYLOAD_VERSION, sealed),
        cipher=get_cipher(config.cipher),
        epoch=0,
        key=derive(c.CONTEXT_CONFIG, root_key),
        repo_id=config.id,
        name=plain_hash(clear),
        salt=salt,
    )


def read_config_header(data: Data) -> ConfigHeader:
    """Read the clear part; no key is needed.

    Raises `FormatError` naming a later version, an unknown cipher or an unknown feature,
    `ObjectDamaged` for anything else wrong.
    """
    header, _ = _split(data)
    return header


def decode_config(data: Data, root_key: bytes) -> RepoConfig:
    """Open the whole object; raises as `read_config_header` does, and `ObjectDamaged` if altered."""
    header, clear_size = _split(data)
    view = memoryview(data)
    payload = open_object(
        c.OBJECT_CONFIG,
        view[clear_size:],
        key=derive(c.CONTEXT_CONFIG, root_key),
        repo_id=header.repo_id,
        name=plain_hash(view[:clear_size]),
    )
    raw = decode_payload(_SEALED_DECODER, c.CONFIG_PAYLOAD_VERSION, payload, "repository configuration")
    try:
        created = from_micros(raw.created)
    except OverflowError as error:
        raise _damaged("was created at no possible time") from error
    config = RepoConfig(
        id=header.repo_id,
        cipher=header.cipher,
        chunker=raw.chunker,
        created=created,
        epochs=tuple([Epoch(epoch.number, epoch.secret) for epoch in raw.epochs]),
        compression=raw.compression,
        pack_size=raw.pack_size,
        pack_size_max=raw.pack_size_max,
        record_size=raw.record_size,
        small_file=raw.small_file,
        features=header.features,
        version=header.version,
    )
    wrong = _wrong(config)
    if wrong is not None:
        raise _damaged(f"has {wrong}")
    return config


def _split(data: Data) -> tuple[ConfigHeader, int]:
    """Return the checked clear part and its length in bytes."""
    view = memoryview(data)
    if len(view) < c.CONFIG_HEADER_SIZE or bytes(view[: len(c.CONFIG_MAGIC)]) != c.CONFIG_MAGIC:
        raise _damaged("does not begin as one")
    _, version, cipher, _, repo_id, length = c.CONFIG_HEADER.unpack_from(view)
    if version != c.CONFIG_VERSION:
        raise FormatError(
            f"repository version {version} is unknown: a newer dstore is needed", version=version
        )
    get_cipher(cipher)
    end = c.CONFIG_HEADER_SIZE + length
    if length > c.CONFIG_FEATURES_MAX or end > len(view):
        raise _damaged("is cut off in its clear part")
    try:
        features = _FEATURES_DECODER.decode(view[c.CONFIG_HEADER_SIZE : end])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _damaged("has a garbled list of features") from error
    _check_features(features)
    return ConfigHeader(version, repo_id, cipher, features), end


def _check_features(features: tuple[str, ...]) -> None:
    for name in features:
        if name not in KNOWN_FEATURES:
            raise FormatError(
                f"the repository needs the feature {name!r}: use a dstore that knows it", feature=name
            )


def _wrong(config: RepoConfig) -> str | None:
    """Name the first value that makes no sense."""
    chunker = config.chunker
    numbers = [epoch.number for epoch in config.epochs]
    found: str | None = None
    if len(config.id) != c.REPO_ID_SIZE:
        found = f"an id of {len(config.id)} bytes"
    elif not c.CHUNK_SIZE_MIN <= chunker.min_size <= chunker.normal <= chunker.max_size <= c.CHUNK_SIZE_MAX:
        found = f"chunk sizes {chunker.min_size}, {chunker.normal}, {chunker.max_size}"
    elif not 0 <= chunker.strict < 1 << 32 or not 0 <= chunker.loose < 1 << 32:
        found = f"chunk thresholds {chunker.strict}, {chunker.loose}"
    elif not c.PACK_SIZE_MIN <= config.pack_size <= config.pack_size_max <= c.PACK_SIZE_MAX:
        found = f"pack sizes {config.pack_size} to {config.pack_size_max}"
    elif not 0 < config.record_size <= c.RECORD_PLAIN_MAX:
        found = f"a record size of {config.record_size}"
    elif not 0 <= config.small_file <= c.CHUNK_SIZE_MAX:
        found = f"a small file size of {config.small_file}"
    elif not 0 < len(numbers) <= c.EPOCHS_MAX or numbers != sorted(set(numbers)):
        found = f"{len(numbers)} epochs in that order"
    elif any(len(e.secret) != c.KEY_SIZE or not 0 < e.number < 1 << 32 for e in config.epochs):
        found = "an epoch without a number or a secret"
    return found


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"the repository's config {how}: restore it from a copy")
