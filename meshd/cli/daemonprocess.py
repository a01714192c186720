"""Looking for a daemon among the processes of this machine, when its socket does not answer."""

from __future__ import annotations

import os
from typing import NamedTuple

NAMES = frozenset({"meshd", "tailscaled"})
STARTING_S = 10.0
"""A daemon that has run for longer than this listens, or never will."""


class DaemonProcess(NamedTuple):
    name: str
    pid: int
    age_s: float

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}"


def find_daemons() -> list[DaemonProcess]:
    """The daemons that run; none where /proc says nothing."""
    try:
        with open("/proc/uptime", encoding="ascii") as file:
            uptime_s = float(file.read().split()[0])
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except (OSError, ValueError, IndexError):
        return []
    found = (_daemon(int(process), uptime_s) for process in processes)
    return [process for process in found if process is not None]


def daemon_is_starting() -> bool:
    """Whether a daemon was started so recently that its socket may still come."""
    return any(process.age_s < STARTING_S for process in find_daemons())


def _daemon(pid: int, uptime_s: float) -> DaemonProcess | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None  # it has ended meanwhile
    name = text[text.find("(") + 1 : text.rfind(")")]
    fields = text[text.rfind(")") + 1 :].split()
    # proc_pid_stat(5): state is the third field, starttime in clock ticks since boot the 22nd.
    if name not in NAMES or len(fields) < 20 or fields[0] == "Z":
        return None
    return DaemonProcess(name, pid, uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
