"""`mesh routecheck`."""

from __future__ import annotations

import json
import sys

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import ApiError, CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable
from meshd.cli.progress import progress
from meshd.cli.state import no_arguments

_FORMATS = ("", "json", "json-line")


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    style = "json" if flags.on("json") else flags.text("format")
    if style not in _FORMATS:
        raise CliError(f'unknown output format "{style}"')
    try:
        with progress("probing routers"):
            answer = client.call("POST", "routecheck" + ("?probe=true" if flags.on("probe") else ""))
    except ApiError as error:
        raise CliError(f"routecheck: {error.message}") from None
    report = json.loads(answer.body) if answer.body.strip() else None
    if not isinstance(report, dict):
        raise CliError("routecheck: report unavailable")
    # A route with one router leaves no choice.
    routes = {prefix: nodes for prefix, nodes in sorted((report.get("Routes") or {}).items()) if len(nodes or []) > 1}
    if style == "json":
        out_json({"Done": report.get("Done"), "Routes": routes})
    elif style:
        out(json.dumps({"Done": report.get("Done"), "Routes": routes}, separators=(",", ":")))
    else:
        out(f"\nReachable routers at {printable(report.get('Done'))}:\n")
        rows = [[" PREFIX", "IP", "HOSTNAME"]]
        for prefix, nodes in routes.items():
            for node in sorted(nodes, key=lambda n: str(n.get("Name"))):
                name = str(node.get("Name") or "").rstrip(".")
                rows.append([f" {printable(prefix)}", printable(node.get("Addr")), printable(name)])
        sys.stdout.write(columns(rows, padding=5, minimum=10))


COMMAND = Command(
    "routecheck",
    usage="mesh routecheck [--probe]",
    short="Show which routers of the same routes can be reached",
    flags=[
        Flag("format", STRING, "", 'output format: "json", "json-line", or nothing for text'),
        Flag("json", BOOL, False, "print JSON"),
        Flag("probe", BOOL, False, "probe now"),
    ],
    run=_run,
)
