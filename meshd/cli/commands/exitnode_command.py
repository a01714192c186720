"""`mesh exit-node`."""

from __future__ import annotations

import sys
from typing import Any

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.commands.status_command import last_seen
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, STRING, Flag, Parsed
from meshd.cli.nodes import peers
from meshd.cli.output import columns, out, printable
from meshd.cli.progress import progress

_SUGGEST_CAPABILITY = "suggest-exit-node"


def _list(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("unexpected non-flag arguments to 'mesh exit-node list'")
    offering = [peer for peer in peers(client.status()) if peer.get("ExitNodeOption")]
    if not offering:
        raise CliError("no exit nodes found")
    wanted = flags.text("filter")
    rows = [_row(*entry) for entry in listed(offering, wanted)]
    if wanted and not rows:
        raise CliError(f'no exit nodes found for "{printable(wanted)}"')
    out()
    header = [" IP", "HOSTNAME", "COUNTRY", "CITY", "STATUS"]
    sys.stdout.write(columns([header, *rows], padding=5, minimum=10, trailing=True))
    out("\n# To view the complete list of exit nodes for a country, use `mesh exit-node list --filter=` followed by")
    out("# the country name. To use an exit node, use `mesh set --exit-node=` followed by the IP or hostname.")
    if any(_SUGGEST_CAPABILITY in (peer.get("CapMap") or {}) for peer in offering):
        out("# To have one suggested, use `mesh exit-node suggest`.")


def listed(offering: list[JSON], country: str = "") -> list[tuple[str, str, JSON]]:
    """Exit nodes as the list shows them: country, city and node, in order.

    Of a city only its best node is shown (by the priority of its location), and the one in use; a country of several
    cities begins with its best node under the city "Any". With `country`, all nodes of that country are shown. Nodes
    without a location come first.
    """
    places: dict[str, dict[str, list[JSON]]] = {}
    for peer in sorted(offering, key=lambda p: str(p.get("DNSName") or "")):
        place = _location(peer)
        name = str(place.get("Country") or "")
        if not country or name.lower() == country.lower():
            places.setdefault(name, {}).setdefault(str(place.get("City") or ""), []).append(peer)
    entries: list[tuple[str, str, JSON]] = []
    for name in sorted(places):
        cities = places[name]
        best = {city: sorted(found, key=_priority) for city, found in cities.items()} if name else cities
        if name and len(cities) > 1:
            first = min((found[0] for _, found in sorted(best.items())), key=_priority)
            entries.append((name, "Any", first))
        for city, found in sorted(best.items()):
            keep = found if country or not name else [p for i, p in enumerate(found) if i == 0 or p.get("ExitNode")]
            entries += [(name, city, peer) for peer in keep]
    return entries


def _location(peer: JSON) -> JSON:
    return peer.get("Location") or {}


def _priority(peer: JSON) -> Any:
    return -(_location(peer).get("Priority") or 0)


def _row(country: str, city: str, peer: JSON) -> list[str]:
    address = str((peer.get("TailscaleIPs") or [""])[0])
    name = printable(str(peer.get("DNSName") or "").strip("."))
    return [" " + address, name, printable(country) or "-", printable(city) or "-", _state(peer)]


def _state(peer: JSON) -> str:
    if not peer.get("Active"):
        if peer.get("ExitNode"):
            return "selected but offline" + last_seen(peer)
        if not peer.get("Online"):
            return "offline" + last_seen(peer)
    return "selected" if peer.get("ExitNode") else "-"


def _suggest(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("unexpected non-flag arguments to 'mesh exit-node suggest'")
    if flags.on("force-probe"):
        with progress("probing the exit nodes"):
            suggestion = client.json("POST", "suggest-exit-node?probe=true")
    else:
        suggestion = client.json("GET", "suggest-exit-node")
    if not isinstance(suggestion, dict) or not suggestion.get("ID"):
        out("No exit node suggestion is available.")
        return
    from shlex import quote

    name = printable(suggestion.get("Name") or "")
    out(f"Suggested exit node: {name}\nTo accept this suggestion, use `mesh set --exit-node={quote(name)}`.")


LIST = Command(
    "list",
    usage="mesh exit-node list [flags]",
    short="Show the exit nodes",
    flags=[Flag("filter", STRING, "", "show all exit nodes of this country")],
    run=_list,
)

SUGGEST = Command(
    "suggest",
    usage="mesh exit-node suggest",
    short="Suggest the best exit node",
    flags=[Flag("force-probe", BOOL, False, "probe the nodes before suggesting one", hidden=True)],
    run=_suggest,
)

COMMAND = Command(
    "exit-node",
    usage="mesh exit-node [flags]",
    short="Show the nodes that offer to be exit nodes",
    parts=[
        Part("list", LIST.short, "exitnode_command", "LIST"),
        Part("suggest", SUGGEST.short, "exitnode_command", "SUGGEST"),
    ],
)
