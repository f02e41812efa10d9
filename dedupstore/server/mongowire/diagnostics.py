"""Commands with which shells and browsers find out what they are connected to."""

from typing import Final

from dedupstore import __version__
from dedupstore.query.failures import Failure, QueryError
from dedupstore.query.values import document_value, fields
from dedupstore.server.mongowire.replies import Parts, Plain, binary, joined, parts
from dedupstore.server.mongowire.requests import Request
from dedupstore.server.mongowire.service import Session
from dedupstore.sources.bson import raw

MOST_CONNECTIONS: Final = 200
_UUID: Final = 4


def ping(session: Session, request: Request) -> Parts:  # noqa: ARG001 - as all commands are called
    """Answer ``ping`` and the other commands to which nothing is to be said."""
    return []


def build_info(session: Session, request: Request) -> Parts:  # noqa: ARG001
    """Answer ``buildInfo`` with the version that the collections come from."""
    version = session.service.version
    return parts(
        {
            "version": str(version),
            "gitVersion": f"dstore {__version__}",
            "modules": [],
            "allocator": "system",
            "sysInfo": "deprecated",
            "versionArray": [*version.numbers, 0],
            "openssl": {"running": "unknown", "compiled": "unknown"},
            "bits": 64,
            "debug": False,
            "maxBsonObjectSize": 16 << 20,
            "storageEngines": ["dstore"],
            "dstore": __version__,
        }
    )


def host_info(session: Session, request: Request) -> Parts:
    """Answer ``hostInfo``, of the machine no more than its name."""
    request.check("")
    system: dict[str, Plain] = {"currentTime": session.service.clock.now(), "hostname": session.service.host}
    return parts({"system": system, "os": {"type": "unknown", "name": "dstore", "version": ""}, "extra": {}})


def server_status(session: Session, request: Request) -> Parts:  # noqa: ARG001
    """Answer ``serverStatus``: what is known, which is little; sections that are asked for are left out."""
    service = session.service
    seconds = service.clock.monotonic() - service.since
    number = service.connections()
    return parts(
        {
            "host": service.host,
            "version": str(service.version),
            "process": "dstore",
            "pid": 0,
            "uptime": seconds,
            "uptimeMillis": int(seconds * 1000),
            "uptimeEstimate": int(seconds),
            "localTime": service.clock.now(),
            "connections": {"current": number, "available": MOST_CONNECTIONS - number},
            "metrics": {"cursor": {"open": {"total": len(service.cursors)}}},
            "storageEngine": {"name": "dstore", "readOnly": True, "persistent": True},
        }
    )


def get_parameter(session: Session, request: Request) -> Parts:
    """Answer ``getParameter``, of which only the feature version is there."""
    major, minor, _ = session.service.version.numbers
    known = parts({"featureCompatibilityVersion": {"version": f"{major}.{minor}"}})
    if request.own[:1] == b"\x02" and raw.text_of(request.own[1:]) == b"*":
        return known
    if b"featureCompatibilityVersion" in request.given:
        return known
    if request.own[:1] == b"\x03":  # {allParameters: true}
        return known
    raise QueryError(Failure.InvalidOptions, "no option found to get")


def command_line(session: Session, request: Request) -> Parts:  # noqa: ARG001
    """Answer ``getCmdLineOpts``."""
    request.check("")
    return parts({"argv": ["dstore", "mongo", "serve"], "parsed": {}})


def get_log(session: Session, request: Request) -> Parts:  # noqa: ARG001
    """Answer ``getLog``: there is none."""
    request.check("")
    if request.own[:1] == b"\x02" and raw.text_of(request.own[1:]) == b"*":
        return parts({"names": ["global", "startupWarnings"]})
    return parts({"totalLinesWritten": 0, "log": []})


def whats_my_uri(session: Session, request: Request) -> Parts:
    """Answer ``whatsmyuri``."""
    request.check("")
    return parts({"you": session.peer})


def start_session(session: Session, request: Request) -> Parts:
    """Answer ``startSession``: sessions need no keeping, since nothing is written in them."""
    request.check("")
    identifier = bytearray(session.service.clock.random(16))
    identifier[6], identifier[8] = identifier[6] & 0x0F | 0x40, identifier[8] & 0x3F | 0x80
    return [
        b"\x03id\0" + joined([binary("id", bytes(identifier), _UUID)]),
        *parts({"timeoutMinutes": 30}),
    ]


def explain(session: Session, request: Request) -> Parts:  # noqa: ARG001
    """Refuse ``explain`` by name, with what it was to explain."""
    inner = fields(document_value(request.own[1:])) if request.own[:1] == b"\x03" else []
    what = inner[0][0].decode("utf-8", "replace") if inner else "nothing"
    raise QueryError(
        Failure.CommandNotSupported,
        f"explain (of {what}) is not supported by this read-only server: it looks up _id and "
        "reads everything else through",
    )
