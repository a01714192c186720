"""`mesh status`."""

from __future__ import annotations

import sys
from typing import Any

from meshd.base.gotime import ZERO_TIME
from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError, Exit
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.nodes import canonical_ip, display_name, peers
from meshd.cli.output import columns, json_text, out, out_json, printable, printable_lines
from meshd.cli.state import WORKING, describe

_LOCATION_SUFFIX = "mullvad.ts.net."
"""Exit nodes below it are so many that only the list of exit nodes shows them."""


def _run(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("unexpected non-flag arguments to 'mesh status'")
    if flags.on("json"):
        _print_json(client, flags)
        return
    if flags.on("web"):
        from meshd.cli.statusweb import serve

        serve(client, flags.text("listen"), _row, sort_key, browser=flags.on("browser"))
        return
    status = client.status(peers=flags.on("peers"))
    health = [printable_lines(text, "#       ") for text in status.get("Health") or []]
    if status.get("BackendState") not in WORKING:
        if health and status.get("BackendState") == "NoState":
            _print_health(health)
            out()
        out(describe(status))
        raise Exit(1)
    _print_table(status, flags)
    if health:
        out()
        _print_health(health)
    _print_funnel(client)


def _print_json(client: LocalClient, flags: Parsed) -> None:
    if flags.on("active"):
        status = client.status(peers=flags.on("peers"))
        if status.get("Peer"):
            status["Peer"] = {key: peer for key, peer in status["Peer"].items() if peer.get("Active")}
        out_json(status, 2)
        return
    # The daemon indents with tabs, and a tab inside a JSON string is always escaped: no need to parse megabytes.
    body = client.call("GET", "status" if flags.on("peers") else "status?peers=false").body
    sys.stdout.write(json_text(body.replace(b"\t", b"  ").decode("utf-8", "replace")))


def _print_funnel(client: LocalClient) -> None:
    """What the internet can reach, if anything."""
    try:
        config = client.json("GET", "serve-config")
    except CliError as error:
        out(f"\n# Funnel:\n#     - Unable to get Funnel status: {printable(error.message)}")
        return
    if isinstance(config, dict) and config.get("AllowFunnel"):
        from meshd.cli.servetree import funnel_urls

        out("\n# Funnel on:")
        for url in funnel_urls(config):
            out(f"#     - {printable(url)}")
        out()


def _print_health(health: list[str]) -> None:
    out("# Health check:")
    for line in health:
        out(f"#     - {line}")


def _print_table(status: JSON, flags: Parsed) -> None:
    rows: list[list[str]] = []
    if flags.on("header"):
        rows.append(["IP", "Hostname", "Owner", "OS", "Status"])
        rows.append(["--", "--------", "-----", "--", "------"])
    if flags.on("self") and status.get("Self"):
        rows.append(_row(status, status["Self"]))
    hidden = False
    for peer in sorted(peers(status), key=sort_key):
        if peer.get("ShareeNode"):
            continue
        located = str(peer.get("DNSName") or "").endswith(_LOCATION_SUFFIX)
        if peer.get("ExitNodeOption") and not peer.get("ExitNode") and located:
            hidden = True
        elif peer.get("Active") or not flags.on("active"):
            rows.append(_row(status, peer))
    sys.stdout.write(columns(rows, trailing=True))
    if hidden:
        out("\n# To see the full list of exit nodes, including location-based exit nodes, run `mesh exit-node list`  ")


def sort_key(peer: JSON) -> tuple[Any, ...]:
    """Order of peers: by DNS name, else host name, else address, and at last by key."""
    import socket

    name = str(peer.get("DNSName") or peer.get("HostName") or "")
    first = canonical_ip(str((peer.get("TailscaleIPs") or [""])[0])) or ""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in first else socket.AF_INET, first) if first else b""
    return (name, len(packed), packed, str(peer.get("PublicKey") or ""))


def _row(status: JSON, peer: JSON) -> list[str]:
    address = str((peer.get("TailscaleIPs") or [""])[0])
    return [address, display_name(status, peer), _owner(status, peer), printable(peer.get("OS") or ""), activity(peer)]


def _owner(status: JSON, peer: JSON) -> str:
    user_id = peer.get("AltSharerUserID") or peer.get("UserID") or 0
    if not user_id:
        return "-"
    user = (status.get("User") or {}).get(str(user_id))
    if user is None:
        return str(user_id)
    login = printable(user.get("LoginName") or "")
    return login.partition("@")[0] + "@" if "@" in login else login


def activity(peer: JSON) -> str:
    """The last column: how a node is reached, and whether anything goes over it."""
    sent, received = peer.get("TxBytes") or 0, peer.get("RxBytes") or 0
    offline = "" if peer.get("Online") else "; offline" + last_seen(peer)
    if peer.get("Active"):
        role = "exit node; " if peer.get("ExitNode") else "offers exit node; " if peer.get("ExitNodeOption") else ""
        text = f"active; {role}{_path(peer)}{offline}"
    elif peer.get("ExitNode"):
        text = "idle; exit node" + offline
    elif peer.get("ExitNodeOption"):
        text = "idle; offers exit node" + offline
    elif sent or received:
        text = "idle" + offline
    else:
        text = offline.removeprefix("; ") or "-"
    return text + (f", tx {sent} rx {received}" if sent or received else "")


def _path(peer: JSON) -> str:
    if peer.get("CurAddr"):
        return f"direct {peer['CurAddr']}"
    if peer.get("PeerRelay"):
        return f"peer-relay {peer['PeerRelay']}"
    return f'relay "{printable(peer["Relay"])}"' if peer.get("Relay") else ""


def last_seen(peer: JSON) -> str:
    """How long ago a node was seen, as the end of a sentence; "" when nobody knows."""
    text = peer.get("LastSeen") or ZERO_TIME
    if text == ZERO_TIME:
        return ""
    import time

    from meshd.base.gotime import parse_time

    try:
        seen = parse_time(text)
    except ValueError:
        return ""
    minutes = max(int(time.time() - (seen or 0)) // 60, 1)
    if minutes < 60:
        return f", last seen {minutes}m ago"
    return f", last seen {minutes // 60}h ago" if minutes < 24 * 60 else f", last seen {minutes // 1440}d ago"


COMMAND = Command(
    "status",
    usage="mesh status [--active] [--web] [--json]",
    short="Show the state of meshd and its connections",
    long="The fields of --json are those of the LocalAPI's status; new ones may appear.",
    flags=[
        Flag("active", BOOL, False, "show only peers with traffic"),
        Flag("browser", BOOL, True, "with --web: open a browser where there is a display"),
        Flag("header", BOOL, False, "print a line of column names first"),
        Flag("json", BOOL, False, "print JSON"),
        Flag("listen", STRING, "127.0.0.1:8384", "with --web: address to listen on, port 0 for any"),
        Flag("peers", BOOL, True, "show the peers"),
        Flag("self", BOOL, True, "show this machine"),
        Flag("web", BOOL, False, "serve the status as a web page, to people on this machine"),
    ],
    run=_run,
)
