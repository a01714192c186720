"""`mesh service`."""

from __future__ import annotations

import sys

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable

_NAMED_TYPES = 2
"""Of what can be done with a service, in a line of the list."""

_TYPES = {
    "22": "ssh", "80": "http", "443": "http", "1433": "mssql", "3306": "mysql", "3389": "rdp", "5432": "postgresql",
    "5900": "vnc", "6443": "kubernetes", "9200": "elasticsearch", "26257": "cockroachdb", "27017": "mongodb",
}  # fmt: skip
"""What is usually behind a TCP port."""


def _list(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("usage: mesh service list")
    services = client.json("GET", "services")
    tailnet = client.status(peers=False).get("CurrentTailnet") or {}
    suffix = str(tailnet.get("MagicDNSSuffix") or "").strip(".")
    entries = [
        {**(details or {}), "Hostname": _host_name(name, suffix)} for name, details in sorted((services or {}).items())
    ]
    if flags.on("json"):
        out_json(entries, 2)
        return
    if not entries:
        out("No services are available to this node.")
        return
    rows = [[" IP", "HOSTNAME", "DISPLAY NAME", "ENDPOINTS", "TYPE"]]
    for entry in entries:
        address = str((entry.get("Addrs") or ["-"])[0])
        words = [entry["Hostname"], entry.get("DisplayName"), ", ".join(map(str, entry.get("Ports") or []))]
        rows.append([f" {address}", *(printable(word or "-") for word in words), printable(_types(entry))])
    out()
    sys.stdout.write(columns(rows, padding=5, minimum=10, trailing=True))


def _host_name(name: str, suffix: str) -> str:
    label = name.removeprefix("svc:")
    return f"{label}.{suffix}" if label and suffix else ""


def _types(service: JSON) -> str:
    """What can be done with a service: what it says, or else what its ports are usually for."""
    said = [str(action.get("Type") or "") for action in service.get("Actions") or []]
    usual = [_TYPES.get(str(port).removeprefix("tcp:"), "") for port in service.get("Ports") or []]
    types = list(dict.fromkeys(kind for kind in said or usual if kind))
    others = len(types) - _NAMED_TYPES
    tail = [f"{others} other{'s' if others > 1 else ''}"] if others > 0 else []
    return ", ".join(types[:_NAMED_TYPES] + tail) or "-"


LIST = Command(
    "list",
    usage="mesh service list",
    short="List the services of the network that this node may use",
    flags=[Flag("json", BOOL, False, "print JSON")],
    run=_list,
)

COMMAND = Command(
    "service",
    usage="mesh service list [--json]",
    short="Show the services of the network",
    long="A service has addresses of its own; the policy of the network says who may use it.",
    parts=[Part("list", LIST.short, "service_command", "LIST")],
)
