"""`mesh ip`."""

from __future__ import annotations

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_node
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.nodes import address_of, node_with_ip
from meshd.cli.output import out


def _run(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) > 1:
        raise CliError("too many arguments, expected at most one peer")
    if sum(flags.on(name) for name in ("1", "4", "6")) > 1:
        raise CliError("mesh ip -1, -4, and -6 are mutually exclusive")
    status = client.status(peers=bool(flags.args))
    addresses: list[str] = status.get("TailscaleIPs") or []
    if wanted := flags.text("assert"):
        if wanted in addresses:
            return
        raise CliError(f'assertion failed: IP "{wanted}" not found among [{" ".join(addresses)}]')
    if flags.args:
        ip, _ = address_of(client, status, flags.args[0])
        node = node_with_ip(status, ip)
        if node is None:
            raise CliError(f"no peer found with IP {ip}")
        addresses = node.get("TailscaleIPs") or []
    if not addresses:
        raise CliError(f"no current Tailscale IPs; state: {status.get('BackendState')}")
    if flags.on("1"):
        addresses = addresses[:1]
    if flags.on("4") or flags.on("6"):
        addresses = [ip for ip in addresses if (":" in ip) == flags.on("6")]
        if not addresses:
            raise CliError(f"no mesh IPv{'6' if flags.on('6') else '4'} address")
    for ip in addresses:
        out(ip)


COMMAND = Command(
    "ip",
    usage="mesh ip [-1] [-4] [-6] [peer name or address]",
    short="Show mesh IP addresses",
    long="Shows the addresses of a peer, or of this machine when none is named.",
    flags=[
        Flag("1", BOOL, False, "print one address only"),
        Flag("4", BOOL, False, "print the IPv4 address only"),
        Flag("6", BOOL, False, "print the IPv6 address only"),
        Flag("assert", STRING, "", "print nothing, and fail unless this machine has this address"),
    ],
    run=_run,
    complete=complete_node,
)
