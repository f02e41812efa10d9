"""One client: messages in, answers out, until it leaves or says something that is no message.

Bytes are believed as they come: nothing is set aside for a length that was only claimed. Before a login
messages are small; large ones wait for their turn, so that not all clients can send one at a time.
"""

import select
import socket
import ssl
import threading
from contextlib import suppress
from typing import Final

from dedupstore.errors import DedupstoreError
from dedupstore.query.failures import Failure, QueryError
from dedupstore.server.mongowire.commands import answer
from dedupstore.server.mongowire.replies import OK, Parts, error_parts, parts_of_error
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Service, Session
from dedupstore.server.mongowire.wire import HEADER, MESSAGE_MAX, Malformed, Message, decode, encode

STRANGER_MAX: Final = 16 << 10
"""Bytes of a message before the login, where one is wanted."""
LARGE: Final = 256 << 10
"""Bytes from which on a message waits for its turn."""
LARGE_AT_ONCE: Final = 4
STRANGER_SECONDS: Final = 60.0
"""How long one that has not logged in may say nothing."""
IDLE_SECONDS: Final = 1800.0
MESSAGE_SECONDS: Final = 60.0
"""How long a message that has begun may take to come, and an answer's piece to be taken."""
_PIECE: Final = 256 << 10
_TURNS = threading.BoundedSemaphore(LARGE_AT_ONCE)


class Connection:
    """One client on its own thread."""

    def __init__(
        self, service: Service, sock: socket.socket, number: int, tls: ssl.SSLContext | None
    ) -> None:
        self._service = service
        self._socket = sock
        self._tls = tls
        self._answers = 0
        peer = sock.getpeername()
        self.session = Session(number, service, self._gone, f"{peer[0]}:{peer[1]}")

    def run(self) -> None:
        """Serve until the end; raises nothing that a client can bring about."""
        try:
            with suppress(OSError, Malformed, ssl.SSLError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    self._socket.settimeout(MESSAGE_SECONDS)
                    self._socket = self._tls.wrap_socket(self._socket, server_side=True)
                while not self._service.stopping.is_set() and self._once():
                    pass
        finally:
            self.close()

    def close(self) -> None:
        """End it, from any thread; a second call does nothing."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def interrupt(self) -> None:
        """Let nothing more come in, from another thread; what is being answered can still be sent."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _once(self) -> bool:
        """Deal with one message; False when the client has left."""
        self._socket.settimeout(IDLE_SECONDS if self.session.open else STRANGER_SECONDS)
        header = self._read(HEADER.size)
        if header is None:
            return False
        size = HEADER.unpack(header)[0] - HEADER.size
        most = MESSAGE_MAX if self.session.open else STRANGER_MAX
        if not 0 < size <= most - HEADER.size:
            raise Malformed(f"a message of {size} bytes is not taken")
        if size > LARGE:
            with _TURNS:
                return self._deal(header, size)
        return self._deal(header, size)

    def _deal(self, header: bytes, size: int) -> bool:
        payload = self._read(size)
        if payload is None:
            return False
        message = decode(header, payload)
        fields, failed = self._answer(message)
        del payload
        if not message.silent:
            self._answers += 1
            self._send(encode(message, self._answers & 0x7FFF_FFFF, fields, failed=failed))
        return True

    def _answer(self, message: Message) -> tuple[Parts, bool]:
        """Return an answer's fields, and whether it is an error."""
        try:
            request = Request.of(message.body, message.database)
            if message.legacy and request.name not in {"hello", "isMaster", "ismaster"}:
                raise QueryError(
                    Failure.UnsupportedOpQueryCommand,
                    f"Unsupported OP_QUERY command: {request.name}; use OP_MSG",
                )
            return [*answer(self.session, request), OK], False
        except DedupstoreError as error:
            return parts_of_error(error), True
        except RecursionError:
            return error_parts(Failure.Overflow, Failure.Overflow.name, "the request nests too deeply"), True
        except MemoryError:
            lack = Failure.ExceededMemoryLimit
            return error_parts(lack, lack.name, "there is no memory for this: ask for less at a time"), True
        except Exception as error:  # noqa: BLE001  (the last stop before a client loses its connection)
            what = f"this is a fault in dstore, please report it: {type(error).__name__}: {error}"
            return error_parts(Failure.InternalError, Failure.InternalError.name, what), True

    def _read(self, size: int) -> bytes | None:
        """Return so many bytes; None if the client has left."""
        found = bytearray()
        while len(found) < size:
            piece = self._socket.recv(min(size - len(found), _PIECE))
            if not piece:
                return None
            if not found:
                self._socket.settimeout(MESSAGE_SECONDS)
            found += piece
        return bytes(found)

    def _send(self, data: bytes) -> None:
        self._socket.settimeout(MESSAGE_SECONDS)
        view = memoryview(data)
        for at in range(0, len(view), _PIECE):
            self._socket.sendall(view[at : at + _PIECE])

    def _gone(self) -> bool:
        """Tell whether the client has left while it is being answered."""
        try:
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN)
            if not poll.poll(0):
                return False
            # Of an encrypted connection too it is the plain one that ends.
            return socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except (BlockingIOError, ValueError):
            return False
        except OSError:
            return True
