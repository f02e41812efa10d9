"""Names of the numeric owners of files."""

import grp
import os
import pwd


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
