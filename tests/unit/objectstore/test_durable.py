"""Short writes, and a lock whose file was taken away."""

import fcntl
import os
import signal
import threading
import time
from pathlib import Path

from dedupstore.objectstore.durable import FileLock, write_parts


def test_writes_that_come_up_short() -> None:
    """A signal cuts a blocking write to a pipe short, at any place in any part."""
    parts = [bytes([number % 251]) * (number * 37 % 5000) for number in range(3000)]
    reader, writer = os.pipe()
    received = bytearray()

    def drain() -> None:
        while piece := os.read(reader, 30_011):
            received.extend(piece)
            time.sleep(0.0002)

    thread = threading.Thread(target=drain)
    thread.start()
    interrupted: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: interrupted.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        write_parts(writer, parts, direct=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)
        thread.join()
        os.close(reader)
    assert interrupted
    assert received == b"".join(parts)


def test_who_waited_on_a_deleted_lock_takes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = FileLock(str(path), 0o600)
    held = threading.Event()

    def wait_for_it() -> None:
        with lock.held():
            held.set()

    with path.open("wb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        time.sleep(0.05)  # it waits on the old file now
        path.unlink()
        new = path.open("wb")
        fcntl.flock(new, fcntl.LOCK_EX)
    assert not held.wait(0.1), "it went on with a lock that nobody else looks at"
    new.close()
    assert held.wait(5)
    thread.join()
