"""How many threads carry packets in each direction."""

from __future__ import annotations

import os
from collections.abc import Mapping

from meshd.base.errors import MeshdError

MAX_QUEUES = 8  # of the data plane
VARIABLE = "MESHD_QUEUES"


def packet_queues(environment: Mapping[str, str] = os.environ, cpus: int | None = None) -> int:
    """TUN queues, and UDP sockets of each family: ``MESHD_QUEUES``, else by the CPUs this process may use.

    Up to three CPUs one thread each way uses them well; from four on every other CPU has one of each, which leaves
    the rest to the kernel and to programs. Raises MeshdError "usage" for a value that is no number from 1 to 8.
    """
    wanted = environment.get(VARIABLE, "")
    if wanted:
        if not (wanted.isascii() and wanted.isdigit() and len(wanted) <= 5 and 1 <= int(wanted) <= MAX_QUEUES):
            raise MeshdError(
                f"{VARIABLE}={wanted}: expected a number from 1 to {MAX_QUEUES}",
                code="usage",
                hint=f"Unset {VARIABLE} to let meshd choose by the number of CPUs.",
            )
        return int(wanted)
    if cpus is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if cpus < 4 else min(cpus // 2, MAX_QUEUES)
