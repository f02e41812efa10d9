"""The AES-window rule in NumPy: the fast copy for machines where the extension was not built.

AES is computed *bitsliced*: one bit of one state byte, for eight positions, is one byte of an array, and a
gate of the circuit is one NumPy call over a block of positions. There are no look-ups, so its timing tells
nothing of the key. ``8 * n`` positions make a block: bit ``k`` of byte ``q`` stands for position
``k * n + q``, so that the window's byte ``j`` is the same plane ``j`` bytes further on.

Memory: one workspace a thread, about 1.4 MiB, made at first use, kept and reused: larger blocks leave the
L2 cache and are slower. Safe from any thread. NumPy is imported by this module only.
"""

import threading
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dedupstore.chunker.awindow import BLOCK, LAG, ROUNDS, SHIFTED, find_cuts
from dedupstore.model import Data

Bytes: TypeAlias = npt.NDArray[np.uint8]

STRIPE = 2048
"""Positions a bit lane covers in a full block; a block is eight times as long."""
SMALLEST_STRIPE = 32

# The S-box circuit of Boyar and Peralta (2010; 32 AND and 83 XOR gates) without its final constant, which
# goes into the round keys. x0 is the highest bit of the input, s0 that of the output; & and ^ as in Python.
_CIRCUIT = """
y14=x3^x5 y13=x0^x6 y9=x0^x3 y8=x0^x5 t0=x1^x2 y1=t0^x7 y4=y1^x3 y12=y13^y14 y2=y1^x0 y5=y1^x6 y3=y5^y8
t1=x4^y12 y15=t1^x5 y20=t1^x1 y6=y15^x7 y10=y15^t0 y11=y20^y9 y7=x7^y11 y17=y10^y11 y19=y10^y8 y16=t0^y11
y21=y13^y16 y18=x0^y16
t2=y12&y15 t3=y3&y6 t4=t3^t2 t5=y4&x7 t6=t5^t2 t7=y13&y16 t8=y5&y1 t9=t8^t7 t10=y2&y7 t11=t10^t7 t12=y9&y11
t13=y14&y17 t14=t13^t12 t15=y8&y10 t16=t15^t12 t17=t4^t14 t18=t6^t16 t19=t9^t14 t20=t11^t16 t21=t17^y20
t22=t18^y19 t23=t19^y21 t24=t20^y18 t25=t21^t22 t26=t21&t23 t27=t24^t26 t28=t25&t27 t29=t28^t22 t30=t23^t24
t31=t22^t26 t32=t31&t30 t33=t32^t24 t34=t23^t33 t35=t27^t33 t36=t24&t35 t37=t36^t34 t38=t27^t36 t39=t29&t38
t40=t25^t39 t41=t40^t37 t42=t29^t33 t43=t29^t40 t44=t33^t37 t45=t42^t41
z0=t44&y15 z1=t37&y6 z2=t33&x7 z3=t43&y16 z4=t40&y1 z5=t29&y7 z6=t42&y11 z7=t45&y17 z8=t41&y10 z9=t44&y12
z10=t37&y3 z11=t33&y4 z12=t43&y13 z13=t40&y5 z14=t29&y2 z15=t42&y9 z16=t45&y14 z17=t41&y8
t46=z15^z16 t47=z10^z11 t48=z5^z13 t49=z9^z10 t50=z2^z12 t51=z2^z5 t52=z7^z8 t53=z0^z3 t54=z6^z7 t55=z16^z17
t56=z12^t48 t57=t50^t53 t58=z4^t46 t59=z3^t54 t60=t46^t57 t61=z14^t57 t62=t52^t58 t63=t49^t58 t64=z4^t59
t65=t61^t62 t66=z1^t63 s0=t59^t63 s6=t56^t62 s7=t48^t60 t67=t64^t65 s3=t53^t66 s4=t51^t66 s5=t47^t65
s1=t64^s3 s2=t55^t67
"""
_CONSTANT = 0x63

_Gate: TypeAlias = tuple[bool, int, int, int]


