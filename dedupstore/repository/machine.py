"""Which machine and process this is, as a session object tells it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PID_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Machine:
    """A process, told apart from others and from itself after a reboot."""

    host: str
    boot: str
    """Boot id and pid namespace: a pid means something only where both are the same."""
    pid: int

    @classmethod
    def here(cls) -> Self:
        """Describe the calling process."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
            machine = Path("/etc/machine-id").read_text("ascii").strip()
            boot = f"{boot} {os.readlink('/proc/self/ns/pid')} {machine}"
        except OSError:
            boot = ""
        return cls(os.uname().nodename, boot, os.getpid())

    def knows_dead(self, host: str, boot: str, pid: int) -> bool:
        """Say whether that process is surely over: it ran here, and before a reboot or under a free pid."""
        if host != self.host or not boot or not self.boot or not 0 < pid <= _PID_MAX:
            return False
        theirs, ours = boot.split(" "), self.boot.split(" ")
        if theirs[0] != ours[0]:  # before a reboot, if it was this machine and not one of the same name
            return len(theirs) == len(ours) == 3 and theirs[2] == ours[2]
        if boot != self.boot:  # a container beside this one: its pids are not ours to ask for
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
