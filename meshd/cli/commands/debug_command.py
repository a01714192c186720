"""`mesh debug`."""

from __future__ import annotations

import sys
from urllib.parse import quote

from meshd.cli.client import LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.errors import CliError
from meshd.cli.files import write_atomically
from meshd.cli.flags import INT, STRING, Flag, Parsed
from meshd.cli.output import err, out_json
from meshd.cli.progress import progress


def _run(client: LocalClient, flags: Parsed) -> None:
    cpu, memory, file = flags.text("cpu-profile"), flags.text("mem-profile"), flags.text("file")
    if not (cpu or memory or file):
        raise CliError("mesh debug: subcommand or flag required")
    if cpu:
        seconds = flags.number("profile-seconds")
        err(f"Recording the CPU for {seconds} seconds ...\n")
        with progress("recording"):
            _save(cpu, client.call("GET", f"pprof?name=profile&seconds={seconds}").body)
    if memory:
        _save(memory, client.call("GET", "pprof?name=heap").body)
    if file:
        _file(client, file)


def _save(path: str, profile: bytes) -> None:
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(profile)
        return
    write_atomically(path, profile, 0o600)
    err(f"Wrote {path}; look at it with 'go tool pprof' or https://www.speedscope.app\n")


def _file(client: LocalClient, wanted: str) -> None:
    """The files that have arrived: `get` lists them, `delete:NAME` removes one, NAME writes one to stdout."""
    if wanted == "get":
        out_json(client.json("GET", "files/"))
        return
    name = quote(wanted.removeprefix("delete:"), safe="")
    if wanted.startswith("delete:"):
        client.call("DELETE", "files/" + name)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(client.call("GET", "files/" + name).body)


COMMAND = Command(
    "debug",
    usage="mesh debug <subcommand>",
    short="Look into a running meshd",
    long="What these commands are called and what they print may change from version to version.",
    parts=[
        Part("derp-map", "Print the relays that are known", "debug.state", "DERP_MAP"),
        Part("component-logs", "Make a component say more in the log", "debug.logs", "COMPONENT_LOGS"),
        Part("daemon-goroutines", "Print what the tasks and threads of meshd do", "debug.state", "STACKS"),
        Part("daemon-logs", "Follow the log of meshd", "debug.logs", "DAEMON_LOGS"),
        Part("daemon-bus-events", "Follow events inside meshd", "debug.state", "BUS_EVENTS", hidden=True),
        Part("daemon-bus-graph", "Print who listens to which event", "debug.state", "BUS_GRAPH", hidden=True),
        Part("daemon-bus-queues", "Print how many events wait", "debug.state", "BUS_QUEUES", hidden=True),
        Part("peer-relay-servers", "Print the peers that can relay for us", "debug.state", "RELAY_SERVERS"),
        Part("peer-relay-sessions", "Print what this node relays for peers", "debug.state", "RELAY_SESSIONS"),
        Part("metrics", "Print the metrics of meshd", "debug.state", "METRICS"),
        Part("env", "Print the environment of this command", "debug.host", "ENV"),
        Part("stat", "Print what the system says about files", "debug.host", "STAT"),
        Part("hostinfo", "Print what the network knows about this host", "debug.state", "HOSTINFO"),
        Part("local-creds", "Print how to call the LocalAPI with curl", "debug.localapi", "LOCAL_CREDS"),
        Part("localapi", "Call a LocalAPI route", "debug.localapi", "LOCALAPI"),
        Part("restun", "Look for the addresses of this node again", "debug.actions", "RESTUN"),
        Part("rebind", "Open the sockets of this node again", "debug.actions", "REBIND"),
        Part("rotate-disco-key", "Take a new discovery key", "debug.actions", "ROTATE_DISCO_KEY"),
        Part("derp-set-on-demand", "Keep no connection to a home relay", "debug.actions", "DERP_SET_ON_DEMAND"),
        Part("derp-unset-on-demand", "Keep one again", "debug.actions", "DERP_UNSET_ON_DEMAND"),
        Part("break-tcp-conns", "Break the TCP connections of meshd", "debug.actions", "BREAK_TCP_CONNS"),
        Part("break-derp-conns", "Break the connections to relays", "debug.actions", "BREAK_DERP_CONNS"),
        Part("pick-new-derp", "Use another home relay for a while", "debug.actions", "PICK_NEW_DERP"),
        Part(
            "force-prefer-derp", "Prefer a relay region where it can be reached", "debug.actions", "FORCE_PREFER_DERP"
        ),
        Part("force-netmap-update", "Apply the network map again", "debug.actions", "FORCE_NETMAP_UPDATE"),
        Part("reload-config", "Read the configuration file again", "debug.actions", "RELOAD_CONFIG"),
        Part("control-knobs", "Print the knobs that the server has turned", "debug.state", "CONTROL_KNOBS"),
        Part("prefs", "Print the preferences", "debug.state", "PREFS"),
        Part("watch-ipn", "Follow the notifications of meshd", "debug.watch"),
        Part("netmap", "Print the network map", "debug.state", "NETMAP"),
        Part("via", "Convert between IPv4 prefixes of a site and their IPv6 routes", "debug.host", "VIA"),
        Part("ts2021", "Try to talk to the coordination server", "debug.ts2021"),
        Part("set-expire", "Let the node key expire soon", "debug.actions", "SET_EXPIRE"),
        Part("dev-store-set", "Write an entry of the state", "debug.actions", "DEV_STORE_SET"),
        Part("derp", "Check a relay region", "debug.probe", "DERP"),
        Part("capture", "Record packets", "debug.capture"),
        Part("portmap", "Try to map a port", "debug.probe", "PORTMAP"),
        Part("peer-endpoint-changes", "Print how a peer was reached", "debug.probe", "PEER_ENDPOINT_CHANGES"),
        Part("dial-types", "Try all ways to connect to a port", "debug.probe", "DIAL_TYPES"),
        Part("resolve", "Resolve a name with the system's resolver", "debug.host", "RESOLVE"),
        Part("test-risk", "Ask as before something dangerous", "debug.host", "TEST_RISK"),
        Part("statedir", "Print where the state is kept", "debug.state", "STATEDIR"),
        Part("clear-netmap-cache", "Forget the network maps kept on disk", "debug.actions", "CLEAR_NETMAP_CACHE"),
    ],
    flags=[
        Flag("cpu-profile", STRING, "", 'record where meshd spends its time, into this file ("-": stdout)'),
        Flag("file", STRING, "", "get, delete:NAME, or NAME"),
        Flag("mem-profile", STRING, "", 'record what meshd keeps in memory, into this file ("-": stdout)'),
        Flag("profile-seconds", INT, 15, "how long --cpu-profile records"),
    ],
    run=_run,
)
