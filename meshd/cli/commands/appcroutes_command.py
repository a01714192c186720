"""`mesh appc-routes`."""

from __future__ import annotations

import json
import sys

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import columns, out, out_json, printable
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    prefs = client.prefs()
    if not (prefs.get("AppConnector") or {}).get("Advertise"):
        out("not a connector")
        return
    if flags.on("n"):
        out(str(len(prefs.get("AdvertiseRoutes") or [])))
        return
    routes = client.json("GET", "appc-route-info") or {}
    domains = routes.get("Domains") or {}
    if flags.on("map"):
        out(json.dumps(domains, separators=(",", ":")))
    elif flags.on("all"):
        out("Learned Routes\n==============")
        out_json(domains, 2)
        out("\nRoutes from Policy\n==================")
        out_json(routes.get("Control") or [], 2)
    else:
        counts = sorted(((-len(found or []), name) for name, found in domains.items()))
        sys.stdout.write(columns([[printable(name), str(-count)] for count, name in counts], padding=1))


COMMAND = Command(
    "appc-routes",
    usage="mesh appc-routes",
    short="Show the routes of this app connector",
    long="Shows how many routes have been learned for every domain of this app connector.",
    flags=[
        Flag("all", BOOL, False, "print the learned routes, and those of the policy"),
        Flag("map", BOOL, False, "print the learned routes of every domain as JSON"),
        Flag("n", BOOL, False, "print the number of routes that this node advertises"),
    ],
    run=_run,
)
