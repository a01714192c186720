"""`mesh ping`."""

from __future__ import annotations

import time

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_node
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, DURATION, INT, Flag, Parsed, format_duration
from meshd.cli.nodes import address_of, canonical_ip
from meshd.cli.output import err, out, printable
from meshd.cli.state import require_running

_PAUSE_S = 1.0
"""Between two pings."""


def _run(client: LocalClient, flags: Parsed) -> None:
    literal = bool(flags.args) and canonical_ip(flags.args[0]) is not None
    status = client.status(peers=not literal)
    require_running(status)
    if len(flags.args) != 1 or not flags.args[0]:
        raise CliError("usage: mesh ping <hostname-or-IP>")
    host = flags.args[0]
    ip, own = address_of(client, status, host)
    if own:
        out(f"{ip} is local Tailscale IP")
        return
    if flags.on("verbose") and ip != host:
        err(f'lookup "{printable(host)}" => "{ip}"\n')
    _ping_until_done(client, flags, ip)


def _ping_until_done(client: LocalClient, flags: Parsed, ip: str) -> None:
    kind = _kind(flags)
    count = flags.number("c")
    answered = False
    sent = 0
    while True:
        sent += 1
        result = _ping(client, flags, ip, kind)
        if result is None:
            out(f'ping "{ip}" timed out')
        elif _report(result, kind):
            return
        else:
            answered = True
            if result.get("Endpoint") and flags.on("until-direct"):
                return
        if sent == count:
            break
        if result is not None:
            time.sleep(_PAUSE_S)
    if not answered:
        raise CliError("no reply")
    if flags.on("until-direct"):
        raise CliError("direct connection not established")


def _ping(client: LocalClient, flags: Parsed, ip: str, kind: str) -> JSON | None:
    """One ping; None when nothing came back in time."""
    route = f"ping?ip={ip}&type={kind}"
    if flags.number("size"):
        route += f"&size={flags.number('size')}"
    try:
        result = client.json("POST", route, timeout=max(flags.seconds("timeout"), 0.001))
    except TimeoutError:
        return None
    if not isinstance(result, dict):
        raise CliError("local meshd answered a ping with something else than a JSON object")
    return result


def _report(result: JSON, kind: str) -> bool:
    """Print an answer; True when it is the last one wanted."""
    if result.get("Err"):
        if not result.get("IsLocalIP"):
            raise CliError(printable(result["Err"]))
        out(printable(result["Err"]))
        return True
    took = format_duration(round(float(result.get("LatencySeconds") or 0), 3))
    name, ip = printable(result.get("NodeName")), result.get("NodeIP")
    if kind == "peerapi":
        out(f"hit peerapi of {ip} ({name}) at {printable(result.get('PeerAPIURL'))} in {took}")
        return True
    via = result.get("Endpoint") or kind
    if result.get("PeerRelay"):
        via = f"peer-relay({result['PeerRelay']})"
    elif result.get("DERPRegionID"):
        via = f"DERP({printable(result.get('DERPRegionCode'))})"
    port = f", {result['PeerAPIPort']}" if result.get("PeerAPIPort") else ""
    out(f"pong from {name} ({ip}{port}) via {via} in {took}")
    return kind in ("TSMP", "ICMP")


def _kind(flags: Parsed) -> str:
    for flag, kind in (("tsmp", "TSMP"), ("icmp", "ICMP"), ("peerapi", "peerapi")):
        if flags.on(flag):
            return kind
    return "disco"


COMMAND = Command(
    "ping",
    usage="mesh ping <hostname-or-IP>",
    short="Ping a node through the mesh and see how it was reached",
    long="""\
Each answer says which way it took. The first ones may come through a relay, while the
two nodes look for a direct path; the command ends when there is one, or after ten.

If this works and an ordinary ping does not, a packet filter on one of the machines is in
the way: without --icmp or --tsmp the tunnel itself is not used.

The node is given by its name in the mesh or by an address in it.""",
    flags=[
        Flag("c", INT, 10, "number of pings, 0 for no limit"),
        Flag("icmp", BOOL, False, "send an ICMP echo through the tunnel (the peer's system does not see it)"),
        Flag("peerapi", BOOL, False, "connect to the peer's HTTP service"),
        Flag("size", INT, 0, "size of the message in bytes (not with --icmp, --tsmp, --peerapi), 0 for the least"),
        Flag("timeout", DURATION, 5.0, "how long to wait for an answer"),
        Flag("tsmp", BOOL, False, "send a TSMP ping through the tunnel"),
        Flag("until-direct", BOOL, True, "stop when a direct path is found"),
        Flag("verbose", BOOL, False, "say more"),
    ],
    run=_run,
    complete=complete_node,
)
