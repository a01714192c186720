"""`mesh logout`."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.flags import STRING, Flag, Parsed
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    client.reason = flags.text("reason")
    client.call("POST", "logout")


COMMAND = Command(
    "logout",
    usage="mesh logout",
    short="Disconnect and expire the node key",
    long="Brings the mesh down and makes the node key invalid: coming back needs a new login.",
    flags=[Flag("reason", STRING, "", "reason for the logout, if a policy asks for one")],
    run=_run,
)
