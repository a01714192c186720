"""How many files and connections this process may have open."""

from __future__ import annotations

import resource

RESERVED_DESCRIPTORS = 128
"""Kept free of connections, for the state and its administration."""


def descriptors_for(wanted: int) -> int:
    """How many connections the process may have, ``wanted`` at most, after raising its limit as far as it may.

    The limit that a process begins with, often 1024, is for old programs that cannot count further.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_DESCRIPTORS))
