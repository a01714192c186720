"""`mesh set`."""

from __future__ import annotations

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.nodes import exit_node_choice
from meshd.cli.output import out, printable_lines, warn
from meshd.cli.prefsflags import (
    ACCEPT_RISK,
    AUTO_EXIT_NODE,
    advertised_routes,
    has_exit_routes,
    mark_changed,
    netfilter_mode,
    pref_flags,
    relay_server_endpoints,
    relay_server_port,
    without_exit_routes,
)
from meshd.cli.progress import at_terminal
from meshd.cli.risk import confirm, connected_through_mesh
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    status = client.status(peers="exit-node" in flags.given)
    masked = _edits(flags, status)
    if not any(name.endswith("Set") for name in masked):
        out(COMMAND.help().rstrip("\n"))
        return
    current = client.prefs()
    if masked.get("AdvertiseRoutesSet"):
        masked["AdvertiseRoutes"] = _routes(flags, current)
        if masked["AdvertiseRoutes"] and at_terminal():
            warn_if_not_forwarding(client)  # advice for people: scripts know "set" as silent
    if masked.get("RunSSHSet") and masked["RunSSH"] != current.get("RunSSH") and connected_through_mesh():
        confirm("This changes who answers SSH over the mesh, and will end your session.", flags.text("accept-risk"))
    after = _applied(current, masked)
    if after.get("NoSNAT") and has_exit_routes(after.get("AdvertiseRoutes")):
        warn("--snat-subnet-routes=false with --advertise-exit-node: traffic through this exit node may not return")
    client.check_prefs(after)
    client.edit_prefs(masked)
    for name, pref in _WITHOUT_EFFECT.items():
        if name in flags.given and not (masked[pref] is None or masked[pref] is False):
            warn(f"--{name} is kept, but has no effect: this build of meshd lacks that part")


def _edits(flags: Parsed, status: JSON) -> JSON:
    """The masked preferences of the flags given; routes are filled in later, from the current ones."""
    masked: JSON = {}
    for name in flags.given:
        mark_changed(masked, name)
        match name:
            case "exit-node":
                text = flags.text(name)
                if text.startswith(AUTO_EXIT_NODE):
                    masked |= {"AutoExitNode": text.removeprefix(AUTO_EXIT_NODE), "AutoExitNodeSet": True}
                    text = ""
                masked |= {"ExitNodeIP": exit_node_choice(status, text) if text else "", "ExitNodeID": ""}
            case "netfilter-mode":
                masked["NetfilterMode"], note = netfilter_mode(flags.text(name))
                if note:
                    warn(note)
            case "snat-subnet-routes":
                masked["NoSNAT"] = not flags.on(name)
            case "stateful-filtering":
                masked["NoStatefulFiltering"] = not flags.on(name)
            case "update-check":
                masked.setdefault("AutoUpdate", {})["Check"] = flags.on(name)
            case "auto-update":
                masked.setdefault("AutoUpdate", {})["Apply"] = flags.on(name)
            case "advertise-connector":
                masked["AppConnector"] = {"Advertise": flags.on(name)}
            case "relay-server-port":
                masked["RelayServerPort"] = relay_server_port(flags.text(name))
            case "relay-server-static-endpoints":
                masked["RelayServerStaticEndpoints"] = relay_server_endpoints(flags.text(name))
            case _ if name in _PLAIN:
                masked[_PLAIN[name]] = flags.values[name]
    return masked


_PLAIN = {
    "accept-dns": "CorpDNS",
    "accept-routes": "RouteAll",
    "exit-node-allow-lan-access": "ExitNodeAllowLANAccess",
    "hostname": "Hostname",
    "nickname": "ProfileName",
    "operator": "OperatorUser",
    "report-posture": "PostureChecking",
    "shields-up": "ShieldsUp",
    "ssh": "RunSSH",
    "webclient": "RunWebClient",
}


_WITHOUT_EFFECT = {
    "webclient": "RunWebClient",
    "relay-server-port": "RelayServerPort",
    "relay-server-static-endpoints": "RelayServerStaticEndpoints",
}


def _routes(flags: Parsed, current: JSON) -> list[str] | None:
    """Each of the two route flags leaves alone what belongs to the other."""
    before: list[str] = current.get("AdvertiseRoutes") or []
    exit_node = flags.on("advertise-exit-node") if "advertise-exit-node" in flags.given else has_exit_routes(before)
    if "advertise-routes" in flags.given:
        return advertised_routes(flags.text("advertise-routes"), exit_node)
    if exit_node == has_exit_routes(before):
        return before or None
    return (without_exit_routes(before) + (["0.0.0.0/0", "::/0"] if exit_node else [])) or None


def _applied(current: JSON, masked: JSON) -> JSON:
    after = dict(current)
    for name, value in masked.items():
        if name.endswith("Set"):
            continue
        after[name] = {**(current.get(name) or {}), **value} if isinstance(value, dict) else value
    return after


def warn_if_not_forwarding(client: LocalClient) -> None:
    """Say what keeps the host from forwarding, or from doing it fast, for those who will use the routes."""
    for route in ("check-ip-forwarding", "check-udp-gro-forwarding"):
        answer = client.json("GET", route)
        if isinstance(answer, dict) and answer.get("Warning"):
            warn(printable_lines(answer["Warning"], "         "))


COMMAND = Command(
    "set",
    usage="mesh set [flags]",
    short="Change the settings that are named",
    long="Settings that are not named stay as they are.",
    flags=[
        *pref_flags(),
        Flag("auto-update", BOOL, False, "update automatically"),
        Flag("nickname", STRING, "", "name of this login profile"),
        Flag("relay-server-port", STRING, "", "UDP port to relay for other nodes on, 0 for any, or nothing for none"),
        Flag("relay-server-static-endpoints", STRING, "", "addresses with ports that lead to it, separated by commas"),
        Flag("update-check", BOOL, True, "tell about updates"),
        Flag("webclient", BOOL, False, "serve the web interface to the mesh on port 5252"),
        ACCEPT_RISK,
    ],
    show_defaults=False,
    run=_run,
)
