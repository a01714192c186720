"""`mesh dns status`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import AccessDenied, ApiError, CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.output import out, out_json, printable
from meshd.cli.state import no_arguments


def _run(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    facts = _collect(client)
    if flags.on("json"):
        out_json(facts, 2)
        return
    out("\n".join([*_own_part(facts), *_map_part(facts, everything=flags.on("all"))]))
    if "CurrentTailnet" in facts:
        out("\n".join(_system_part(facts, everything=flags.on("all"))))


def resolver(entry: JSON) -> JSON:
    """A resolver as the JSON of this command shows it."""
    shown: JSON = {"Addr": str(entry.get("Addr") or "")}
    if entry.get("BootstrapResolution"):
        shown["BootstrapResolution"] = [str(address) for address in entry["BootstrapResolution"]]
    return shown


def resolver_text(entry: JSON) -> str:
    """A resolver for people."""
    addresses = entry.get("BootstrapResolution")
    return printable(entry["Addr"]) + (f" (bootstrap: [{' '.join(addresses)}])" if addresses else "")


def _collect(client: LocalClient) -> JSON:
    """What is known; members without content are left out, as in the reference's JSON."""
    status, prefs = client.status(peers=False), client.prefs()
    facts: JSON = {"TailscaleDNS": bool(prefs.get("CorpDNS"))}
    tailnet = status.get("CurrentTailnet")
    if not tailnet:
        return facts
    facts["CurrentTailnet"] = {
        "MagicDNSEnabled": bool(tailnet.get("MagicDNSEnabled")),
        "MagicDNSSuffix": tailnet.get("MagicDNSSuffix") or "",
        "SelfDNSName": (status.get("Self") or {}).get("DNSName") or "",
    }
    try:
        config = client.json("GET", "dns-config") or {}
    except ApiError as error:
        raise CliError(f"failed to fetch DNS config: {error.message}") from None
    found: JSON = {
        "Resolvers": [resolver(entry) for entry in config.get("Resolvers") or []],
        "SplitDNSRoutes": {
            name: [resolver(entry) for entry in entries]
            for name, entries in (config.get("Routes") or {}).items()
            if entries
        },
        "FallbackResolvers": [resolver(entry) for entry in config.get("FallbackResolvers") or []],
        "SearchDomains": sorted(config.get("Domains") or []),
        "Nameservers": config.get("Nameservers") or [],
        "CertDomains": config.get("CertDomains") or [],
        "ExtraRecords": config.get("ExtraRecords") or [],
        "ExitNodeFilteredSet": config.get("ExitNodeFilteredSet") or [],
    }
    facts |= {name: value for name, value in found.items() if value or name == "SplitDNSRoutes"}
    return facts | _system(client)


def _system(client: LocalClient) -> JSON:
    try:
        config = client.json("GET", "dns-osconfig")
    except (ApiError, AccessDenied) as error:  # it is not for everybody, the rest is
        return {
            "SystemDNSError": "not supported on this platform" if "not supported" in error.message else error.message
        }
    if not config:
        return {}
    return {"SystemDNS": {name: config.get(name) or [] for name in ("Nameservers", "SearchDomains", "MatchDomains")}}


def _own_part(facts: JSON) -> list[str]:
    lines = ["", "=== 'Use Tailscale DNS' status ===", ""]
    if facts["TailscaleDNS"]:
        return [
            *lines,
            "Tailscale DNS: enabled.",
            "",
            "meshd answers the DNS queries of this machine.",
            "To go back to the resolver of the system, run 'mesh set --accept-dns=false'.",
            "",
        ]
    return [
        *lines,
        "Tailscale DNS: disabled.",
        "",
        "(Run 'mesh set --accept-dns=true' to send DNS queries to the resolver of meshd)",
        "",
    ]


