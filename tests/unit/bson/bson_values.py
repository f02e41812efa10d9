"""Values of every BSON type for Hypothesis, built from bytes alone, and an order written a second time.

`compare` follows MongoDB's manual on comparison over inflated Python values (fractions, tuples); it shares no
code with the package.
"""

import math
import struct
from fractions import Fraction

from bson.decimal128 import Decimal128
from hypothesis import strategies as st

Value = tuple[int, bytes]

TEXTS = st.one_of(
    st.sampled_from([b"", b"a", b"ab", b"a\0", b"a\0b", b"a\x01", b"\0", b"\xff", "é".encode(), b"b" * 130]),
    st.binary(max_size=6),
)
NAMES = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"a.b", b"$a", b"_id", "é".encode()]),
    st.binary(max_size=4).map(lambda name: name.replace(b"\0", b"")),
)
INTERESTING = [
    0.0, -0.0, 1.0, -1.0, 0.1, 0.5, -0.5, 1.5, -1.5, 2.0**31, 2.0**53, -(2.0**53), 2.0**63, -(2.0**63),
    2.0**64, 1.8446744073709552e19, 1e19, 1e20, 1e300, -1e300, 5e-324, -5e-324, 1e-300,
    float("inf"), float("-inf"), float("nan"), 3.141592653589793, 99999999999999990000.0,
]  # fmt: skip
DECIMALS = [
    "0", "-0", "0E+6111", "0E-6176", "1", "1.0", "1.00", "-1", "0.1", "0.5", "-0.5", "1.5", "NaN", "-NaN",
    "Infinity", "-Infinity", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "18446744073709551616.5", "-18446744073709551616", "99999999999999999999",
    "100000000000000000000", "1E+6144", "-1E+6144", "9.999999999999999999999999999999999E+6144", "1E-6176",
    "-1E-6176", "3.141592653589793115997963468544185", "0.1000000000000000055511151231257827", "1E+20",
]  # fmt: skip


def text(data: bytes) -> bytes:
    return struct.pack("<i", len(data) + 1) + data + b"\0"


def document(fields: list[tuple[bytes, Value]]) -> bytes:
    body = b"".join(bytes((kind,)) + name + b"\0" + data for name, (kind, data) in fields)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def scoped(code: bytes, scope: bytes) -> bytes:
    inner = text(code) + scope
    return struct.pack("<i", len(inner) + 4) + inner


def decimal(written: str) -> bytes:
    return Decimal128(written).bid


NUMBERS = st.one_of(
    st.sampled_from(INTERESTING).map(lambda x: (0x01, struct.pack("<d", x))),
    st.floats().map(lambda x: (0x01, struct.pack("<d", x))),
    st.sampled_from([0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001]).map(
        lambda bits: (0x01, struct.pack("<Q", bits))
    ),
    st.integers(-3, 3).map(lambda n: (0x10, struct.pack("<i", n))),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: (0x10, struct.pack("<i", n))),
    st.integers(-3, 3).map(lambda n: (0x12, struct.pack("<q", n))),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: (0x12, struct.pack("<q", n))),
    st.sampled_from(DECIMALS).map(lambda written: (0x13, decimal(written))),
    st.binary(min_size=16, max_size=16).map(lambda data: (0x13, data)),
    st.integers(-(10**20), 10**20).map(lambda n: (0x13, decimal(str(n)))),
)
SCALARS = st.one_of(
    NUMBERS,
    st.tuples(st.sampled_from([0x02, 0x0D, 0x0E]), TEXTS.map(text)),
    st.tuples(st.integers(0, 255), st.binary(max_size=20)).map(
        lambda pair: (0x05, struct.pack("<iB", len(pair[1]), pair[0]) + pair[1])
    ),
    st.sampled_from([(0x06, b""), (0x0A, b""), (0x7F, b""), (0xFF, b""), (0x08, b"\0"), (0x08, b"\1")]),
    st.binary(min_size=12, max_size=12).map(lambda data: (0x07, data)),
    st.integers(-(2**63), 2**63 - 1).map(lambda n: (0x09, struct.pack("<q", n))),
    st.integers(-3, 3).map(lambda n: (0x09, struct.pack("<q", n))),
    st.integers(0, 2**64 - 1).map(lambda n: (0x11, struct.pack("<Q", n))),
    st.tuples(NAMES, NAMES).map(lambda pair: (0x0B, pair[0] + b"\0" + pair[1] + b"\0")),
    st.tuples(TEXTS, st.binary(min_size=12, max_size=12)).map(lambda pair: (0x0C, text(pair[0]) + pair[1])),
)


