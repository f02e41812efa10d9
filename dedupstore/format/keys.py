"""Keys: the root key, the slots that wrap it, and what is derived from an epoch's secret.

The root key is 32 random bytes and never stored in clear. Each object in ``keys/`` is a slot: the
root key sealed under a wrapping key that comes from a passphrase (Argon2id) or from a key file. The
root key opens ``config``; the epoch secrets in there give every other key.

A slot ends in a plain hash of itself, so damage is told apart from a wrong secret. Passphrases are
bytes as given: no normalisation, no trimming. Values that hold keys show none of them in ``repr``.
"""

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import msgspec
from nacl.bindings import crypto_pwhash_alg, crypto_pwhash_ALG_ARGON2ID13
from nacl.exceptions import CryptoError

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import FormatError, IntegrityError, ObjectDamaged, UsageError
from dedupstore.format import constants as c
from dedupstore.format.crypto import derive, get_cipher, keyed_hash, plain_hash
from dedupstore.format.payload import from_micros, to_micros


@dataclass(frozen=True, slots=True)
class EpochKeys:
    """The keys of one epoch, 32 bytes each (``chunker``: 16)."""

    number: int
    id_data: bytes = field(repr=False)
    id_tree: bytes = field(repr=False)
    chunker: bytes = field(repr=False)
    data: bytes = field(repr=False)
    """Keys of data packs."""
    tree: bytes = field(repr=False)
    """Keys of tree packs."""
    meta: bytes = field(repr=False)
    """Keys of index segments, snapshots, sessions and collector objects."""
    names: bytes = field(repr=False)
    """Where a tree page ends."""
    pad: bytes = field(repr=False)


def derive_epoch(number: int, secret: bytes) -> EpochKeys:
    """Return the keys of the epoch with that number and 32-byte secret."""
    return EpochKeys(
        number=number,
        id_data=derive(c.CONTEXT_ID_DATA, secret),
        id_tree=derive(c.CONTEXT_ID_TREE, secret),
        chunker=derive(c.CONTEXT_CHUNKER, secret)[: c.CHUNKER_KEY_SIZE],
        data=derive(c.CONTEXT_DATA, secret),
        tree=derive(c.CONTEXT_TREE, secret),
        meta=derive(c.CONTEXT_META, secret),
        names=derive(c.CONTEXT_NAMES, secret),
        pad=derive(c.CONTEXT_PAD, secret),
    )


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Something a person knows; strengthened with Argon2id."""

    text: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """32 random bytes from a file; strong as they are."""

    key: bytes = field(repr=False)
    repo_id: bytes | None = None
    """The repository that the file says it belongs to."""


Secret: TypeAlias = Passphrase | KeyFile


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What one guess at a passphrase costs: ``memory`` in bytes, ``passes`` over it."""

    memory: int = c.ARGON2_MEMORY
    passes: int = c.ARGON2_PASSES

    def within_bounds(self) -> bool:
        """Tell whether the cost is neither too weak nor a trap."""
        return (
            c.ARGON2_MEMORY_MIN <= self.memory <= c.ARGON2_MEMORY_MAX
            and self.memory % c.KIB == 0
            and c.ARGON2_PASSES_MIN <= self.passes <= c.ARGON2_PASSES_MAX
        )


DEFAULT_COST = Argon2Cost()


@dataclass(frozen=True, slots=True)
class KeySlot:
    """One wrapped copy of the root key, as decoded; nothing in it is secret."""

    kind: int
    cipher: int
    repo_id: bytes
    label: str
    created: datetime
    salt: bytes
    cost: Argon2Cost | None
    """Only of passphrase slots."""
    commitment: bytes
    sealed: bytes
    bound: bytes = field(repr=False)
    """The slot's bytes before ``sealed``: what the seal is bound to."""


class _SlotClear(msgspec.Struct, frozen=True, array_like=True):
    label: str
    created: int
    salt: bytes
    memory: int = 0
    passes: int = 0


_ENCODER = msgspec.msgpack.Encoder()
_CLEAR_DECODER = msgspec.msgpack.Decoder(_SlotClear)


