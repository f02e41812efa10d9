"""Another process at work in a store: run by the tests of `LocalStore`, which race it, kill it or starve it.

Arguments: what to do, the store's folder, ``anonymous`` or ``named``, and a number.
"""

import ctypes
import errno
import os
import resource
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dedupstore.errors import ObjectExists, ObjectNotFound, StoreFull
from dedupstore.objectstore.base import ObjectKey, ObjectKind
from dedupstore.objectstore.local import LocalStore
from dedupstore.testing.contracts import STORE_CONTRACT

GEN = ObjectKey(ObjectKind.GC, "gen")
SESSION = ObjectKey(ObjectKind.SESSION, "ab" * 16)
PACK_SIZE = 3 << 20
WORKER = Path(__file__)


def pack_content(name: str) -> bytes:
    """Return what a pack of that name must hold."""
    return bytes.fromhex(name) * (PACK_SIZE // 32) + b"tail"


def session_content(number: int) -> bytes:
    """Return what a session holds after that many swaps."""
    return b"%010d" % number * 500


def put_for_ever(store: LocalStore, number: int) -> None:
    while True:
        name = f"{number:02x}" + os.urandom(31).hex()
        store.put(ObjectKey(ObjectKind.PACK, name), [pack_content(name)])


def swap_for_ever(store: LocalStore, number: int) -> None:
    while True:
        store.replace(SESSION, session_content(number + 1), expect=session_content(number))
        number += 1


def count(store: LocalStore, times: int) -> None:
    """Add one to the counter ``times`` times, whoever else does."""
    for _ in range(times):
        while True:
            try:
                present = store.get(GEN)
            except ObjectNotFound:
                present = None
            try:
                store.replace(GEN, b"%d" % (int(present or b"0") + 1), expect=present)
            except ObjectExists:
                continue
            break


def claim(store: LocalStore, times: int) -> None:
    """Put the same names as everybody else; print those that were won."""
    for number in range(times):
        key = ObjectKey(ObjectKind.INDEX, f"{number:064x}")
        try:
            store.put(key, [b"%d" % os.getpid()])
        except ObjectExists:
            continue
        print(number)


def contract(store: LocalStore, how: int) -> None:
    """Keep the whole contract on a kernel that refuses what ``how`` says."""
    if how & 1:
        refuse_system_call(_LINKAT, errno.EPERM)
        expect_refusal(lambda: os.link(WORKER, store_path / "x", dst_dir_fd=os.open("/", os.O_RDONLY)))
    if how & 2:
        refuse_system_call(_OPENAT, errno.EOPNOTSUPP, flag=_TMPFILE_FLAG)
        expect_refusal(lambda: os.open(store_path, os.O_TMPFILE | os.O_WRONLY))
    for check in STORE_CONTRACT:
        check(LocalStore.create(Path(tempfile.mkdtemp(dir=store_path))))
    claim(store, 20)
    for number in range(20):
        store.get(ObjectKey(ObjectKind.INDEX, f"{number:064x}"))
    print("kept")


def claim_without_links(store: LocalStore, times: int) -> None:
    """As `claim`, on a file system that has no hard links."""
    refuse_system_call(_LINKAT, errno.EPERM)
    claim(store, times)


def put_over_limit(store: LocalStore, limit: int) -> None:
    """Put what is larger than a file of this process may be."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for parts in ([bytes(limit + 1)], [bytes(limit), b"x"], [b"x" * 7] * (limit // 7 + 1)):
        try:
            store.put(ObjectKey(ObjectKind.PACK, os.urandom(32).hex()), parts)
        except StoreFull:
            print("full")
    store.put(ObjectKey(ObjectKind.PACK, "ab" * 32), [bytes(limit)])


_OPENAT = 257  # x86-64 numbers
_LINKAT = 265
_TMPFILE_FLAG = os.O_TMPFILE & ~os.O_DIRECTORY


def refuse_system_call(number: int, error: int, *, flag: int = 0) -> None:
    """Let the kernel refuse a system call from now on; with ``flag``, only if its third argument has it."""
    load, equal, any_set, answer = 0x20, 0x15, 0x45, 0x06
    program = [(load, 0, 0, 0), (equal, 0, 3 if flag else 1, number)]
    if flag:
        program += [(load, 0, 0, 32), (any_set, 0, 1, flag)]
    program += [(answer, 0, 0, 0x00050000 | error), (answer, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    zero = ctypes.c_ulong(0)
    if libc.prctl(no_new_privileges, ctypes.c_ulong(1), zero, zero, zero):
        raise OSError(ctypes.get_errno(), "no new privileges")
    if libc.prctl(set_seccomp, ctypes.c_ulong(filter_mode), header, zero, zero):
        raise OSError(ctypes.get_errno(), "seccomp")


def expect_refusal(call: Callable[[], object]) -> None:
    """Check that the filter works, or the test shows nothing."""
    try:
        call()
    except OSError as error:
        if error.errno in {errno.EPERM, errno.EOPNOTSUPP}:
            return
        raise
    raise AssertionError("the kernel did as it was asked")


JOBS: dict[str, Callable[[LocalStore, int], None]] = {
    work.__name__: work
    for work in (put_for_ever, swap_for_ever, count, claim, contract, claim_without_links, put_over_limit)
}

if __name__ == "__main__":
    job, folder, way, amount = sys.argv[1:]
    store_path = Path(folder)
    print("ready", flush=True)
    JOBS[job](LocalStore(store_path, anonymous=way == "anonymous"), int(amount))
