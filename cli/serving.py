"""``mongo serve`` at work: what it serves, what it tells, and who may ask."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dedupstore.clock import SYSTEM_CLOCK
from dedupstore.documents.view import CollectionView, View
from dedupstore.errors import UsageError
from dedupstore.ops.export.prelude import version_in
from dedupstore.server.mongowire.cursors import Cursors
from dedupstore.server.mongowire.listener import Listener, parse_address, tls_context
from dedupstore.server.mongowire.scram import Credential
from dedupstore.server.mongowire.service import Service, Version
from dedupstore.sources.oplog.position import Ts

from . import interrupt
from .context import Front
from .exitcodes import DONE, status_of_findings
from .render import counted
from .secrets import ask, passphrase_file
from .views import Asked, Seen, open_view
from .whoami import host_name

PASSWORD_VARIABLE = "DSTORE_SERVE_PASSWORD"  # noqa: S105 - its name


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What the command line says."""

    asked: Asked
    listen: str
    db: str | None = None
    collection: str | None = None
    user: str | None = None
    password_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Narrowed:
    """A view of which only some collections are there; see `dedupstore.documents.view.View`."""

    def __init__(self, view: View, wants: Callable[[str, str], bool]) -> None:
        self._view = view
        self._wants = wants

    @property
    def at(self) -> Ts | None:
        """As of the whole."""
        return self._view.at

    def collections(self) -> Sequence[CollectionView]:
        """Return those that are there."""
        return [one for one in self._view.collections() if self._wants(one.info.db, one.info.name)]

    def find(self, db: str, name: str) -> CollectionView | None:
        """Return one of them."""
        return self._view.find(db, name) if self._wants(db, name) else None

    def close(self) -> None:
        """Close the whole."""
        self._view.close()


def run_serve(front: Front, request: ServeRequest) -> int:
    """Serve until a signal asks to stop; return the exit status. Raises as `open_view` and `Listener` do."""
    host, port = parse_address(request.listen)
    if request.collection is not None and request.db is None:
        raise UsageError("--collection is of one database: name it by --db")
    if request.key is not None and request.certificate is None:
        raise UsageError("--tls-key belongs to a certificate: name it by --tls-cert")
    tls = None if request.certificate is None else tls_context(request.certificate, request.key)
    credential = _credential(request)
    with front.repository() as repository:
        repository.sync()
        with open_view(front, repository, request.asked) as seen:
            view = _view(seen, request)
            service = Service(
                view,
                Version.of(version_in(repository, seen.snapshot)),
                SYSTEM_CLOCK,
                Cursors(SYSTEM_CLOCK),
                credential,
                host=host_name(),
            )
            listener = Listener(service, host, port, tls=tls)
            with interrupt.asking(listener.stop):
                _tell(front, seen, view, listener, plain=tls is None)
                listener.run()
        front.output.remark("stopped")
        doubts = front.doubts(repository, request.asked.wanted)
    return status_of_findings(doubts) if doubts else DONE


def _view(seen: Seen, request: ServeRequest) -> View:
    db, name = request.db, request.collection
    if db is None:
        return seen.view
    view = Narrowed(seen.view, lambda one, two: one == db and name in {None, two})
    if not view.collections():
        what = db if name is None else f"{db}.{name}"
        raise UsageError(f"there is no {what} in the {seen.sentence}: leave --db out to see what there is")
    return view


def _tell(front: Front, seen: Seen, view: View, listener: Listener, *, plain: bool) -> None:
    collections = len(view.collections())
    front.output.event(
        "listening",
        {
            "address": listener.address,
            "uri": f"mongodb://{listener.address}/?directConnection=true",
            "tls": not plain,
            "collections": collections,
            **seen.fields,
        },
    )
    if not listener.local and plain:
        front.say("what is read goes over the network as it is: give --tls-cert to have it encrypted")
    front.output.remark(
        f"serving {counted(collections, 'collection')}, read-only, at mongodb://{listener.address}/"
        f"?directConnection=true; {seen.sentence}"
    )
    front.output.flush()


def _credential(request: ServeRequest, environ: Mapping[str, str] = os.environ) -> Credential | None:
    """Return who may ask; the password comes from a file, the environment, or a prompt."""
    if request.user is None:
        if request.password_file is not None:
            raise UsageError("--user-password-file is of a user: name one by --user")
        return None
    if request.password_file is not None:
        found = passphrase_file(request.password_file).text
    elif PASSWORD_VARIABLE in environ:
        found = os.fsencode(environ[PASSWORD_VARIABLE])
    else:
        found = ask(f"Password for {request.user}: ", _NO_PASSWORD).text
    try:
        return Credential.of(request.user, found.decode(), SYSTEM_CLOCK.random)
    except UnicodeDecodeError as error:
        raise UsageError("the password for --user is no UTF-8: choose another one") from error


_NO_PASSWORD = f"no password for --user: give --user-password-file, or set {PASSWORD_VARIABLE}"
