"""`mesh netcheck`."""

from __future__ import annotations

import json
import time
from typing import Any

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, DURATION, INT, STRING, Flag, Parsed, format_duration
from meshd.cli.nodes import canonical_ip
from meshd.cli.output import err, out, out_json, printable
from meshd.cli.progress import progress
from meshd.cli.state import no_arguments

_FORMATS = ("", "json", "json-line")
_LONGEST_PAUSE_S = 1e9  # of those that the system can sleep


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    style = flags.text("format")
    if style not in _FORMATS:
        raise CliError(f'unknown output format "{style}"')
    if style:
        err("# Warning: this JSON format is not yet considered a stable interface\n")
    route = "netcheck" + _bound(flags)
    while True:
        with progress("probing the network"):
            report = client.json("POST", route)
        if style == "json":
            out_json(report)
        elif style == "json-line":
            out(json.dumps(report, separators=(",", ":")))
        else:
            _print(report, client.json("GET", "derpmap") or {}, verbose=flags.on("verbose"))
        if flags.seconds("every") <= 0:
            return
        time.sleep(min(flags.seconds("every"), _LONGEST_PAUSE_S))


def _bound(flags: Parsed) -> str:
    """The query that names where the probes are sent from; "" for the sockets of the mesh."""
    address, port = flags.text("bind-address"), flags.number("bind-port")
    if address and canonical_ip(address) is None:
        raise CliError(f'invalid --bind-address="{printable(address)}": not an IP address')
    if not 0 <= port <= 65535:
        raise CliError(f"invalid --bind-port={port}: expected 0 to 65535")
    if not flags.given or not {"bind-address", "bind-port"} & set(flags.given):
        return ""
    from urllib.parse import urlencode

    return "?" + urlencode({"bind-address": address, "bind-port": port})


def _print(report: JSON, derp_map: JSON, *, verbose: bool) -> None:
    out("\nReport:")
    out(f"\t* Time: {str(report.get('Now') or '').replace('T', ' ')}")
    out(f"\t* UDP: {_word(report.get('UDP'))}")
    out(f"\t* IPv4: yes, {report['GlobalV4']}" if report.get("GlobalV4") else "\t* IPv4: (no addr found)")
    out(f"\t* IPv6: {_ipv6(report)}")
    out(f"\t* MappingVariesByDestIP: {_word(report.get('MappingVariesByDestIP'))}")
    out(f"\t* PortMapping: {_port_mapping(report)}")
    if report.get("CaptivePortal") is not None:
        out(f"\t* CaptivePortal: {_word(report['CaptivePortal'])}")
    _print_relays(report, derp_map.get("Regions") or {}, verbose=verbose)


def _word(value: Any) -> str:
    return "" if value is None else str(value).lower()


def _ipv6(report: JSON) -> str:
    if report.get("GlobalV6"):
        return f"yes, {report['GlobalV6']}"
    if report.get("IPv6"):
        return "(no addr found)"
    return "no, but OS has support" if report.get("OSHasIPv6") else "no, unavailable in OS"


def _port_mapping(report: JSON) -> str:
    found = {"UPnP": report.get("UPnP"), "NAT-PMP": report.get("PMP"), "PCP": report.get("PCP")}
    if all(value is None for value in found.values()):
        return "not checked"
    return ", ".join(name for name, value in found.items() if value)


def _print_relays(report: JSON, regions: JSON, *, verbose: bool) -> None:
    latency: dict[str, int] = report.get("RegionLatency") or {}
    if not latency:
        out("\t* Nearest DERP: unknown (no response to latency probes)")
        return
    preferred = report.get("PreferredDERP")
    if not preferred:
        out("\t* Nearest DERP: [none]")
    elif region := regions.get(str(preferred)):
        out(f"\t* Nearest DERP: {printable(region.get('RegionName'))}")
    else:
        out(f"\t* Nearest DERP: {preferred} (region not found in map)")
    out("\t* DERP latency:")
    for number in sorted(regions, key=lambda n: (n not in latency, latency.get(n, 0), n)):
        region = regions[number]
        took = format_duration(round(latency[number] / 1e5) / 1e4) if number in latency else ""
        code, name = printable(region.get("RegionCode")), printable(region.get("RegionName"))
        out(f"\t\t- {code:>3}: {took:<7} ({f'derp{number}, ' if verbose else ''}{name})")


COMMAND = Command(
    "netcheck",
    usage="mesh netcheck",
    short="Report on the network that this machine is in",
    long="The probes are sent by meshd, from the sockets that it uses for the mesh unless --bind-… says otherwise.",
    flags=[
        Flag("bind-address", STRING, "", "address of this machine to send probes from"),
        Flag("bind-port", INT, 0, "UDP port to send probes from, 0 for any"),
        Flag("every", DURATION, 0.0, "repeat with this pause"),
        Flag("format", STRING, "", 'output format: "json", "json-line", or nothing for text'),
        Flag("verbose", BOOL, False, "say more"),
    ],
    run=_run,
)
