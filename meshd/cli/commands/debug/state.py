"""Subcommands that print what meshd knows."""

from __future__ import annotations

import json
import sys
import time
from typing import Any
from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import json_text, out, out_json, printable
from meshd.cli.state import no_arguments

_PAUSE_S = 1.0
"""Between two looks at the metrics."""


def _derp_map(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    out_json(client.json("GET", "derpmap"))


def _prefs(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    prefs = client.prefs()
    if not flags.on("pretty"):
        out_json(prefs)
        return
    words = [f"{name}={_word(value)}" for name, value in prefs.items() if value not in (None, False, "", [], {})]
    out("Prefs{" + " ".join(words) + "}")


def _word(value: Any) -> str:
    return printable(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def _netmap(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    netmap = client.json("POST", "debug?action=current-netmap")
    out(json_text(json.dumps(netmap, indent="\t", sort_keys=True, ensure_ascii=False)))


def _control_knobs(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    out(json.dumps(client.json("POST", "debug?action=control-knobs"), indent=2, sort_keys=True))


def _statedir(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    directory = client.json("POST", "debug?action=statedir")
    if not isinstance(directory, str):
        raise CliError("local meshd answered something else than a path")
    if not directory:
        raise CliError("no statedir is set")
    out(printable(directory))


def _stacks(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    sys.stdout.write(client.text("GET", "goroutines"))


def _hostinfo(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    status = client.status(peers=False)
    addresses = status.get("TailscaleIPs") or []
    if not addresses:
        raise CliError(f"not known before the node has joined a network; state: {status.get('BackendState')}")
    found = client.json("GET", "whois?addr=" + quote(addresses[0], safe=""))
    out_json((found.get("Node") or {}).get("Hostinfo") or {}, 2)


def _metrics(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    text = client.text("GET", "metrics")
    if not flags.on("watch"):
        sys.stdout.write(text)
        return
    before = _values(text)
    while True:
        time.sleep(_PAUSE_S)
        after = _values(client.text("GET", "metrics"))
        changed = {name: value for name, value in after.items() if before.get(name, value) != value}
        width = max(map(len, changed), default=0)
        for name, value in changed.items():
            out(f"{name:<{width}} {value - before[name]:+5g} => {value:g}")
        if changed:
            out()
            sys.stdout.flush()
        before = after


def _values(text: str) -> dict[str, float]:
    """The values by name and labels (text format of Prometheus)."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        name, space, number = line.strip().rpartition(" ")
        if space and not name.startswith("#"):
            try:
                values[name] = float(number)
            except ValueError:
                continue  # not a sample
    return values


def _printer(name: str, short: str, method: str, route: str) -> Command:
    """A command that prints the JSON of a route."""

    def run(client: LocalClient, flags: Parsed) -> None:
        no_arguments(flags.args)
        out_json(client.json(method, route), 2)

    return Command(name, usage=f"mesh debug {name}", short=short, run=run)


RELAY_SERVERS = _printer(
    "peer-relay-servers", "Print the peers that can relay for us", "POST", "debug?action=peer-relay-servers"
)
RELAY_SESSIONS = _printer(
    "peer-relay-sessions", "Print what this node relays for peers", "GET", "debug-peer-relay-sessions"
)
BUS_EVENTS = _printer("daemon-bus-events", "Follow events inside meshd", "GET", "debug-bus-events")
BUS_GRAPH = _printer("daemon-bus-graph", "Print who listens to which event", "GET", "debug-bus-graph")
BUS_QUEUES = _printer("daemon-bus-queues", "Print how many events wait", "GET", "debug-bus-queues")

DERP_MAP = Command("derp-map", usage="mesh debug derp-map", short="Print the relays that are known", run=_derp_map)

PREFS = Command(
    "prefs",
    usage="mesh debug prefs",
    short="Print the preferences",
    flags=[Flag("pretty", BOOL, False, "print one line with what is set")],
    run=_prefs,
)

NETMAP = Command("netmap", usage="mesh debug netmap", short="Print the network map", run=_netmap)

CONTROL_KNOBS = Command(
    "control-knobs",
    usage="mesh debug control-knobs",
    short="Print the knobs that the server has turned",
    run=_control_knobs,
)

STATEDIR = Command("statedir", usage="mesh debug statedir", short="Print where the state is kept", run=_statedir)

STACKS = Command(
    "daemon-goroutines",
    usage="mesh debug daemon-goroutines",
    short="Print what the tasks and threads of meshd do",
    run=_stacks,
)

HOSTINFO = Command(
    "hostinfo",
    usage="mesh debug hostinfo",
    short="Print what the network knows about this host",
    run=_hostinfo,
)

METRICS = Command(
    "metrics",
    usage="mesh debug metrics",
    short="Print the metrics of meshd",
    flags=[Flag("watch", BOOL, False, "go on and print what changes")],
    run=_metrics,
)
