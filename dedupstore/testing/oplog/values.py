"""Random documents as applications leave them: every BSON type, awkward names, 50 bytes to 50 KB."""

import struct

from dedupstore.testing.oplog import bson
from dedupstore.testing.oplog.bson import Element, Value
from dedupstore.testing.oplog.chance import Chance

PLAIN = [
    *(b"name total status items address tags count note history city zip owner flags meta score".split()),
    *(b"a b c d e x y z s u i l p q n0 _x A Z".split()),
    "grüße".encode(),
    "名".encode(),
    b"0",
    b"1",
    b"12",
    b"u0",
    b"s1",
    b"diff",
]
"""Names that an update operator can address."""
AWKWARD = [b"", b"a.b", b".", b"x.", b" ", b"a b", b"\xe2\x80\xa6", b"0.1", b"uni.\xc3\xa9"]
DOLLAR = [b"$v", b"$set", b"$", b"$ref.x", b"a.$b", b"$unset", b"$diff"]
"""Names that servers allow from 5.0 on."""

_SIZES = [((40, 120), 30), ((120, 400), 40), ((400, 2_000), 24), ((2_000, 9_000), 5), ((20_000, 50_000), 1)]
_SPECIAL_DOUBLES = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 1e300, 5e-324, 0.1, 2.0**53, -1.5]
_SCALARS = [
    *[("string", 30), ("int", 16), ("long", 8), ("double", 10), ("bool", 6), ("null", 5), ("date", 8)],
    *[("object", 6), ("binary", 5), ("decimal", 4), ("rare", 6)],
]
_SUBTYPES = [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 128]


