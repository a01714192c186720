"""Subcommands that try what the network around this node allows."""

from __future__ import annotations

import sys
from urllib.parse import urlencode

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_node
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, DURATION, STRING, Flag, Parsed
from meshd.cli.nodes import address_of, canonical_ip
from meshd.cli.output import err, out, out_json, printable
from meshd.cli.progress import progress
from meshd.cli.state import no_arguments, require_running


def _address(client: LocalClient, host: str) -> tuple[str, bool]:
    ip, own = address_of(client, client.status(), host)
    if ip != host:
        err(f'lookup "{printable(host)}" => "{ip}"\n')
    return ip, own


def _peer_endpoint_changes(client: LocalClient, flags: Parsed) -> None:
    require_running(client.status(peers=False))
    if len(flags.args) != 1 or not flags.args[0]:
        raise CliError("usage: mesh debug peer-endpoint-changes <hostname-or-IP>")
    ip, own = _address(client, flags.args[0])
    if own:
        out(f"{ip} is local Tailscale IP")
        return
    out_json(client.json("GET", "debug-peer-endpoint-changes?" + urlencode({"ip": ip})), 2)


def _dial_types(client: LocalClient, flags: Parsed) -> None:
    require_running(client.status(peers=False))
    if len(flags.args) != 2 or not all(flags.args):
        raise CliError("usage: mesh debug dial-types <hostname-or-IP> <port>")
    host, port = flags.args
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise CliError(f'invalid port "{printable(port)}"')
    ip, _ = _address(client, host)
    query = urlencode({"ip": ip, "port": int(port), "network": flags.text("network")})
    with progress(f"connecting to {ip}"):
        report = client.text("POST", "debug-dial-types?" + query)
    sys.stdout.write(report)


def _derp(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("usage: mesh debug derp <region>")
    with progress("checking the region"):
        report = client.json("POST", "debug-derp-region?" + urlencode({"region": flags.args[0]}))
    out_json(report, 1)


def _portmap(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    gateway, own = flags.text("gateway-addr"), flags.text("self-addr")
    if bool(gateway) != bool(own):
        raise CliError("if one of --gateway-addr and --self-addr is provided, the other must be as well")
    for name, text in (("gateway-addr", gateway), ("self-addr", own)):
        if text and canonical_ip(text) is None:
            raise CliError(f'invalid --{name}: "{printable(text)}" is not an IP address')
    query = {"duration": f"{flags.seconds('duration'):g}s", "type": flags.text("type")}
    query["log_http"] = str(flags.on("log-http")).lower()
    if gateway:
        query["gateway_and_self"] = f"{gateway}/{own}"
    stream = client.stream("POST", "debug-portmap?" + urlencode(query))
    try:
        for line in stream.lines():
            out(printable(line.decode("utf-8", "replace")))
            sys.stdout.flush()
    finally:
        stream.close()


PEER_ENDPOINT_CHANGES = Command(
    "peer-endpoint-changes",
    usage="mesh debug peer-endpoint-changes <hostname-or-IP>",
    short="Print how a peer was reached",
    run=_peer_endpoint_changes,
    complete=complete_node,
)

DIAL_TYPES = Command(
    "dial-types",
    usage="mesh debug dial-types <hostname-or-IP> <port>",
    short="Try all ways to connect to a port",
    flags=[Flag("network", STRING, "tcp", 'kind of connection ("tcp", "udp")')],
    run=_dial_types,
    complete=complete_node,
)

DERP = Command("derp", usage="mesh debug derp <region>", short="Check a relay region", run=_derp)

PORTMAP = Command(
    "portmap",
    usage="mesh debug portmap",
    short="Try to map a port",
    flags=[
        Flag("duration", DURATION, 5.0, "how long to try"),
        Flag("gateway-addr", STRING, "", "address of the gateway, with --self-addr"),
        Flag("log-http", BOOL, False, "print the HTTP requests and answers too"),
        Flag("self-addr", STRING, "", "address of this host, with --gateway-addr"),
        Flag("type", STRING, "", "protocol: pmp, pcp or upnp, or nothing for all"),
    ],
    run=_portmap,
)
