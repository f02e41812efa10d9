"""SCRAM-SHA-256 on the server's side (RFC 5802, 7677): who knows the password, without it being sent.

Of the password only two keys are kept. An unknown user goes through the same exchange, with a salt that is
always the same for that name, and fails where a wrong password fails: nothing tells the two apart. Threads:
a `Credential` is anybody's, an `Exchange` belongs to one connection.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pymongo.saslprep import saslprep

from dedupstore.errors import UsageError
from dedupstore.query.failures import Failure, QueryError

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 15_000
"""MongoDB's own number; its drivers refuse less than 4096."""
SALT: Final = 28
NONCE: Final = 24
LONGEST: Final = 4096
"""Bytes of one message of an exchange."""


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """One user, as the server knows it."""

    user: str
    salt: bytes
    stored_key: bytes
    server_key: bytes
    secret: bytes
    """What salts of unknown users are made from."""

    @classmethod
    def of(cls, user: str, password: str, random: Callable[[int], bytes]) -> "Credential":
        """Derive keys (some 10 ms). Raises `UsageError` for a name or password that can not be one."""
        if not user or "\0" in user or not password:
            raise UsageError("a user needs a name and a password that are not empty: give --user NAME")
        try:
            prepared = saslprep(password)
        except ValueError as error:
            raise UsageError(f"the password can not be used ({error}): choose another one") from error
        salt = random(SALT)
        salted = hashlib.pbkdf2_hmac("sha256", str(prepared).encode(), salt, ITERATIONS)
        client_key = _mac(salted, b"Client Key")
        return cls(user, salt, hashlib.sha256(client_key).digest(), _mac(salted, b"Server Key"), random(32))

    def salt_of(self, user: str) -> bytes:
        """Return the salt that a user, known or not, is told."""
        name = user.encode("utf-8", "surrogateescape")
        made_up = _mac(self.secret, name)[:SALT]
        return self.salt if self.is_user(user) else made_up

    def is_user(self, user: str) -> bool:
        """Compare names in constant time."""
        return hmac.compare_digest(
            user.encode("utf-8", "surrogateescape"), self.user.encode("utf-8", "surrogateescape")
        )


class Exchange:
    """One attempt to log in: the client's first message, then its last one, each once."""

    def __init__(self, credential: Credential, random: Callable[[int], bytes]) -> None:
        self._credential = credential
        self._random = random
        self._bare = b""
        self._first = b""
        self._gs2 = b""
        self._nonce = b""
        self.user = ""
        """Who it says it is; known to be true once `last` has returned."""

    def first(self, message: bytes) -> bytes:
        """Answer the client's first message. Raises `QueryError`."""
        if self._bare or len(message) > LONGEST:
            raise failed()
        channel, _, rest = message.partition(b",")
        authzid, comma, bare = rest.partition(b",")
        if channel not in {b"n", b"y"} or not comma or authzid:
            raise failed()
        given = _attributes(bare)
        if [name for name, _ in given][:2] != [b"n", b"r"]:  # also refuses m=, an extension it must know
            raise failed()
        self.user = _user(given[0][1])
        if not given[1][1] or not given[1][1].isascii():
            raise failed()
        self._gs2 = message[: len(message) - len(bare)]
        self._bare = bare
        self._nonce = given[1][1] + base64.b64encode(self._random(NONCE))
        salt = base64.b64encode(self._credential.salt_of(self.user))
        self._first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, ITERATIONS)
        return self._first

    def last(self, message: bytes) -> bytes:
        """Check the client's proof and return the server's. Raises `QueryError`."""
        nonce, self._nonce = self._nonce, b""  # once
        if not nonce or len(message) > LONGEST:
            raise failed()
        without, _, proof = message.rpartition(b",p=")
        given = dict(_attributes(without))
        sent = _decoded(proof)
        credential = self._credential
        told = b",".join((self._bare, self._first, without))
        signature = _mac(credential.stored_key, told)
        key = bytes(a ^ b for a, b in zip(sent.ljust(32, b"\0")[:32], signature, strict=True))
        right = hmac.compare_digest(hashlib.sha256(key).digest(), credential.stored_key)
        right &= len(sent) == 32
        right &= credential.is_user(self.user)
        right &= hmac.compare_digest(given.get(b"r", b""), nonce)
        right &= given.get(b"c") == base64.b64encode(self._gs2)
        if not right:
            raise failed()
        return b"v=" + base64.b64encode(_mac(credential.server_key, told))


def failed() -> QueryError:
    """Return the one error there is for any login that does not work."""
    return QueryError(Failure.AuthenticationFailed, "Authentication failed.")


def _attributes(message: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    for part in message.split(b","):
        name, equals, value = part.partition(b"=")
        if len(name) != 1 or not equals:
            raise failed()
        found.append((name, value))
    return found


def _user(written: bytes) -> str:
    """Return a name in which = and , are written as =3D and =2C."""
    if b"=" in written.replace(b"=2C", b"").replace(b"=3D", b""):
        raise failed()
    return written.replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8", "surrogateescape")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
