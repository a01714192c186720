"""`mesh down`."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError, NotRunning
from meshd.cli.flags import STRING, Flag, Parsed
from meshd.cli.output import err
from meshd.cli.prefsflags import ACCEPT_RISK
from meshd.cli.risk import confirm, connected_through_mesh
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    if connected_through_mesh():
        confirm("This will bring the mesh down, and your SSH session with it.", flags.text("accept-risk"))
    try:
        status = client.status(peers=False)
    except NotRunning as error:
        raise CliError(f"error fetching current status: {error.message}") from None
    if status.get("BackendState") == "Stopped":
        err("meshd was already stopped.\n")
        return
    client.reason = flags.text("reason")
    client.edit_prefs({"WantRunning": False, "WantRunningSet": True})


COMMAND = Command(
    "down",
    usage="mesh down",
    short="Disconnect from the mesh",
    flags=[ACCEPT_RISK, Flag("reason", STRING, "", "reason for the disconnect, if a policy asks for one")],
    run=_run,
)
