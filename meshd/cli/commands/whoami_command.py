"""`mesh whoami`."""

from __future__ import annotations

from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.commands.whois_command import print_identity
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed


def _run(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("too many arguments, expected none")
    status = client.status(peers=False)
    addresses = status.get("TailscaleIPs") or []
    if not addresses:
        raise CliError(f"no current Tailscale IP address; state: {status.get('BackendState')}")
    found = client.json("GET", "whois?addr=" + quote(addresses[0], safe=""))
    print_identity(found, as_json=flags.on("json"), tailnet=status.get("CurrentTailnet"))


COMMAND = Command(
    "whoami",
    usage="mesh whoami [--json]",
    short="Show the machine and user that this node is",
    long='The same as "mesh whois" with an address of this machine.',
    flags=[Flag("json", BOOL, False, "print JSON")],
    run=_run,
)