def encode_slot(
    root_key: bytes,
    secret: Secret,
    *,
    repo_id: bytes,
    cipher: int,
    label: str,
    created: datetime,
    cost: Argon2Cost = DEFAULT_COST,
    salt: bytes | None = None,
) -> bytes:
    """Wrap the root key; return the bytes of a slot object.

    ``cost`` counts for passphrases only. ``salt`` (16 bytes) is random unless given. Takes about a
    second and ``cost.memory`` bytes for a passphrase. Raises `UsageError` for a cost out of bounds, a
    key file of another repository, or a label too long.
    """
    salt = SYSTEM_CLOCK.random(c.SLOT_SALT_SIZE) if salt is None else salt
    if len(label.encode()) > c.SLOT_LABEL_MAX:
        raise UsageError(f"a key's label may be {c.SLOT_LABEL_MAX} bytes long: choose a shorter one")
    if isinstance(secret, Passphrase):
        if not cost.within_bounds():
            raise UsageError(
                f"Argon2id with {cost.memory} bytes and {cost.passes} passes is out of bounds: "
                f"take at least {c.ARGON2_MEMORY_MIN} bytes and {c.ARGON2_PASSES_MIN} passes"
            )
        kind = c.SLOT_PASSPHRASE
        clear = _SlotClear(label, to_micros(created), salt, cost.memory, cost.passes)
    else:
        kind = c.SLOT_KEY_FILE
        clear = _SlotClear(label, to_micros(created), salt)
    packed = _ENCODER.encode(clear)
    header = c.SLOT_HEADER.pack(c.SLOT_MAGIC, c.SLOT_VERSION, kind, cipher, repo_id, len(packed))
    key = _slot_key(secret, repo_id, salt, cost)
    bound = header + packed + keyed_hash(key, c.LABEL_COMMITMENT)
    body = bound + get_cipher(cipher).seal(root_key, ad=bound, number=0, key=key)
    return body + plain_hash(body)


def decode_slot(data: bytes) -> KeySlot:
    """Read a slot object; no secret is needed.

    Raises `FormatError` for a later version or kind, `ObjectDamaged` for anything else wrong.
    """
    if len(data) < c.SLOT_HEADER_SIZE or data[: len(c.SLOT_MAGIC)] != c.SLOT_MAGIC:
        raise _damaged("does not begin as one")
    _, version, kind, cipher, repo_id, clear_length = c.SLOT_HEADER.unpack_from(data)
    if version != c.SLOT_VERSION:
        raise FormatError(f"key slot version {version} is unknown: a newer dstore is needed")
    if data[-c.HASH_SIZE :] != plain_hash(memoryview(data)[: -c.HASH_SIZE]):
        raise _damaged("does not have the hash that it states")
    if kind not in {c.SLOT_PASSPHRASE, c.SLOT_KEY_FILE}:
        raise FormatError(f"key slot kind {kind} is unknown: a newer dstore is needed")
    tag_size = get_cipher(cipher).tag_size
    clear_end = c.SLOT_HEADER_SIZE + clear_length
    bound_end = clear_end + c.COMMITMENT_SIZE
    if clear_length > c.SLOT_CLEAR_MAX or len(data) != bound_end + c.KEY_SIZE + tag_size + c.HASH_SIZE:
        raise _damaged("has a wrong length")
    clear = _decode_clear(data[c.SLOT_HEADER_SIZE : clear_end])
    cost = Argon2Cost(clear.memory, clear.passes) if kind == c.SLOT_PASSPHRASE else None
    if len(clear.salt) != c.SLOT_SALT_SIZE or (cost is not None and not cost.within_bounds()):
        raise _damaged("has Argon2id parameters out of bounds")
    try:
        created = from_micros(clear.created)
    except OverflowError as error:
        raise _damaged("was created at no possible time") from error
    return KeySlot(
        kind=kind,
        cipher=cipher,
        repo_id=repo_id,
        label=clear.label,
        created=created,
        salt=clear.salt,
        cost=cost,
        commitment=data[clear_end:bound_end],
        sealed=data[bound_end : -c.HASH_SIZE],
        bound=data[:bound_end],
    )


