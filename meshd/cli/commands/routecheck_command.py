"""`mesh routecheck`."""

from __future__ import annotations

import json
import sys

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import ApiError, CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.output import columns, json_text, out, out_json, printable
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
    routes = _choices(report.get("reachable") or [])
    if style == "json":
        out_json({"done": report.get("done"), "routes": routes})
    elif style:
        out(json_text(json.dumps({"done": report.get("done"), "routes": routes}, separators=(",", ":"))))
    else:
        when = str(report.get("done") or "")[:19].replace("T", " ")
        out(f"\nReachable routers at {printable(when)}Z:\n")
        rows = [[" PREFIX", "IP", "HOSTNAME"]]
        for prefix, nodes in routes.items():
            for node in sorted(nodes, key=lambda n: str(n.get("name"))):
                name = str(node.get("name") or "").rstrip(".")
                rows.append([f" {printable(prefix)}", printable(node.get("addr")), printable(name)])
        sys.stdout.write(columns(rows, padding=5, minimum=10))


def _choices(nodes: list[JSON]) -> dict[str, list[JSON]]:
    """The routers of every route that has several: one alone leaves no choice."""
    routes: dict[str, list[JSON]] = {}
    for node in sorted(nodes, key=lambda n: int(n.get("id") or 0)):
        for prefix in node.get("routes") or []:
            routes.setdefault(str(prefix), []).append(node)
    return {prefix: found for prefix, found in sorted(routes.items()) if len(found) > 1}


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
