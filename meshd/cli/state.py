"""What a backend state means to a person."""

from __future__ import annotations

from meshd.cli.client import JSON
from meshd.cli.errors import Exit
from meshd.cli.output import out, printable

WORKING = ("Running", "Starting")

STATES = {
    0: "NoState",
    1: "InUseOtherUser",
    2: "NeedsLogin",
    3: "NeedsMachineAuth",
    4: "Stopped",
    5: "Starting",
    6: "Running",
}
"""The names of the numbers in notifies."""


def describe(status: JSON) -> str:
    """One or two lines on a node that is not running."""
    state = status.get("BackendState")
    if state == "Stopped":
        return "meshd is stopped."
    if state == "NeedsLogin":
        url = status.get("AuthURL")
        return f"Logged out.\nLog in at: {printable(url)}" if url else "Logged out."
    if state == "NoState":
        return "meshd has not joined its network yet."
    if state == "NeedsMachineAuth":
        return "Machine is not yet approved by the admin of the network."
    return str(state) if state in WORKING else f"unexpected state: {printable(state)}"


def require_running(status: JSON) -> None:
    """Say why and end with exit code 1 unless the node is up or about to be."""
    if status.get("BackendState") not in WORKING:
        out(describe(status))
        raise Exit(1)


def no_arguments(args: list[str]) -> None:
    """CliError for arguments to a command that takes none."""
    if args:
        from meshd.cli.errors import CliError

        words = " ".join('"' + arg + '"' for arg in args)
        raise CliError(f"too many non-flag arguments: [{words}]")
