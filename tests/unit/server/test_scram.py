"""Logins: what gets in, and that all else fails in the same way."""

import base64
import hashlib
import hmac
import re
from typing import Any

import pymongo
import pytest
from bson import Binary
from pymongo.errors import OperationFailure

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.errors import UsageError
from dedupstore.query.failures import QueryError
from dedupstore.server.mongowire.scram import Credential, Exchange
from tests.support.wireserver import Running, Wire, serving
from tests.unit.server.server_inputs import small_view

PASSWORDS = ["pencil", "p,e=n cil", "Ⅸ\u00adpass", "ﬁ", "пароль"]
CREDENTIAL = Credential.of("user", "pencil", SYSTEM_CLOCK.random)


def proof_of(password: str, first: bytes, answer: bytes, nonce: bytes | None = None) -> bytes:
    """A client's last message, by RFC 5802."""
    given = dict(part.split(b"=", 1) for part in answer.split(b","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(given[b"s"]), int(given[b"i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = b"c=biws,r=" + (nonce or given[b"r"])
    told = b",".join((first[3:], answer, without))
    signature = hmac.digest(hashlib.sha256(key).digest(), told, "sha256")
    return without + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))


def exchange() -> Exchange:
    return Exchange(CREDENTIAL, SYSTEM_CLOCK.random)


def test_who_knows_the_password_gets_in() -> None:
    one, first = exchange(), b"n,,n=user,r=abc"
    answer = one.first(first)
    assert answer.startswith(b"r=abc")
    assert b",i=15000" in answer
    assert one.last(proof_of("pencil", first, answer)).startswith(b"v=")


def test_the_vector_of_the_standard() -> None:
    """RFC 7677, section 3, with its own salt, nonces and number of iterations put in."""
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    key = hmac.digest(salted, b"Client Key", "sha256")
    server = hmac.digest(salted, b"Server Key", "sha256")
    one = Exchange(Credential("user", b"", hashlib.sha256(key).digest(), server, b""), SYSTEM_CLOCK.random)
    one.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    one._nonce = nonce
    one._first = b"r=%b,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096" % nonce
    last = b"c=biws,r=%b,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=" % nonce
    assert one.last(last) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_message_is_good_once() -> None:
    one, first = exchange(), b"n,,n=user,r=abc"
    last = proof_of("pencil", first, one.first(first))
    one.last(last)
    with pytest.raises(QueryError):
        one.last(last)
    two = exchange()
    two.first(first)
    with pytest.raises(QueryError):  # replayed from another exchange
        two.last(last)


def test_the_last_message_does_not_come_first() -> None:
    with pytest.raises(QueryError):
        exchange().last(b"c=biws,r=abc,p=" + base64.b64encode(bytes(32)))
    one = exchange()
    one.first(b"n,,n=user,r=abc")
    with pytest.raises(QueryError):
        one.first(b"n,,n=user,r=abc")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,r=abc,n=user",
        b"p=tls-unique,,n=user,r=abc",
        b"n,a=admin,n=user,r=abc",
        b"n,,m=x,n=user,r=abc",
        b"n,,n=us=er,r=abc",
        b"n,,n=user,r=",
        b"n,,n=user,r=\xff",
        b"n,,n=user,r=" + b"a" * 5000,
    ],
)
def test_first_messages_that_make_no_sense_fail(message: bytes) -> None:
    with pytest.raises(QueryError, match=re.escape("Authentication failed.")):
        exchange().first(message)


@pytest.mark.parametrize("user", ["user", "nobody"])
def test_nothing_tells_an_unknown_user_from_a_wrong_password(user: str) -> None:
    first = b"n,,n=%b,r=abc" % user.encode()
    answers = []
    for _ in range(2):
        one = exchange()
        answer = one.first(first)
        answers.append(answer.split(b",")[1:])
        with pytest.raises(QueryError) as caught:
            one.last(proof_of("wrong", first, answer))
        assert str(caught.value) == "Authentication failed."
    assert answers[0] == answers[1]  # the salt of a name stays the same
    assert len(answers[0][0]) == 2 + 40


