"""Servers that a repository has snapshots or slices of the log of, and how one of them is named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dedupstore.documents.slices import KIND as LOG_KIND
from dedupstore.documents.timeline import lineage
from dedupstore.errors import NotFoundError, UsageError
from dedupstore.tree.select import Entry

KIND = "mongo"


@dataclass(frozen=True, slots=True)
class Server:
    """A replica set or a single server."""

    lineage: str
    """What its snapshots and slices have in common."""
    set_name: str
    """Empty where it is no replica set."""
    uri: str
    """As it was last given, without user and password."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts with ports, as the URI has them."""
        place = self.uri.partition("://")[2].partition("/")[0]
        return tuple(place.split(",")) if place else ()

    def answers_to(self, text: str) -> bool:
        """Say whether it is meant by the beginning of a name."""
        return any(name.startswith(text) for name in (self.set_name, *self.hosts, self.uri) if name)

    def __str__(self) -> str:
        place = ",".join(self.hosts)
        return f"{self.set_name} ({place})" if self.set_name else place


def servers_in(entries: Iterable[Entry]) -> list[Server]:
    """Return the servers that these snapshots are of, in order of their names."""
    found: dict[str, Server] = {}
    for _, snapshot in entries:
        spec = snapshot.source
        if spec.kind in {KIND, LOG_KIND}:
            name = lineage(spec)
            found[name] = Server(name, spec.options.get("set", ""), spec.options.get("uri", ""))
    return [found[name] for name in sorted(found)]


def server_named(servers: Sequence[Server], text: str) -> Server:
    """Return the one server whose set's or host's name begins so; raises `NotFoundError`, `UsageError`."""
    exact = [server for server in servers if text in {server.set_name, server.uri, *server.hosts}]
    fitting = exact or [server for server in servers if server.answers_to(text)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"--server {text} could be {shown_servers(fitting)}: write more of its name")
    if not servers:
        raise NotFoundError(
            "this repository has no snapshot of a server: take one with `dstore snapshot --mongo URI`"
        )
    raise NotFoundError(f"no server here is called {text}: there is {shown_servers(servers)}")


def shown_servers(servers: Sequence[Server]) -> str:
    """Return their names in one line."""
    return " or ".join(map(str, servers))
