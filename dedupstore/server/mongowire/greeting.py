"""Commands that come first: who is there, and who is it that asks."""

from dedupstore.query.failures import Failure, QueryError, bad_value
from dedupstore.query.values import (
    Value,
    document_value,
    field_of,
    fields,
    integer_value,
    nothing,
    whole_number,
)
from dedupstore.server.mongowire.replies import Parts, Plain, binary, joined, parts, value
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.scram import MECHANISM, Exchange, failed
from dedupstore.server.mongowire.service import Session
from dedupstore.server.mongowire.wire import MESSAGE_MAX
from dedupstore.sources.bson import raw

DOCUMENT_MAX = 16 << 20
WRITE_BATCH_MAX = 100_000
_CONVERSATION = 1
_MOST_FAILURES = 3


def hello(session: Session, request: Request) -> Parts:
    """Answer ``hello``, and ``isMaster`` with the words it had."""
    service = session.service
    role = "isWritablePrimary" if request.name == "hello" else "ismaster"
    fields_: dict[str, Plain] = {
        "helloOk": True,
        role: True,
        "maxBsonObjectSize": DOCUMENT_MAX,
        "maxMessageSizeBytes": MESSAGE_MAX,
        "maxWriteBatchSize": WRITE_BATCH_MAX,
        "localTime": service.clock.now(),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": session.number,
        "minWireVersion": 0,
        "maxWireVersion": service.version.wire,
        "readOnly": True,
    }
    answer = parts(fields_)
    if b"saslSupportedMechs" in request.given:  # the same for any name: it must not tell who exists
        known: list[Plain] = [] if service.credential is None else [MECHANISM]
        answer += parts({"saslSupportedMechs": known})
    speculative = request.given.get(b"speculativeAuthenticate", b"")
    if speculative and speculative[0] == raw.OBJECT and service.credential is not None:
        begun = _speculated(session, speculative)
        if begun is not None:
            answer.append(field_of(b"speculativeAuthenticate", value(joined(begun))))
    return answer


def _speculated(session: Session, asked: Value) -> Parts | None:
    """Begin a login within a greeting; one that can not begin is left out of the answer."""
    given = dict(fields(asked))
    db = given.get(b"db", value("admin"))
    try:
        return sasl_start(session, Request("saslStart", _text(db), given))
    except QueryError:
        return None


def _text(found: Value) -> str:
    return raw.text_of(found[1:]).decode("utf-8", "replace") if found[:1] == b"\x02" else ""


def sasl_start(session: Session, request: Request) -> Parts:
    """Answer ``saslStart``."""
    credential = session.service.credential
    mechanism = request.text(b"mechanism")
    if credential is None or mechanism != MECHANISM:
        raise QueryError(
            Failure.MechanismUnavailable,
            f"Received authentication for mechanism {mechanism} which is not enabled",
        )
    if session.user is not None or session.failures >= _MOST_FAILURES or request.db != "admin":
        raise _counted(session, failed())
    exchange = Exchange(credential, session.service.clock.random)
    session.exchange, session.proved = exchange, False
    options = dict(fields(document_value(request.document(b"options"))))
    session.skips_empty = options.get(b"skipEmptyExchange") == value(True)
    try:
        answer = exchange.first(_payload(request))
    except QueryError as error:
        session.exchange = None
        raise _counted(session, error) from None
    return _step(answer, done=False)


def sasl_continue(session: Session, request: Request) -> Parts:
    """Answer ``saslContinue``."""
    exchange, conversation = session.exchange, request.given.get(b"conversationId", b"")
    if exchange is None or nothing(conversation) or whole_number(conversation) != _CONVERSATION:
        raise QueryError(Failure.ProtocolError, "No SASL session state found")
    if session.proved:
        session.exchange, session.proved = None, False
        session.user = exchange.user
        return _step(b"", done=True)
    try:
        answer = exchange.last(_payload(request))
    except QueryError as error:
        session.exchange = None
        raise _counted(session, error) from None
    if session.skips_empty:
        session.exchange, session.user = None, exchange.user
    else:
        session.proved = True
    return _step(answer, done=session.skips_empty)


def _counted(session: Session, error: QueryError) -> QueryError:
    session.failures += 1
    return error


def _payload(request: Request) -> bytes:
    found = request.given.get(b"payload", b"")
    if not found or found[0] != raw.BINARY:
        raise bad_value("a SASL payload must be binary data")
    return found[6:]


def _step(payload: bytes, *, done: bool) -> Parts:
    return [
        field_of(b"conversationId", integer_value(_CONVERSATION)),
        field_of(b"done", value(done)),
        binary("payload", payload),
    ]


def logout(session: Session, request: Request) -> Parts:
    """Answer ``logout``."""
    request.check("")
    session.user = session.exchange = None
    return []


def connection_status(session: Session, request: Request) -> Parts:
    """Answer ``connectionStatus``."""
    request.check("showPrivileges")
    users: list[Plain] = []
    roles: list[Plain] = []
    if session.user is not None:
        users.append({"user": session.user, "db": "admin"})
        roles.append({"role": "readAnyDatabase", "db": "admin"})
    privileges: dict[str, Plain] = (
        {"authenticatedUserPrivileges": []} if request.flag(b"showPrivileges") else {}
    )
    return parts({"authInfo": {"authenticatedUsers": users, "authenticatedUserRoles": roles, **privileges}})