def _nested(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    fields = st.lists(st.tuples(NAMES, inner), max_size=3)
    return st.one_of(
        fields.map(lambda found: (0x03, document(found))),
        st.lists(inner, max_size=3).map(
            lambda found: (0x04, document([(b"%d" % i, value) for i, value in enumerate(found)]))
        ),
        st.tuples(TEXTS, fields).map(lambda pair: (0x0F, scoped(pair[0], document(pair[1])))),
    )


VALUES = st.recursive(SCALARS, _nested, max_leaves=8)
DOCUMENTS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(document)

_ORDER = [
    {0xFF}, {0x06}, {0x0A}, {0x01, 0x10, 0x12, 0x13}, {0x02, 0x0E}, {0x03}, {0x04}, {0x05}, {0x07}, {0x08},
    {0x09}, {0x11}, {0x0B}, {0x0C}, {0x0D}, {0x0F}, {0x7F},
]  # fmt: skip


def rank(kind: int) -> int:
    return next(place for place, kinds in enumerate(_ORDER) if kind in kinds)


def parts(doc: bytes) -> list[tuple[bytes, Value]]:
    """Take apart a document known to be good: through lengths found by trying, type by type."""
    found, at = [], 4
    while doc[at]:
        kind = doc[at]
        stop = doc.index(b"\0", at + 1)
        name, at = doc[at + 1 : stop], stop + 1
        fixed = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16}
        if kind in {0x02, 0x0D, 0x0E}:
            size = 4 + struct.unpack_from("<i", doc, at)[0]
        elif kind in {0x03, 0x04, 0x0F}:
            size = struct.unpack_from("<i", doc, at)[0]
        elif kind == 0x05:
            size = 5 + struct.unpack_from("<i", doc, at)[0]
        elif kind == 0x0B:
            size = doc.index(b"\0", doc.index(b"\0", at) + 1) + 1 - at
        elif kind == 0x0C:
            size = 16 + struct.unpack_from("<i", doc, at)[0]
        else:
            size = fixed.get(kind, 0)
        found.append((name, (kind, doc[at : at + size])))
        at += size
    return found


def number(value: Value) -> tuple[int, Fraction]:
    """Return (-2 NaN, -1 -inf, 0 finite, 1 inf; the exact value)."""
    kind, data = value
    if kind == 0x10:
        return 0, Fraction(struct.unpack("<i", data)[0])
    if kind == 0x12:
        return 0, Fraction(struct.unpack("<q", data)[0])
    if kind == 0x01:
        x = struct.unpack("<d", data)[0]
        if math.isnan(x):
            return -2, Fraction(0)
        return (0, Fraction(x)) if abs(x) != float("inf") else (1 if x > 0 else -1, Fraction(0))
    x = Decimal128.from_bid(data).to_decimal()
    if x.is_nan():
        return -2, Fraction(0)
    return (0, Fraction(x)) if x.is_finite() else (1 if x > 0 else -1, Fraction(0))


def _sign(a: object, b: object) -> int:
    return (a > b) - (a < b)  # type: ignore[operator]


def compare(a: Value, b: Value) -> int:
    """Return -1, 0 or 1 as MongoDB orders two values."""
    (kind, x), (_, y) = a, b
    if rank(kind) != rank(b[0]):
        return _sign(rank(kind), rank(b[0]))
    if kind in {0x01, 0x10, 0x12, 0x13}:
        return _sign(number(a), number(b))
    if kind in {0x02, 0x0E, 0x0D}:
        return _sign(x[4:-1], y[4:-1])
    if kind == 0x03:
        return _compare_fields(parts(x), parts(y), named=True)
    if kind == 0x04:
        return _compare_fields(parts(x), parts(y), named=False)
    if kind == 0x05:
        return _sign((len(x), x[4], x[5:]), (len(y), y[4], y[5:]))
    if kind == 0x09:
        return _sign(struct.unpack("<q", x), struct.unpack("<q", y))
    if kind == 0x11:
        return _sign(struct.unpack("<Q", x), struct.unpack("<Q", y))
    if kind == 0x0B:
        return _sign(x.split(b"\0"), y.split(b"\0"))
    if kind == 0x0C:
        return _sign((len(x), x[4:-13], x[-12:]), (len(y), y[4:-13], y[-12:]))
    if kind == 0x0F:
        cut, other = 8 + struct.unpack_from("<i", x, 4)[0], 8 + struct.unpack_from("<i", y, 4)[0]
        return _sign(x[8 : cut - 1], y[8 : other - 1]) or _compare_fields(
            parts(x[cut:]), parts(y[other:]), named=True
        )
    return _sign(x, y)


def _compare_fields(xs: list[tuple[bytes, Value]], ys: list[tuple[bytes, Value]], *, named: bool) -> int:
    for (name, x), (other, y) in zip(xs, ys, strict=False):
        found = _sign(rank(x[0]), rank(y[0])) or (_sign(name, other) if named else 0) or compare(x, y)
        if found:
            return found
    return _sign(len(xs), len(ys))
