"""Running the host's programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from meshd.base.errors import MeshdError

SECONDS = 10
# Of a kernel or host that is busy: the same command may well work in a minute.
_PASSING = ("timed out", "temporarily", "buffer space", "cannot allocate", "interrupted system call")

Run = Callable[[Sequence[str], str], str]


def run_program(command: Sequence[str], text: str) -> str:
    """Run a program with ``text`` as its input; its output. Raises MeshdError with the first line of complaint.

    Bytes that are no UTF-8, such as a comment of somebody's iptables rule, come as surrogates and go back as they were.
    """
    given = text.encode(errors="surrogateescape")
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeshdError(f"{command[0]} failed: {error}", code="host") from None
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip()
        reason = (complaint or f"exit status {done.returncode}").splitlines()[0]
        raise MeshdError(f"{command[0]} failed: {reason}", code="host")
    return done.stdout.decode(errors="surrogateescape")


def may_pass(reason: str) -> bool:
    """Whether a program failed for a reason that says nothing about what this host can do."""
    return any(words in reason.lower() for words in _PASSING)
