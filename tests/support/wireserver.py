"""The server of MongoDB's protocol in this process, over any view, and sockets that speak to it by hand."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import bson
import pymongo

from dedupstore.clock import SYSTEM_CLOCK, Clock
from dedupstore.documents.view import View
from dedupstore.query.work import Pool
from dedupstore.server.mongowire.cursors import Cursors
from dedupstore.server.mongowire.listener import Listener
from dedupstore.server.mongowire.scram import Credential
from dedupstore.server.mongowire.service import Service, Version

Client = pymongo.MongoClient[dict[str, Any]]


@dataclass
class Running:
    """A server that answers."""

    service: Service
    listener: Listener

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listener.address.rpartition(":")
        return host, int(port)

    def client(self, **options: Any) -> Client:
        """A client of the caller's own; close it."""
        return pymongo.MongoClient(
            *self.address, directConnection=True, serverSelectionTimeoutMS=10_000, **options
        )

    @contextlib.contextmanager
    def wire(self) -> Iterator["Wire"]:
        """A connection by hand."""
        with socket.create_connection(self.address, timeout=10) as sock:
            yield Wire(sock)


@dataclass
class Wire:
    """Messages by hand."""

    sock: socket.socket
    number: int = 0

    def send(self, command: Mapping[str, Any], flags: int = 0, more: bytes = b"") -> None:
        self.number += 1
        body = struct.pack("<I", flags) + b"\0" + bson.encode(command) + more
        self.sock.sendall(struct.pack("<iiii", len(body) + 16, self.number, 0, 2013) + body)

    def read(self) -> dict[str, Any]:
        """The next answer."""
        header = self.exactly(16)
        size, _, answers, opcode = struct.unpack("<iiii", header)
        assert answers == self.number
        payload = self.exactly(size - 16)
        return bson.decode(payload[5:] if opcode == 2013 else payload[20:])

    def exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.sock.recv(size - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found

    def ask(self, command: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        self.send({**command, "$db": command.get("$db", "admin")}, **more)
        return self.read()

    @property
    def ended(self) -> bool:
        """Whether the server has hung up."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@contextlib.contextmanager
def serving(
    view: View,
    *,
    user: str | None = None,
    password: str = "",
    version: str = "8.0.4",
    clock: Clock = SYSTEM_CLOCK,
    pool: Pool | None = None,
    **options: Any,
) -> Iterator[Running]:
    """Serve a view for the length of the block."""
    credential = None if user is None else Credential.of(user, password, SYSTEM_CLOCK.random)
    service = Service(view, Version.of(version), clock, Cursors(clock), credential, pool=pool or Pool())
    listener = Listener(service, "127.0.0.1", 0, **options)
    thread = threading.Thread(target=listener.run)
    thread.start()
    try:
        yield Running(service, listener)
    finally:
        listener.stop()
        thread.join()
