"""A connection in between that can be cut: what tests of lost networks go through."""

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Passes bytes between whoever connects to `address` and a server. A context manager."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._left = -1
        self.cuts = 0
        self.refuse = False
        """Whether new connections are closed at once."""

    @property
    def uri(self) -> str:
        return f"mongodb://{self.address}/?directConnection=true"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut_after(self, size: int) -> None:
        """Cut everything once, when so many more bytes have come from the server."""
        with self._lock:
            self._left = size

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            sockets, self._open = self._open, []
            self._left = -1
            self.cuts += 1
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                if counted and self._is_enough(len(data)):
                    self.cut()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _is_enough(self, size: int) -> bool:
        with self._lock:
            if self._left < 0:
                return False
            self._left = max(self._left - size, 0)
            return self._left == 0
