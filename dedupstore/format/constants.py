"""Every magic, version, size, limit and label of the on-disk format, version 1.

``FORMAT.md`` beside this file explains each by its name; a test compares the two. A number here is
never changed: a change is a new version number, and the old number stays readable.

All integers in byte layouts are unsigned and little-endian.
"""

import struct
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * 1024
GIB: Final = 1024 * 1024 * 1024

# ---- names, keys and ids ------------------------------------------------------------------------
REPO_ID_SIZE: Final = 16
SLOT_ID_SIZE: Final = 16
KEY_SIZE: Final = 32
HASH_SIZE: Final = 32
SALT_SIZE: Final = 32
COMMITMENT_SIZE: Final = 32
CHUNKER_KEY_SIZE: Final = 16

CONTEXT_ID_DATA: Final = "dedupstore 2026-11 v1 chunk id data"
CONTEXT_ID_TREE: Final = "dedupstore 2026-11 v1 chunk id tree"
CONTEXT_CHUNKER: Final = "dedupstore 2026-11 v1 chunker"
CONTEXT_DATA: Final = "dedupstore 2026-11 v1 pack data"
CONTEXT_TREE: Final = "dedupstore 2026-11 v1 pack tree"
CONTEXT_META: Final = "dedupstore 2026-11 v1 meta objects"
CONTEXT_NAMES: Final = "dedupstore 2026-11 v1 tree page boundaries"
CONTEXT_PAD: Final = "dedupstore 2026-11 v1 padding"
CONTEXT_CONFIG: Final = "dedupstore 2026-11 v1 config"
CONTEXT_KEY_FILE: Final = "dedupstore 2026-11 v1 key file wrapping"

LABEL_PACK_KEY: Final = b"dstore pack v1"
LABEL_OBJECT_KEY: Final = b"dstore object v1"
LABEL_SLOT_KEY: Final = b"dstore slot v1"
LABEL_COMMITMENT: Final = b"dstore commitment v1"

# ---- ciphers and codecs -------------------------------------------------------------------------
CIPHER_AEGIS256: Final = 1
AEGIS256_NONCE_SIZE: Final = 32
AEGIS256_TAG_SIZE: Final = 32
CIPHER_XCHACHA20: Final = 2
XCHACHA20_NONCE_SIZE: Final = 24
XCHACHA20_TAG_SIZE: Final = 16

CODEC_RAW: Final = 0
CODEC_LZ4: Final = 1
CODEC_ZSTD: Final = 2

# ---- packs --------------------------------------------------------------------------------------
PACK_MAGIC: Final = b"dstpack\x01"
PACK_VERSION: Final = 1
PACK_HEADER: Final = struct.Struct("<8sHBBI32s32sB79s")
"""magic, version, kind, cipher, epoch, salt, commitment, wrap, reserved (zero)."""
PACK_HEADER_SIZE: Final = 160
PACK_RESERVED_SIZE: Final = 79
WRAP_EPOCH_KEY: Final = 0
"""The pack key comes from the epoch's data or tree key."""
WRAP_PUBLIC_KEY: Final = 1
"""Reserved: the pack key is sealed to the epoch's public key (write-only clients)."""
RECORD_AD: Final = struct.Struct("<HB16sIBI32s")
"""PACK_VERSION, kind, repository id, record number, codec, plain length, base id or zeros."""
RECORD_AD_SIZE: Final = 60
NO_BASE: Final = bytes(32)
DIRECTORY_NUMBER: Final = 0xFFFFFFFF
"""Record number (so the nonce) of a pack's directory; its codec is CODEC_RAW, its base NO_BASE."""
DIRECTORY_VERSION: Final = 1
PACK_TRAILER: Final = struct.Struct("<I12s32s")
"""Sealed directory's length, reserved (zero), BLAKE3-256 of everything before this hash."""
PACK_TRAILER_SIZE: Final = 48
PACK_HASH_OFFSET: Final = 16
"""Where the hash starts inside the trailer; it covers the trailer's bytes before it too."""
RECORDS_MAX: Final = 0x00FFFFFF
"""Most records in one pack."""
MEMBER: Final = struct.Struct("<32sI")
"""One chunk of a record as directories and segments list it: id, plaintext size."""
MEMBER_SIZE: Final = 36
RECORD_PLAIN_MAX: Final = 32 * MIB
"""Most plaintext bytes in a record; nothing larger is ever expanded."""
PACK_SIZE_MIN: Final = 1 * MIB
PACK_SIZE_MAX: Final = 1 * GIB
"""Bounds of what ``config`` may ask for; a pack's stored size fits 32 bits."""