def open_slot(slot: KeySlot, secret: Secret) -> bytes | None:
    """Return the root key, or ``None`` if this slot is not for this secret.

    A passphrase costs the slot's Argon2id time and memory, unless the slot is of another kind.
    Raises `UsageError` for a key file that names another repository, `ObjectDamaged` if the secret
    is right and the rest of the slot is not.
    """
    wanted = c.SLOT_PASSPHRASE if isinstance(secret, Passphrase) else c.SLOT_KEY_FILE
    if slot.kind != wanted:
        return None
    key = _slot_key(secret, slot.repo_id, slot.salt, slot.cost or DEFAULT_COST)
    if keyed_hash(key, c.LABEL_COMMITMENT) != slot.commitment:
        return None
    try:
        return get_cipher(slot.cipher).open(slot.sealed, ad=slot.bound, number=0, key=key)
    except IntegrityError as error:
        raise _damaged("does not open though the secret is right") from error


def format_key_file(secret: KeyFile, repo_id: bytes) -> str:
    """Return the one line that `parse_key_file` reads, newline included."""
    text = base64.b64encode(secret.key).decode()
    return f"{c.KEY_FILE_PREFIX} {c.KEY_FILE_VERSION} {repo_id.hex()} {text}\n"


def parse_key_file(text: str, repo_id: bytes | None = None) -> KeyFile:
    """Read the text of a key file; with ``repo_id``, insist that it is that repository's.

    Raises `UsageError` that says what is wrong; the key is never part of it.
    """
    words = text.split()
    if len(words) != 4 or words[0] != c.KEY_FILE_PREFIX:
        raise UsageError(
            f"this is not a key file: it should be one line '{c.KEY_FILE_PREFIX} {c.KEY_FILE_VERSION} "
            "<repository id> <key>'"
        )
    if words[1] != c.KEY_FILE_VERSION:
        raise UsageError(f"key file version {words[1]!r} is unknown: a newer dstore is needed")
    try:
        found = bytes.fromhex(words[2])
        key = base64.b64decode(words[3].encode(), validate=True)
    except (ValueError, binascii.Error):
        raise UsageError("the key file's line is garbled: take another copy of it") from None
    if len(found) != c.REPO_ID_SIZE or len(key) != c.KEY_SIZE:
        raise UsageError("the key file's line is cut short or too long: take another copy of it")
    secret = KeyFile(key, found)
    if repo_id is not None:
        _check_repository(secret, repo_id)
    return secret


def _check_repository(secret: KeyFile, repo_id: bytes) -> None:
    if secret.repo_id is not None and secret.repo_id != repo_id:
        raise UsageError(
            f"the key file is for repository {secret.repo_id.hex()}, not for {repo_id.hex()}: "
            "name the key file of this repository"
        )


def _slot_key(secret: Secret, repo_id: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    if isinstance(secret, Passphrase):
        wrapping = _stretch(secret.text, salt, cost)
    else:
        if len(secret.key) != c.KEY_SIZE:
            raise UsageError(f"a key file holds {c.KEY_SIZE} bytes, not {len(secret.key)}")
        _check_repository(secret, repo_id)
        wrapping = derive(c.CONTEXT_KEY_FILE, secret.key)
    return keyed_hash(wrapping, c.LABEL_SLOT_KEY + salt + repo_id)


def _stretch(text: bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    try:
        return crypto_pwhash_alg(
            c.KEY_SIZE, text, salt, cost.passes, cost.memory, crypto_pwhash_ALG_ARGON2ID13
        )
    except (CryptoError, MemoryError) as error:
        raise UsageError(
            f"Argon2id could not get its {cost.memory // c.MIB} MiB of memory: "
            "free some, or use a key file on this machine"
        ) from error


def _decode_clear(data: bytes) -> _SlotClear:
    try:
        return _CLEAR_DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _damaged("has a garbled clear part") from error


def _damaged(how: str) -> ObjectDamaged:
    return ObjectDamaged(f"the key slot {how}: restore it from a copy, or open with another key")
