"""A process that lays data right beside a page nobody may read, and chunks it with every kernel.

Prints how many calls it made. Argument: ``before`` (the data begin where a forbidden page ends), ``after``
(they end where one begins), ``beyond`` (reads a forbidden byte, to show that it is).
"""

import ctypes
import mmap
import sys

from dedupstore.chunker.base import Params, kernels, make_chunker
from tests.unit.chunker.chunker_inputs import KEY, random_bytes

PAGE = mmap.PAGESIZE
PAGES = 3
SIZES = [
    0,
    1,
    52,
    53,
    54,
    55,
    60,
    61,
    62,
    67,
    68,
    69,
    84,
    85,
    86,
    115,
    116,
    117,
    118,
    180,
    181,
    182,
    1000,
    3 * PAGE,
]


def guarded() -> memoryview:
    """Return three readable pages between two forbidden ones; they live as long as the process."""
    mapped = mmap.mmap(-1, (PAGES + 2) * PAGE)
    mapped[PAGE : (PAGES + 1) * PAGE] = random_bytes(PAGES * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (0, PAGES + 1):
        if protect(ctypes.c_void_p(address + page * PAGE), ctypes.c_size_t(PAGE), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return memoryview(mapped)


def main(side: str) -> None:
    view = guarded()
    if side == "beyond":
        print(view[(PAGES + 1) * PAGE])
    readable = view[PAGE : (PAGES + 1) * PAGE]
    calls = 0
    for name in kernels():
        for size in [*range(200), *SIZES]:
            data = readable[:size] if side == "before" else readable[len(readable) - size :]
            for params in (Params(53, 53, 1 << 20, 1, 1), Params(53, 80, 100, 1 << 26, 1 << 28)):
                if name != "python" or size < 80:
                    make_chunker(KEY, params, name).cuts(data, calls % 2 == 0)
                    calls += 1
    print(calls)


if __name__ == "__main__":
    main(sys.argv[1])
