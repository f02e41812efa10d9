"""What this process is called by others: user and host."""

import getpass
import os
import socket


def user_name() -> str:
    """Return the user's name, or number where it has none (as in many containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def host_name() -> str:
    """Return this machine's name."""
    return socket.gethostname()
