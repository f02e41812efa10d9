"""Where a MongoDB server is, with user and password: from an option or, better, from the environment."""

import os
from collections.abc import Mapping
from urllib.parse import unquote

from dedupstore.errors import UsageError

from .mongooptions import URI_VARIABLE
from .render import note

FROM_ENVIRONMENT = "-"


def mongo_uri(given: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URI; raises `UsageError` if nothing says it.

    A password on the command line can be read by everybody on this machine, so that is said.
    """
    if given is None or given == FROM_ENVIRONMENT:
        found = environ.get(URI_VARIABLE, "")
        if not found:
            raise UsageError(f"no server was named: give its URI, or set {URI_VARIABLE}")
        return found
    if not given:
        raise UsageError("an empty URI names nothing (an unset variable?): write mongodb://HOST:PORT/")
    if has_password(given):
        note(
            "everybody on this machine can see the password in this command line: "
            f"put the URI into {URI_VARIABLE} and write - for it"
        )
    return given


def has_password(uri: str) -> bool:
    """Say whether a URI holds a password."""
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    user = authority.rpartition("@")[0]
    return bool(unquote(user.partition(":")[2]))