def _map_part(facts: JSON, *, everything: bool) -> list[str]:
    lines = ["=== MagicDNS configuration ===", "", "What the coordination server tells this machine about DNS.", ""]
    tailnet = facts.get("CurrentTailnet")
    if tailnet is None:
        return [*lines, "No tailnet information available; make sure you're logged in to a tailnet."]
    if tailnet["MagicDNSEnabled"]:
        lines += [
            f"MagicDNS: enabled tailnet-wide (suffix = {printable(tailnet['MagicDNSSuffix'])})",
            "",
            f"Other devices in your tailnet can reach this device at {printable(tailnet['SelfDNSName'])}",
        ]
    else:
        lines.append("MagicDNS: disabled tailnet-wide.")
    split = [
        f"{printable(name):<30} -> {resolver_text(entry)}"
        for name, entries in sorted((facts.get("SplitDNSRoutes") or {}).items())
        for entry in entries
    ]
    upstream = [resolver_text(entry) for entry in facts.get("Resolvers") or []]
    system = "no resolvers configured, system default will be used: see 'System DNS configuration' below"
    lines += _section("Resolvers (in preference order)", upstream, system)
    lines += _section("Split DNS Routes", split, "no routes configured: split DNS disabled")
    if everything:
        fallback = [resolver_text(entry) for entry in facts.get("FallbackResolvers") or []]
        lines += _section("Fallback Resolvers", fallback, "no fallback resolvers configured", numbered=True)
    lines += _section("Search Domains", facts.get("SearchDomains"), "no search domains configured")
    if everything:
        records = [_record(entry) for entry in facts.get("ExtraRecords") or []]
        filtered = "Filtered suffixes when forwarding DNS queries as an exit node"
        lines += _section("Nameservers IP Addresses", facts.get("Nameservers"), "none were provided")
        lines += _section("Certificate Domains", facts.get("CertDomains"), "no certificate domains are configured")
        lines += _section("Additional DNS Records", records, "no extra records are configured")
        lines += _section(filtered, facts.get("ExitNodeFilteredSet"), "no suffixes are filtered")
    return lines


def _record(entry: JSON) -> str:
    kind = f"[{printable(entry['Type'])}] " if entry.get("Type") else ""
    return f"{kind}{printable(entry.get('Name')):<50} -> {printable(entry.get('Value'))}"


def _system_part(facts: JSON, *, everything: bool) -> list[str]:
    lines = [
        "",
        "=== System DNS configuration ===",
        "",
        "What meshd takes for the DNS configuration of the system: used where the coordination server",
        "names no resolvers, or does not override the local ones.",
    ]
    system = facts.get("SystemDNS")
    if "SystemDNSError" in facts:
        unsupported = "not supported" in facts["SystemDNSError"]
        reason = (
            "reading the system DNS configuration is not supported on this platform"
            if unsupported
            else f"failed to read system DNS configuration: {printable(facts['SystemDNSError'])}"
        )
        lines += ["", f"  ({reason})"]
    elif system is None:
        lines += ["", "  (no OS DNS configuration available)"]
    else:
        none = "no nameservers found: queries fail unless the coordination server provides one"
        lines += _section("Nameservers", system["Nameservers"], none)
        lines += _section("Search domains", system["SearchDomains"], "no search domains found")
        if everything:
            lines += _section("Match domains", system["MatchDomains"], "no match domains found")
    return [*lines, "", "[this is a preliminary version of this command; the output format may change in the future]"]


def _section(title: str, entries: Iterable[Any] | None, empty: str, *, numbered: bool = False) -> list[str]:
    lines = [f"  {f'{index}:' if numbered else '-'} {printable(entry)}" for index, entry in enumerate(entries or [])]
    return ["", f"{title}:", *(lines or [f"  ({empty})"])]


COMMAND = Command(
    "status",
    usage="mesh dns status [--all] [--json]",
    short="Print the DNS status and configuration",
    long="""\
Whether meshd answers the DNS queries of this machine, what the coordination server configures
(MagicDNS, resolvers, split DNS, search domains), and what the system used before.""",
    flags=[
        Flag("all", BOOL, False, "print the seldom needed parts too"),
        Flag("json", BOOL, False, "print JSON"),
    ],
    show_defaults=False,
    run=_run,
)