def _compile(circuit: str) -> tuple[list[_Gate], int]:
    """Turn the circuit into gates (is it AND, left, right, result) over as few registers as its values allow.

    Registers 0..7 hold the input and 8..15 the output, by bit from the lowest; the rest is scratch.
    """
    lines = [
        gate.replace("=", " ").replace("&", " & ").replace("^", " ^ ").split() for gate in circuit.split()
    ]
    last_use = {name: at for at, (_, left, _, right) in enumerate(lines) for name in (left, right)}
    register = {f"x{i}": 7 - i for i in range(8)} | {f"s{i}": 15 - i for i in range(8)}
    free: list[int] = []
    gates: list[_Gate] = []
    count = 16
    for at, (name, left, operator, right) in enumerate(lines):
        operands = register[left], register[right]
        # A result goes where an operand dies: that array is in the L1 cache.
        free += {register[used] for used in (left, right) if last_use[used] == at and register[used] >= 16}
        if name not in register:
            if not free:
                free.append(count)
                count += 1
            register[name] = free.pop()
        gates.append((operator == "&", *operands, register[name]))
    return gates, count


_GATES, _REGISTERS = _compile(_CIRCUIT)
_SCRATCH = _REGISTERS - 16
_GATHER = np.array([SHIFTED[4 * c + r % 4] for c in range(4) for r in range(7)], dtype=np.intp)
"""ShiftRows, with rows 0 to 2 once more below row 3 so that every rotation of a column is a slice."""
_LAST = np.array(tuple(SHIFTED[:4]), dtype=np.intp)
"""The bytes that the first column of the result is made of."""


class _Layout:
    """Views of one flat buffer for blocks of ``8 * n`` positions."""

    def __init__(self, flat: Bytes, n: int) -> None:
        self.n = n
        planes = BLOCK * n
        self.folded = flat[: 8 * n + BLOCK]
        flat = flat[8 * n + BLOCK :]
        self.state = flat[: 8 * planes].reshape(8, BLOCK, n)
        self.boxed = flat[8 * planes : 16 * planes].reshape(8, BLOCK, n)
        scratch = flat[16 * planes :]
        # The S-box's scratch and MixColumns' are never needed at the same time.
        self.rows = scratch[: 224 * n].reshape(8, 4, 7, n)
        self.sums = scratch[224 * n : 416 * n].reshape(8, 4, 6, n)
        self.sbox = self._bind(scratch, BLOCK)
        self.last_sbox = self._bind(scratch, 4)

    def _bind(self, scratch: Bytes, rows: int) -> list[tuple[np.ufunc, Bytes, Bytes, Bytes]]:
        size = rows * self.n
        registers = [self.state[b, :rows].reshape(-1) for b in range(8)]
        registers += [self.boxed[b, :rows].reshape(-1) for b in range(8)]
        registers += [scratch[i * size : (i + 1) * size] for i in range(_SCRATCH)]
        functions = (np.bitwise_xor, np.bitwise_and)
        return [
            (functions[is_and], registers[left], registers[right], registers[result])
            for is_and, left, right, result in _GATES
        ]


class _Workspace(threading.local):
    """A thread's buffer and its layouts by stripe length."""

    def __init__(self) -> None:
        self.flat = np.zeros((8 + 16 * BLOCK + max(_SCRATCH * BLOCK, 416)) * STRIPE + BLOCK, dtype=np.uint8)
        self.layouts: dict[int, _Layout] = {}

    def layout(self, positions: int) -> _Layout:
        """Return the smallest layout that holds so many positions, or the full one."""
        n = SMALLEST_STRIPE
        while n < STRIPE and 8 * n < positions:
            n *= 2
        if n not in self.layouts:
            self.layouts[n] = _Layout(self.flat, n)
        return self.layouts[n]


_WORKSPACE = _Workspace()


def _masks(schedule: bytes) -> Bytes:
    """Return the round keys as masks ``[round, bit, byte, 1]``: 0xFF where a plane is to be flipped."""
    keys = np.frombuffer(schedule, dtype=np.uint8).reshape(ROUNDS + 1, 1, BLOCK).copy()
    keys[1:] ^= _CONSTANT  # MixColumns leaves a column of equal bytes as it is
    return (np.unpackbits(keys, axis=1, bitorder="little") * np.uint8(0xFF))[..., None]


