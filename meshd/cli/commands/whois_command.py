"""`mesh whois`."""

from __future__ import annotations

import sys

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import ApiError, CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable

_DISPLAY_NAME = "tailnet-display-name"
"""Node attribute with the name of the network."""


def _run(client: LocalClient, flags: Parsed) -> None:
    from urllib.parse import quote

    if not flags.args:
        raise CliError("missing argument, expected one peer")
    if len(flags.args) > 1:
        raise CliError("too many arguments, expected at most one peer")
    route = f"whois?addr={quote(flags.args[0], safe='')}"
    if flags.text("proto"):
        route += f"&proto={quote(flags.text('proto'), safe='')}"
    try:
        found = client.json("GET", route)
    except ApiError as error:
        if error.status == 404:
            raise CliError("peer not found") from None
        raise
    print_identity(found, as_json=flags.on("json"))


def print_identity(found: JSON, *, as_json: bool, tailnet: JSON | None = None) -> None:
    """Print an answer of the whois route, and the network where it is given."""
    if as_json:
        out_json(found | ({"CurrentTailnet": tailnet} if tailnet else {}), 2)
        return
    _print_node(found)
    if tailnet:
        out("Tailnet:")
        rows = [["  Name:", _tailnet_name(found, tailnet)], ["  MagicDNS Suffix:", _word(tailnet, "MagicDNSSuffix")]]
        sys.stdout.write(columns(rows, padding=5, minimum=10))
    _print_capabilities(found.get("CapMap") or {})


def _word(values: JSON, name: str) -> str:
    return printable(values.get(name) or "")


def _tailnet_name(found: JSON, tailnet: JSON) -> str:
    """The name that the network wants to be shown by, else its own."""
    shown = ((found.get("Node") or {}).get("CapMap") or {}).get(_DISPLAY_NAME) or []
    return printable(shown[0]) if shown and isinstance(shown[0], str) else _word(tailnet, "Name")


def _print_node(found: JSON) -> None:
    node, user = found.get("Node") or {}, found.get("UserProfile") or {}
    allowed = node.get("AllowedIPs") or []
    machine = [
        ["  Name:", printable(str(node.get("Name") or "").removesuffix("."))],
        ["  ID:", printable(node.get("StableID") or "")],
        ["  Addresses:", f"[{' '.join(node.get('Addresses') or [])}]"],
    ]
    if len(allowed) > 2:
        machine.append(["  AllowedIPs:", f"[{' '.join(allowed[2:])}]"])
    if node.get("Tags"):
        machine.append(["  Tags:", printable(", ".join(node["Tags"]))])
    out("Machine:")
    sys.stdout.write(columns(machine, padding=5, minimum=10))
    if not node.get("Tags"):
        out("User:")
        rows = [["  Name:", printable(user.get("LoginName") or "")], ["  ID:", str(user.get("ID") or 0)]]
        sys.stdout.write(columns(rows, padding=5, minimum=10))


def _print_capabilities(capabilities: JSON) -> None:
    if not capabilities:
        return
    import json

    out("Capabilities:")
    for name, values in capabilities.items():
        out(f"  - {printable(name)}" + (":" if values else ""))
        if values:
            out("      " + json.dumps(values, indent=2, ensure_ascii=True).replace("\n", "\n      "))


COMMAND = Command(
    "whois",
    usage="mesh whois [--json] ip[:port]",
    short="Show the machine and user behind a mesh address",
    flags=[
        Flag("json", BOOL, False, "print JSON"),
        Flag("proto", STRING, "", 'protocol of the port, "tcp" or "udp"; nothing for both'),
    ],
    run=_run,
)
