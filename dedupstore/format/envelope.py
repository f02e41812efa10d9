"""The envelope: how small objects (index segments, snapshots, sessions, ...) are sealed.

Each object has a random salt and from it a key of its own, bound to the kind of object, the
repository and the object's name; so no object can stand in for another. The header also holds a
commitment to that key, because not every AEAD binds its key by itself. The payload is padded to a
PADMÉ size. Pure functions; memory is a few times the payload.
"""

from dataclasses import dataclass

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import FormatError, IntegrityError, ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.crypto import Cipher, get_cipher, keyed_hash
from dedupstore.format.padding import padme
from dedupstore.model import Data

_NAMES = {
    c.OBJECT_CONFIG: "configuration",
    c.OBJECT_SEGMENT: "index segment",
    c.OBJECT_SNAPSHOT: "snapshot",
    c.OBJECT_SESSION: "session",
    c.OBJECT_GC_GENERATION: "collector generation",
    c.OBJECT_GC_CONDEMNED: "condemned list",
    c.OBJECT_GC_VERDICT: "verdict",
    c.OBJECT_TRASH: "trash entry",
}


@dataclass(frozen=True, slots=True)
class EnvelopeHeader:
    """The clear part of a sealed object; not to be believed before `open_object` succeeds."""

    kind: int
    cipher: int
    epoch: int
    salt: bytes
    commitment: bytes


def seal_object(
    kind: int,
    payload: Data,
    *,
    cipher: Cipher,
    epoch: int,
    key: bytes,
    repo_id: bytes,
    name: bytes = b"",
    salt: bytes | None = None,
) -> bytes:
    """Return the stored bytes of an object.

    ``kind`` is one of the ``OBJECT_*`` numbers, ``key`` the epoch's meta key (or what stands for it),
    ``name`` what the object is bound to (empty if its name comes from its bytes). ``salt`` (32 bytes)
    is random unless given; giving one twice under the same key would give two messages one nonce.
    Raises `ValueError` for a payload over `ENVELOPE_PAYLOAD_MAX`.
    """
    if len(payload) > c.ENVELOPE_PAYLOAD_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes does not fit in one object")
    salt = SYSTEM_CLOCK.random(c.SALT_SIZE) if salt is None else salt
    object_key = _object_key(key, kind, salt, repo_id, name)
    header = c.ENVELOPE_HEADER.pack(
        c.ENVELOPE_MAGIC,
        c.ENVELOPE_VERSION,
        kind,
        cipher.number,
        epoch,
        salt,
        keyed_hash(object_key, c.LABEL_COMMITMENT),
    )
    body = bytearray(padme(c.ENVELOPE_LENGTH_SIZE + len(payload)))
    c.ENVELOPE_LENGTH.pack_into(body, 0, len(payload))
    body[c.ENVELOPE_LENGTH_SIZE : c.ENVELOPE_LENGTH_SIZE + len(payload)] = payload
    out = bytearray(c.ENVELOPE_HEADER_SIZE + len(body) + cipher.tag_size)
    out[: c.ENVELOPE_HEADER_SIZE] = header
    cipher.seal_into(out, c.ENVELOPE_HEADER_SIZE, body, ad=header + repo_id + name, number=0, key=object_key)
    return bytes(out)


def read_envelope_header(data: Data) -> EnvelopeHeader:
    """Read the clear part, to learn which epoch's key opens the rest.

    Raises `FormatError` for a later version or cipher, `ObjectDamaged` for anything else.
    """
    if len(data) < c.ENVELOPE_HEADER_SIZE or bytes(data[: len(c.ENVELOPE_MAGIC)]) != c.ENVELOPE_MAGIC:
        raise ObjectDamaged("the bytes are not a sealed object: run a verify of the repository")
    _, version, kind, cipher, epoch, salt, commitment = c.ENVELOPE_HEADER.unpack_from(data)
    if version != c.ENVELOPE_VERSION:
        raise FormatError(f"sealed object version {version} is unknown: a newer dstore is needed")
    get_cipher(cipher)
    return EnvelopeHeader(kind, cipher, epoch, salt, commitment)


def open_object(kind: int, data: Data, *, key: bytes, repo_id: bytes, name: bytes = b"") -> bytes:
    """Return the payload of an object that `seal_object` made with the same arguments.

    Raises `FormatError` for a later version, `ObjectDamaged` if the bytes were altered, or belong to
    another kind, key, repository or name.
    """
    header = read_envelope_header(data)
    wanted = _NAMES.get(kind, f"kind {kind}")
    if header.kind != kind:
        found = _NAMES.get(header.kind, f"object of kind {header.kind}")
        raise ObjectDamaged(f"a {found} lies where a {wanted} should be: run a verify of the repository")
    object_key = _object_key(key, kind, header.salt, repo_id, name)
    if keyed_hash(object_key, c.LABEL_COMMITMENT) != header.commitment:
        raise _not_ours(wanted)
    view = memoryview(data)
    bound = bytes(view[: c.ENVELOPE_HEADER_SIZE]) + repo_id + name
    try:
        body = get_cipher(header.cipher).open(
            view[c.ENVELOPE_HEADER_SIZE :], ad=bound, number=0, key=object_key
        )
    except IntegrityError as error:
        raise _not_ours(wanted) from error
    if len(body) < c.ENVELOPE_LENGTH_SIZE:
        raise ObjectDamaged(f"the {wanted} states no length: run a verify of the repository")
    (length,) = c.ENVELOPE_LENGTH.unpack_from(body)
    if c.ENVELOPE_LENGTH_SIZE + length > len(body):
        raise ObjectDamaged(f"the {wanted} states a wrong length: run a verify of the repository")
    return body[c.ENVELOPE_LENGTH_SIZE : c.ENVELOPE_LENGTH_SIZE + length]


def _object_key(key: bytes, kind: int, salt: bytes, repo_id: bytes, name: bytes) -> bytes:
    # Everything before the name has a fixed length, so no two inputs give the same bytes.
    return keyed_hash(key, c.LABEL_OBJECT_KEY + salt + bytes([kind]) + repo_id + name)


def _not_ours(wanted: str) -> ObjectDamaged:
    # Without the configuration there is nothing that a verify could do.
    step = "restore it from a copy" if wanted == _NAMES[c.OBJECT_CONFIG] else "run a verify of the repository"
    return ObjectDamaged(
        f"the {wanted} does not open: it was altered, or belongs to another repository, name or key; {step}"
    )