def _transpose_bits(folded: Bytes, n: int) -> Bytes:
    """Turn stripes into planes: bit ``k`` of result ``[b, q]`` is bit ``b`` of byte ``k * n + q``."""
    width = n + BLOCK - 1
    stripes = np.lib.stride_tricks.as_strided(folded, (width, 8), (1, n))
    x = np.ascontiguousarray(stripes).view("<u8").reshape(-1)
    for distance, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        swap = (x ^ (x >> np.uint64(distance))) & np.uint64(mask)
        x = x ^ swap ^ (swap << np.uint64(distance))
    return np.ascontiguousarray(x.astype("<u8", copy=False).view(np.uint8).reshape(width, 8).T)


def _mix_columns(area: _Layout) -> None:
    """Shift rows and mix columns: 2 t[r] ^ a[r+1] ^ t[r+2] for every byte, with t[r] = a[r] ^ a[r+1]."""
    rows, sums = area.rows, area.sums
    np.take(area.boxed, _GATHER, axis=1, out=rows.reshape(8, 28, area.n), mode="clip")
    np.bitwise_xor(rows[:, :, 0:6], rows[:, :, 1:7], out=sums)
    state = area.state.reshape(8, 4, 4, area.n)
    np.bitwise_xor(rows[:, :, 1:5], sums[:, :, 2:6], out=state)
    doubled, high = sums[:7, :, 0:4], sums[7, :, 0:4]
    np.bitwise_xor(state[1:], doubled, out=state[1:])
    np.bitwise_xor(state[0:2], high, out=state[0:2])  # 0x1b: bits 0, 1, 3 and 4
    np.bitwise_xor(state[3:5], high, out=state[3:5])


def _below(area: _Layout, masks: Bytes, threshold: int) -> Bytes:
    """Encrypt the block of ``folded``; set the bits of the positions whose value is below the threshold."""
    planes = _transpose_bits(area.folded, area.n)
    windows = np.lib.stride_tricks.as_strided(planes, area.state.shape, (planes.strides[0], 1, 1))
    np.bitwise_xor(windows, masks[0], out=area.state)
    for number in range(1, ROUNDS):
        for gate, left, right, result in area.sbox:
            gate(left, right, result)
        _mix_columns(area)
        np.bitwise_xor(area.state, masks[number], out=area.state)
    # Only the result's first column is looked at: four bytes go through the last round.
    area.state[:, :4] = area.state[:, _LAST]
    for gate, left, right, result in area.last_sbox:
        gate(left, right, result)
    absent = ~(area.boxed[:, :4] ^ masks[ROUNDS][:, :4])
    below = np.zeros(area.n, dtype=np.uint8)
    for bit in range(32):  # from the lowest; a higher bit that differs overrules the lower ones
        combine = np.bitwise_or if threshold >> bit & 1 else np.bitwise_and
        combine(below, absent[bit % 8, bit // 8], out=below)
    return below


def _first(below: Bytes, n: int) -> int:
    """Return the first position whose bit is set; there must be one."""
    hits = np.flatnonzero(below)
    lanes = np.unpackbits(below[hits, None], axis=1, bitorder="little")
    return int(min(int(lane) * n + int(hits[at]) for at, lane in np.argwhere(lanes)))


def _scan(masks: Bytes, data: Bytes, start: int, stop: int, threshold: int) -> int:
    while start < stop:
        area = _WORKSPACE.layout(stop - start)
        size = min(8 * area.n, stop - start) + BLOCK - 1
        newer = start - (BLOCK - 1)
        older = newer - LAG
        np.bitwise_xor(data[newer : newer + size], data[older : older + size], out=area.folded[:size])
        below = _below(area, masks, threshold)
        if below.any():
            at = start + _first(below, area.n)
            if at < stop:  # bits past the end stand for what an earlier block left behind
                return at
        start += 8 * area.n
    return stop


def cuts(
    schedule: bytes,
    data: Data,
    final: bool,
    min_size: int,
    normal: int,
    max_size: int,
    strict: int,
    loose: int,
) -> list[int]:
    """Return the ends of the whole chunks in ``data``; see `dedupstore.chunker.base.Chunker.cuts`."""
    masks = _masks(schedule)
    view = np.frombuffer(memoryview(data).cast("B"), dtype=np.uint8)

    def scan(start: int, stop: int, threshold: int) -> int:
        return _scan(masks, view, start, stop, threshold)

    return find_cuts(scan, len(view), final, min_size, normal, max_size, strict, loose)
