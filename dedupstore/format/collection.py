"""Objects of garbage collection that a writer must heed: the generation, and lists of packs.

``gc/gen`` counts collections. For generation *n*, the object named by `condemned_name` lists packs that
no new snapshot may rely on, and the one named by `verdict_name` those that are deleted. A repository
without ``gc/gen`` is in generation 0. See ``FORMAT.md``, section *Collection*.
"""

import msgspec

from dedupstore.errors import ObjectDamaged
from dedupstore.format import constants as c
from dedupstore.format.payload import decode_payload, encode_payload
from dedupstore.ids import ID_SIZE, PackId
from dedupstore.model import Data

GENERATION_NAME = "gen"


class _Generation(msgspec.Struct, frozen=True, array_like=True):
    number: int


class _Packs(msgspec.Struct, frozen=True, array_like=True):
    names: list[bytes]


_GENERATION_DECODER = msgspec.msgpack.Decoder(_Generation)
_PACKS_DECODER = msgspec.msgpack.Decoder(_Packs)


def condemned_name(generation: int) -> str:
    """Return the object name of the packs condemned in a generation."""
    return f"{generation:016x}00"


def verdict_name(generation: int) -> str:
    """Return the object name of the packs that a generation deletes."""
    return f"{generation:016x}01"


def encode_generation(generation: int) -> bytes:
    """Return the payload of ``gc/gen``."""
    return encode_payload(c.COLLECTION_VERSION, _Generation(generation))


def decode_generation(payload: Data) -> int:
    """Read the payload of ``gc/gen``; raises `ObjectDamaged` or `FormatError`."""
    number = decode_payload(_GENERATION_DECODER, c.COLLECTION_VERSION, payload, "collector generation").number
    if number < 0:
        raise ObjectDamaged("gc/gen holds a negative generation; run `dstore verify`")
    return number


def encode_packs(packs: list[PackId]) -> bytes:
    """Return the payload of a condemned list or a verdict."""
    return encode_payload(c.COLLECTION_VERSION, _Packs([bytes(pack) for pack in sorted(packs)]))


def decode_packs(payload: Data) -> list[PackId]:
    """Read a condemned list or a verdict; raises `ObjectDamaged` or `FormatError`."""
    names = decode_payload(_PACKS_DECODER, c.COLLECTION_VERSION, payload, "list of condemned packs").names
    if any(len(name) != ID_SIZE for name in names):
        raise ObjectDamaged("a list of condemned packs holds what is no pack; run `dstore verify`")
    return [PackId(name) for name in names]