# ---- sealed small objects -----------------------------------------------------------------------
ENVELOPE_MAGIC: Final = b"dsto"
ENVELOPE_VERSION: Final = 1
ENVELOPE_HEADER: Final = struct.Struct("<4sHBBI32s32s")
"""magic, version, kind, cipher, epoch, salt, commitment."""
ENVELOPE_HEADER_SIZE: Final = 76
ENVELOPE_LENGTH: Final = struct.Struct("<I")
"""Payload length, first in the sealed body."""
ENVELOPE_LENGTH_SIZE: Final = 4
ENVELOPE_PAYLOAD_MAX: Final = 512 * MIB
OBJECT_CONFIG: Final = 1
OBJECT_SEGMENT: Final = 2
OBJECT_SNAPSHOT: Final = 3
OBJECT_SESSION: Final = 4
OBJECT_GC_GENERATION: Final = 5
OBJECT_GC_CONDEMNED: Final = 6
OBJECT_GC_VERDICT: Final = 7
OBJECT_TRASH: Final = 8

# ---- key slots and key files --------------------------------------------------------------------
SLOT_MAGIC: Final = b"dstslot\x01"
SLOT_VERSION: Final = 1
SLOT_HEADER: Final = struct.Struct("<8sHBB16sI")
"""magic, version, kind, cipher, repository id, length of the clear part."""
SLOT_HEADER_SIZE: Final = 32
SLOT_SALT_SIZE: Final = 16
SLOT_CLEAR_MAX: Final = 64 * KIB
SLOT_LABEL_MAX: Final = 1024
SLOT_PASSPHRASE: Final = 1
SLOT_KEY_FILE: Final = 2
SLOT_RECIPIENT: Final = 3
"""Reserved: the root key sealed to an X25519 public key."""
ARGON2_MEMORY: Final = 256 * MIB
ARGON2_PASSES: Final = 3
ARGON2_MEMORY_MIN: Final = 64 * MIB
ARGON2_PASSES_MIN: Final = 3
ARGON2_MEMORY_MAX: Final = 4 * GIB
"""A larger one in a slot is refused unread: a hostile slot must not eat the machine."""
ARGON2_PASSES_MAX: Final = 64
KEY_FILE_PREFIX: Final = "dstore-key"
KEY_FILE_VERSION: Final = "v1"

# ---- config -------------------------------------------------------------------------------------
CONFIG_MAGIC: Final = b"dstconf\x01"
CONFIG_VERSION: Final = 1
CONFIG_HEADER: Final = struct.Struct("<8sHBB16sI")
"""magic, version, cipher, reserved (zero), repository id, length of the feature list."""
CONFIG_HEADER_SIZE: Final = 32
CONFIG_FEATURES_MAX: Final = 4096
CHUNK_SIZE_MIN: Final = 53
"""One more than the bytes that a cut depends on."""
CHUNK_SIZE_MAX: Final = 16 * MIB
RECORD_SIZE: Final = 1 * MIB
SMALL_FILE: Final = 128 * KIB
EPOCHS_MAX: Final = 4096

# ---- tree pages and chunk lists -----------------------------------------------------------------
PAGE_VERSION: Final = 1
PAGE_PREFIX: Final = struct.Struct("<BB")
"""version, level; msgpack follows."""
PAGE_PREFIX_SIZE: Final = 2
PAGE_LEVEL_MAX: Final = 16
PAGE_MIN_ENTRIES: Final = 128
PAGE_MAX_ENTRIES: Final = 4096
PAGE_THRESHOLD: Final = 6710886
"""2**32 / 640: one name in 640 ends a page."""
PAGE_MAX_BYTES: Final = 4 * MIB
"""A page also ends when its entries have grown to this many encoded bytes."""
LIST_VERSION: Final = 1
LIST_LABELLED: Final = 2
"""Version of a list page with labels."""
LIST_LABEL_MAX: Final = 255
"""Longest label, bytes; the shortest has one."""
LIST_INLINE_MAX: Final = 64
LIST_MIN_ENTRIES: Final = 64
LIST_MAX_ENTRIES: Final = 4096
LIST_THRESHOLD: Final = 4473924
"""2**32 / 960: one chunk id in 960 ends a list page, after the first 64."""
LIST_DEPTH_MAX: Final = 8
LIST_ENTRY: Final = struct.Struct("<32sI")
"""Content entry: chunk id, plaintext length."""
LIST_ENTRY_SIZE: Final = 36
LIST_REF: Final = struct.Struct("<32sQ")
"""Entry of a list page above level 0: list page id, bytes of content under it."""
LIST_REF_SIZE: Final = 40
LIST_HEADER: Final = struct.Struct("<4sBB2xI")
"""magic, version, level, 2 zero bytes, number of entries."""
LIST_HEADER_SIZE: Final = 12
LIST_MAGIC: Final = b"dstl"
HOLE_MAX: Final = 1 * GIB
"""Longest hole of one entry; a longer one takes several."""

# ---- other payloads -----------------------------------------------------------------------------
PAYLOAD_PREFIX_SIZE: Final = 1
"""The payload of a sealed object is its version (u8), then msgpack."""
CONFIG_PAYLOAD_VERSION: Final = 1
SEGMENT_VERSION: Final = 1
SNAPSHOT_VERSION: Final = 1
SESSION_VERSION: Final = 1
COLLECTION_VERSION: Final = 1
