"""A MongoDB URI: what may be shown of it, and the same URI for one node alone.

The whole URI, with user and password, stays in this object: it is in no message, no ``repr`` and no spec.
"""

from urllib.parse import quote

from pymongo import errors
from pymongo.uri_parser import parse_uri

from dedupstore.errors import SourceError, UsageError
from dedupstore.sources.mongo.failures import bad_uri

_SRV = "mongodb+srv://"
_PLAIN = "mongodb://"
_OF_SETS = frozenset(
    {
        "directconnection", "replicaset", "readpreference", "readpreferencetags", "maxstalenessseconds",
        "localthresholdms", "loadbalanced", "srvservicename", "srvmaxhosts",
    }
)  # fmt: skip
"""Options that make no sense for a connection to one node."""


class Address:
    """Where a deployment is. Immutable.

    Raises `UsageError` for a URI that can not be read, `SourceError` if the name of a ``mongodb+srv`` URI
    can not be looked up.
    """

    def __init__(self, uri: str) -> None:
        if not uri.startswith((_SRV, _PLAIN)):
            raise bad_uri()
        self._uri = uri
        try:
            # An option that is misspelt is refused: it might be the one that asks for TLS.
            parsed = parse_uri(uri, warn=False)
        except (errors.PyMongoError, ValueError) as error:
            # What it says may quote the password.
            if isinstance(error, errors.ConfigurationError) and uri.startswith(_SRV):
                raise SourceError(
                    "the name in the mongodb+srv URI can not be looked up: check it and the name server"
                ) from None
            raise (_bad_option(uri) or bad_uri()) from None
        self._options: dict[str, object] = dict(parsed["options"])
        self.hosts: tuple[str, ...] = tuple(sorted(host_text(*node) for node in parsed["nodelist"]))
        """``host:port`` or a socket's path, sorted."""
        self.srv_name: str = parsed["fqdn"] or ""
        self.set_name = str(self._options.get("replicaSet") or "")
        """The replica set that the URI asks for, if it does."""

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @property
    def uri(self) -> str:
        """All of it, secrets included: for the driver only."""
        return self._uri

    @property
    def shown(self) -> str:
        """The URI without user, password and options but the set's name: for messages and specs."""
        place = _SRV + self.srv_name if self.srv_name else _PLAIN + ",".join(map(_in_uri, self.hosts))
        return f"{place}/?replicaSet={quote(self.set_name)}" if self.set_name else place

    def has(self, option: str) -> bool:
        """Whether the URI has an option, by the name that the driver's documentation gives it."""
        return option.lower() in {name.lower() for name in self._options}

    @property
    def load_balanced(self) -> bool:
        """Whether there is a load balancer between us and the servers: no node can be chosen then."""
        return self._options.get("loadBalanced") is True

    @property
    def single(self) -> bool:
        """Whether it is of one node, asked for as such."""
        return self._options.get("directConnection") is True and len(self.hosts) == 1

    def of_node(self, host: str) -> str:
        """Return the URI, secrets included, of one node (``host:port``) with the same credentials and TLS."""
        rest = self._uri.partition("://")[2]
        ends = [at for at in (rest.find("/"), rest.find("?")) if at >= 0]
        authority, tail = (rest[: min(ends)], rest[min(ends) :]) if ends else (rest, "")
        user, at, _ = authority.rpartition("@")
        path, _, query = tail.partition("?")
        kept = [
            item
            for item in query.replace(";", "&").split("&")
            if item and item.partition("=")[0].lower() not in _OF_SETS
        ]
        if self.srv_name:
            given = {item.partition("=")[0].lower() for item in kept}
            if not given & {"tls", "ssl"}:
                kept.append("tls=true")
            source = self._options.get("authSource")
            if source and "authsource" not in given:
                kept.append(f"authSource={quote(str(source), safe='')}")
        kept.append("directConnection=true")
        return f"{_PLAIN}{user}{at}{_in_uri(host)}{path or '/'}?{'&'.join(kept)}"


def host_text(host: str, port: int | None) -> str:
    """Return a node as ``host:port``, an IPv6 address in brackets, a socket as its path."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _in_uri(host: str) -> str:
    return quote(host, safe="") if host.startswith("/") else host


def _bad_option(uri: str) -> UsageError | None:
    """Return the error that names the option for which a URI can not be read, if the rest can be.

    Not where an ``@`` follows: then the question mark may be one in a password.
    """
    whole, _, query = uri.partition("?")
    if "@" in query or not _reads(whole):
        return None
    for item in query.split("&"):
        name = item.partition("=")[0]
        if name.isalpha() and name.isascii() and not _reads(f"{whole}?{item}"):
            return UsageError(
                f"the MongoDB URI has an option {name} that is unknown, or not of that value: check it"
            )
    return None


def _reads(uri: str) -> bool:
    try:
        parse_uri(uri, warn=False)
    except (errors.PyMongoError, ValueError):
        return False
    return True


def parse_address(uri: str) -> Address:
    """Return the address; see `Address`."""
    if not isinstance(uri, str) or not uri:
        raise UsageError("no MongoDB URI was given: write it as mongodb://HOST:PORT/")
    return Address(uri)
