"""`mesh dns`."""

from __future__ import annotations

from meshd.cli.command import Command, Part

COMMAND = Command(
    "dns",
    usage="mesh dns status [--all] [--json]\nmesh dns query [--json] <name> [type]",
    short="Diagnose the DNS of the mesh",
    parts=[
        Part("status", "Print the DNS status and configuration", "dnsstatus_command"),
        Part("query", "Ask the resolver of meshd", "dnsquery_command"),
    ],
)