class Values:
    """Draws values, documents and identities. One thread."""

    def __init__(self, chance: Chance, *, dollars: bool) -> None:
        """Draw by ``chance``; with ``dollars`` also names that begin with one."""
        self._chance = chance
        self._awkward = AWKWARD + DOLLAR if dollars else AWKWARD
        self._objects = 0

    def name(self) -> bytes:
        """Return a field name, seldom an awkward one."""
        return self._chance.pick(self._awkward if self._chance.flip(0.06) else PLAIN)

    def words(self, size: int) -> bytes:
        """Return ``size`` bytes of text in UTF-8."""
        return self._chance.bytes((size + 1) // 2).hex().encode()[:size]

    def scalar(self) -> Value:
        """Return a value of any type but document and array."""
        chance = self._chance
        kind = chance.weighted(_SCALARS)
        if kind == "string":
            return bson.string(self.words(chance.pick([0, 1, 5, 12, 20, 60])))
        if kind == "int":
            return bson.int32(chance.pick([0, 1, -1, 2**31 - 1, -(2**31), chance.below(1000)]))
        if kind == "long":
            return bson.int64(chance.pick([0, 1, 2**63 - 1, -(2**63), 2**53 + 1, chance.below(10**12)]))
        if kind == "double":
            return bson.double(chance.pick([*_SPECIAL_DOUBLES, chance.below(10**6) / 64]))
        if kind == "bool":
            return bson.boolean(chance.flip(0.5))
        if kind == "null":
            return bson.NOTHING
        if kind == "date":
            return bson.date(chance.pick([0, -1, 1_700_000_000_000 + chance.below(10**10), -(2**63)]))
        if kind == "object":
            return self.object_id()
        if kind == "binary":
            return bson.binary(chance.bytes(chance.pick([0, 1, 16, 40])), chance.pick(_SUBTYPES))
        if kind == "decimal":
            return self.decimal()
        return self._rare()

    def decimal(self) -> Value:
        """Return a Decimal128, finite."""
        chance = self._chance
        return bson.decimal(
            chance.below(2), chance.pick([0, 1, 100, chance.below(10**9)]), chance.between(-9, 6)
        )

    def object_id(self) -> Value:
        """Return an ObjectId; they rise, with an interruption now and then."""
        self._objects += 1 if self._chance.flip(0.97) else 1 << 20
        return Value(bson.OBJECT_ID, b"\x65\x5a" + b"\0" * 4 + struct.pack(">IH", self._objects, 7))

    def _rare(self) -> Value:
        chance = self._chance
        kind = chance.below(10)
        if kind == 0:
            return Value(bson.REGEX, b"^a.*\0i\0")
        if kind == 1:
            return bson.string(b"function() { return 1 }", bson.CODE)
        if kind == 2:
            return bson.string(self.words(6), bson.SYMBOL)
        if kind == 3:
            return Value(bson.POINTER, bson.string("db.c").raw + chance.bytes(12))
        if kind == 4:
            code, scope = bson.string("x").raw, bson.document({"x": bson.int32(1)})
            return Value(bson.SCOPED_CODE, struct.pack("<i", 4 + len(code) + len(scope)) + code + scope)
        if kind == 5:
            return Value(bson.UNDEFINED, b"")
        if kind == 6:
            return Value(bson.MIN_KEY, b"")
        if kind == 7:
            return Value(bson.MAX_KEY, b"")
        return bson.timestamp(*chance.pick([(0, 0), (1_700_000_000, 3), (2**32 - 1, 2**32 - 1)]))

    def value(self, depth: int = 0) -> Value:
        """Return a value of any type; documents and arrays nest to a few levels."""
        chance = self._chance
        if depth >= 4 or not chance.flip(0.35):
            return self.scalar()
        count = chance.pick([0, 1, 2, 3, 3, 5, 8])
        if chance.flip(0.45):
            return bson.array([self.value(depth + 1) for _ in range(count)])
        return Value(bson.DOCUMENT, bson.build(self.fields(count, depth + 1)))

    def fields(self, count: int, depth: int, taken: frozenset[bytes] = frozenset()) -> list[Element]:
        """Return up to ``count`` fields; a name comes twice only very seldom."""
        names = set(taken)
        found = []
        for _ in range(count):
            name = self.name()
            if name not in names or (self._chance.flip(0.01) and name not in taken):
                names.add(name)
                found.append(Element(name, *self.value(depth)))
        return found

    def document(self, identity: Value, fixed: list[Element]) -> bytes:
        """Return a document with that ``_id``, these fields and some of chance."""
        chance = self._chance
        low, high = chance.weighted(_SIZES)
        target = chance.between(low, high)
        parts = [Element(b"_id", *identity), *fixed]
        taken = frozenset(element.name for element in parts)
        size = sum(len(element.raw) for element in parts)
        used: set[bytes] = set()
        for _ in range(40):
            if size >= target:
                break
            if target - size > 3_000 and chance.flip(0.5):
                filler = Element(b"blob", *bson.binary(chance.bytes(target - size)))
                fresh = [filler] if b"blob" not in used else []
            else:
                fresh = self.fields(3, 1, taken | frozenset(used))
            parts += fresh
            used.update(element.name for element in fresh)
            size += sum(len(element.raw) + len(element.name) for element in fresh)
        if chance.flip(0.01):
            parts.append(parts.pop(0))
        return bson.build(parts)

    def identity(self, style: str) -> Value:
        """Return an ``_id`` in a style: objectid, number, few (of them), string, uuid, or mixed."""
        chance = self._chance
        if style == "few":
            return bson.int32(chance.below(60))
        if style == "mixed":
            if chance.flip(0.08):
                return self._odd_identity()
            style = chance.pick(["objectid", "number", "string", "uuid", "date", "document"])
        if style == "objectid":
            return self.object_id()
        if style == "number":
            number = chance.below(4000)
            return chance.pick([bson.int32, bson.int64, bson.double])(number)
        if style == "string":
            return bson.string(self.words(chance.pick([0, 1, 2, 3, 12, 200])))
        if style == "uuid":
            return bson.uuid(chance.bytes(16))
        if style == "date":
            return bson.date(chance.below(10**6) - 1000)
        return bson.embedded({"k": bson.int32(chance.below(50)), "": self.scalar()})

    def _odd_identity(self) -> Value:
        chance = self._chance
        kind = chance.below(9)
        if kind == 0:
            return Value(bson.MIN_KEY, b"")
        if kind == 1:
            return Value(bson.MAX_KEY, b"")
        if kind == 2:
            return bson.NOTHING
        if kind == 3:
            return bson.boolean(chance.flip(0.5))
        if kind == 4:
            return bson.timestamp(chance.below(3), chance.below(3))
        if kind == 5:
            return bson.string(self.words(2), chance.pick([bson.SYMBOL, bson.CODE]))
        if kind == 6:
            return bson.double(chance.pick(_SPECIAL_DOUBLES))
        if kind == 7:
            return bson.binary(chance.bytes(chance.below(3)), chance.pick(_SUBTYPES))
        return self.decimal()