@pytest.mark.parametrize(
    "last", [b"", b"p=", b"c=biws,r=x,p=!!", b"c=eSws,r={r},p={p}", b"c=biws,r=x,p={p}", b"r={r},p={p}"]
)
def test_last_messages_that_are_not_right_fail(last: bytes) -> None:
    one, first = exchange(), b"n,,n=user,r=abc"
    good = proof_of("pencil", first, one.first(first))
    nonce, proof = good.split(b",")[1][2:], good.split(b",p=")[1]
    with pytest.raises(QueryError):
        one.last(last.replace(b"{r}", nonce).replace(b"{p}", proof))


@pytest.mark.parametrize("password", PASSWORDS)
def test_the_driver_gets_in(password: str) -> None:
    with serving(small_view(), user="us=er,", password=password) as running:
        for options in ({"authMechanism": "SCRAM-SHA-256"}, {}):
            with login(running, "us=er,", password, **options) as client:
                assert client.shop.orders.count_documents({}) == 1000
                assert client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
        for user, tried in (("us=er,", password + "x"), ("other", password)):
            with login(running, user, tried) as client, pytest.raises(OperationFailure) as caught:
                client.shop.orders.find_one()
            assert caught.value.code == 18


def login(running: Running, user: str, password: str, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
    return running.client(username=user, password=password, **options)


def start(wire: Wire, payload: bytes, **more: Any) -> dict[str, Any]:
    return wire.ask({"saslStart": 1, "mechanism": "SCRAM-SHA-256", "payload": Binary(payload), **more})


def test_out_of_order_and_other_ways_do_not_get_in() -> None:
    with serving(small_view(), user="user", password="pencil") as running:
        with running.wire() as wire:
            assert wire.ask({"saslContinue": 1, "conversationId": 1, "payload": Binary(b"")})["code"] == 17
            assert (
                wire.ask({"saslStart": 1, "mechanism": "PLAIN", "payload": Binary(b"\0user\0pencil")})["code"]
                == 334
            )
            assert start(wire, b"n,,n=user,r=abc")["done"] is False
            assert wire.ask({"find": "orders", "$db": "shop"})["code"] == 13
            assert wire.ask({"saslContinue": 1, "conversationId": 1, "payload": Binary(b"")})["code"] == 18
            assert wire.ask({"saslContinue": 1, "conversationId": 1, "payload": Binary(b"")})["code"] == 17
            assert wire.ask({"find": "orders", "$db": "shop"})["code"] == 13
        with running.wire() as wire:  # a database of its own would be another user
            found = wire.ask(
                {
                    "saslStart": 1,
                    "mechanism": "SCRAM-SHA-256",
                    "payload": Binary(b"n,,n=user,r=a"),
                    "$db": "shop",
                }
            )
            assert found["code"] == 18
        with running.wire() as wire:  # the long way: an empty message at the end
            first = b"n,,n=user,r=abc"
            answer = start(wire, first)["payload"]
            found = wire.ask(
                {"saslContinue": 1, "conversationId": 1, "payload": Binary(proof_of("pencil", first, answer))}
            )
            assert found["done"] is False
            assert wire.ask({"saslContinue": 1, "conversationId": 1, "payload": Binary(b"")})["done"] is True
            assert wire.ask({"count": "orders", "$db": "shop"})["n"] == 1000
            assert wire.ask({"logout": 1})["ok"] == 1
            assert wire.ask({"count": "orders", "$db": "shop"})["code"] == 13
        with running.wire() as wire:  # three failures are enough
            for _ in range(3):
                assert start(wire, b"x")["code"] == 18
            assert start(wire, b"n,,n=user,r=abc")["code"] == 18


@pytest.mark.parametrize(
    ("user", "password"), [("", "p"), ("u", ""), ("u\0", "p"), ("u", "\u0627\u0031a\u0627a")]
)
def test_names_and_passwords_that_can_not_be(user: str, password: str) -> None:
    with pytest.raises(UsageError):
        Credential.of(user, password, SYSTEM_CLOCK.random)
