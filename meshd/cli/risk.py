"""Asking before an action that may cut the branch one sits on."""

from __future__ import annotations

import os
import sys

from meshd.cli.errors import CliError
from meshd.cli.nodes import canonical_ip
from meshd.cli.output import out

LOSE_SSH = "lose-ssh"

_ULA = "fd7a:115c:a1e0:"


def connected_through_mesh() -> bool:
    """Whether this shell belongs to an SSH session that came in over the mesh."""
    client = canonical_ip(os.environ.get("SSH_CLIENT", "").partition(" ")[0]) or ""
    if ":" in client:
        return client.startswith(_ULA)
    first, _, rest = client.partition(".")
    return first == "100" and 64 <= int(rest.partition(".")[0]) < 128


def confirm(message: str, accepted: str, risk: str = LOSE_SSH) -> None:
    """Go on only when the risk is in `accepted` (a comma-separated list) or the user says yes."""
    words = accepted.split(",")
    if risk in words or "all" in words:
        return
    out(message)
    out(f"To skip this question, use --accept-risk={risk}")
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stdout.write("Continue? [y/N] ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise CliError("aborted, no changes made")
