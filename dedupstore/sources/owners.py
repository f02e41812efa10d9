"""Whose the entries of a source are: what every source on this system says in the same way."""

import grp
import os
import pwd
from collections.abc import Sequence
from datetime import datetime

from dedupstore.ids import TreeId


class Owners:
    """Names of numeric owners, asked of the system once each (the answer may come over a network)."""

    def __init__(self) -> None:
        self._users: dict[int, bytes | None] = {}
        self._groups: dict[int, bytes | None] = {}

    def user_name(self, uid: int) -> bytes | None:
        """Return a user's name, or ``None`` if the number has none."""
        if uid not in self._users:
            try:
                self._users[uid] = os.fsencode(pwd.getpwuid(uid).pw_name)
            except (KeyError, OverflowError):
                self._users[uid] = None
        return self._users[uid]

    def group_name(self, gid: int) -> bytes | None:
        """Return a group's name, or ``None`` if the number has none."""
        if gid not in self._groups:
            try:
                self._groups[gid] = os.fsencode(grp.getgrgid(gid).gr_name)
            except (KeyError, OverflowError):
                self._groups[gid] = None
        return self._groups[gid]


class OwnedSource:
    """The part of `dedupstore.sources.base.Source` that is the same wherever owners are those of this system.

    A source that has a log, a moment or earlier trees says so itself.
    """

    adopts: Sequence[TreeId] = ()

    def __init__(self) -> None:
        self._owners = Owners()

    def position(self) -> bytes | None:
        """Nothing: there is no log."""
        return None

    def instant(self) -> datetime | None:
        """Nothing: what is read is of the moment when it is read."""
        return None

    def user_name(self, uid: int) -> bytes | None:
        """Name of a numeric owner."""
        return self._owners.user_name(uid)

    def group_name(self, gid: int) -> bytes | None:
        """Name of a numeric group."""
        return self._owners.group_name(gid)
