"""The place where clients come in: an address, a thread for each client, an orderly end.

Threads, and not one loop: what a client waits for is reading and expanding chunks, which lets go of the
interpreter's lock and would need threads beside a loop as well; so each client's code is plain calls.

Where the address is not this machine's own, a login is required: `Listener` does not start without one.
"""

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Final

from dedupstore.errors import UsageError
from dedupstore.server.mongowire.connection import Connection
from dedupstore.server.mongowire.diagnostics import MOST_CONNECTIONS
from dedupstore.server.mongowire.service import Service

BACKLOG: Final = 64
TICK_SECONDS: Final = 1.0
END_SECONDS: Final = 5.0


class Listener:
    """A server. `run` serves until `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        service: Service,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        most: int = MOST_CONNECTIONS,
    ) -> None:
        """Listen. Raises `UsageError` for an address that can not be had, or that needs a login."""
        self._service = service
        self._tls = tls
        self._most = most
        self._socket = _bound(host, port, needs_login=service.credential is None)
        self._wake, self._waker = socket.socketpair()
        self._clients: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._number = 0
        service.connections = lambda: len(self._clients)

    @property
    def address(self) -> str:
        """Where it listens: ``host:port``."""
        name, port = self._socket.getsockname()[:2]
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self._socket.getsockname()[0].partition("%")[0]).is_loopback

    def run(self) -> None:
        """Serve until `stop`; then end every connection and wait for their threads a little."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._service.stopping.is_set():
                events = poll.poll(TICK_SECONDS * 1000)
                self._service.cursors.expire()
                if any(number == self._socket.fileno() for number, _ in events):
                    self._accept()
        finally:
            self._end()

    def stop(self) -> None:
        """Ask it to end."""
        self._service.stopping.set()
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:  # it has left again, or there are no more descriptors
            self._service.stopping.wait(0.01)
            return
        try:
            self._number += 1
            if len(self._clients) >= self._most:
                raise OSError("too many clients")
            connection = Connection(self._service, client, self._number, self._tls)
        except OSError:
            client.close()
            return
        thread = threading.Thread(
            target=self._serve, args=(connection,), name=f"client-{self._number}", daemon=True
        )
        with self._lock:
            self._clients[connection] = thread
        thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._clients.pop(connection, None)

    def _end(self) -> None:
        self._service.stopping.set()
        self._socket.close()
        with self._lock:
            clients = list(self._clients.items())
        for connection, _ in clients:
            connection.interrupt()
        until = self._service.clock.monotonic() + END_SECONDS
        for _, thread in clients:
            thread.join(max(until - self._service.clock.monotonic(), 0))
        self._service.cursors.expire(everything=True)
        self._wake.close()
        self._waker.close()


def parse_address(text: str) -> tuple[str, int]:
    """Read ``host:port``, the host in brackets if it has colons. Raises `UsageError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address to listen at: write host:port, as in 127.0.0.1:27018")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{text!r} is not clear: write an IPv6 address in brackets, as in [::1]:27018")
    return host, int(port)


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return what encrypts connections, from TLS 1.2 on. Raises `UsageError` for files that do not serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"certificate {certificate}: {error}; name a PEM file, and its unencrypted key by --tls-key"
        ) from error
    return context


def _no_password() -> str:
    raise ssl.SSLError("the key is encrypted")


def _bound(host: str, port: int, *, needs_login: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host!r} is no host that can be listened at ({error}): give an address") from error
    if needs_login and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UsageError(
            f"{address[0]} can be reached from other machines, so a login is required: give --user NAME, or "
            "listen at 127.0.0.1"
        )
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"{host}:{port} can not be listened at ({error.strerror}): give another --listen"
        ) from error
    return sock
