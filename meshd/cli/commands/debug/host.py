"""Subcommands that need no meshd: they look at this host, or compute."""

from __future__ import annotations

import os
import socket
import stat

from meshd.cli.client import LocalClient
from meshd.cli.command import Command
from meshd.cli.errors import CliError
from meshd.cli.flags import STRING, Flag, Parsed
from meshd.cli.output import out, printable, without_keys
from meshd.cli.progress import progress
from meshd.cli.risk import confirm
from meshd.cli.state import no_arguments

_MOST_ENTRIES = 25
_FAMILIES = {"ip": socket.AF_UNSPEC, "ip4": socket.AF_INET, "ip6": socket.AF_INET6}
_MAX_SITE = 0xFFFF


def _env(client: LocalClient, flags: Parsed) -> None:
    no_arguments(flags.args)
    for name, value in os.environ.items():
        out(printable(without_keys(f"{name}={value}")))


def _stat(client: LocalClient, flags: Parsed) -> None:
    for path in flags.args:
        try:
            about = os.lstat(path)
            entries = sorted(os.listdir(path)) if stat.S_ISDIR(about.st_mode) else []
        except OSError as error:
            out(f"{printable(path)}: {error.strerror}")
            continue
        out(f"{printable(path)}: {stat.filemode(about.st_mode)}, {about.st_size}")
        for name in entries[:_MOST_ENTRIES]:
            out(f"  - {printable(name)}")
        if len(entries) > _MOST_ENTRIES:
            out("  ...")


def _resolve(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) != 1:
        raise CliError("usage: mesh debug resolve <hostname>")
    family = _FAMILIES.get(flags.text("net"))
    if family is None:
        raise CliError(f'unknown network "{printable(flags.text("net"))}": ip, ip4 or ip6')
    host = flags.args[0]
    try:
        with progress(f"resolving {printable(host)}"):
            found = socket.getaddrinfo(host, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CliError(f"lookup {printable(host)}: {reason}") from None
    for address in dict.fromkeys(str(entry[4][0]) for entry in found):
        out(address)


def _via(client: LocalClient, flags: Parsed) -> None:
    if len(flags.args) == 1:
        out(_from_via(flags.args[0]))
    elif len(flags.args) == 2:
        out(_to_via(*flags.args))
    else:
        raise CliError("expect either <site-id> <v4-cidr> or <v6-route>")


def _to_via(site: str, prefix: str) -> str:
    """The IPv6 route that stands for an IPv4 prefix behind a site: 64 bits fixed, 32 of the site, 32 of the address."""
    from ipaddress import IPv4Interface, IPv6Address

    from meshd.base.ranges import VIA

    try:
        number = int(site, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32 or not site.isascii():
        raise CliError(f'invalid site-id "{printable(site)}"; must be decimal or hex with 0x prefix')
    if number > _MAX_SITE:
        raise CliError("site-id values over 65535 are currently reserved")
    try:
        inner = IPv4Interface(prefix)
    except ValueError:
        raise CliError("want IPv4 CIDR with a site ID") from None
    if "/" not in prefix:
        raise CliError(f'"{printable(prefix)}" has no prefix length')
    address = IPv6Address(int(VIA.network_address) | number << 32 | int(inner.ip))
    return f"{address}/{inner.network.prefixlen + 96}"


def _from_via(route: str) -> str:
    from ipaddress import IPv4Address, IPv6Interface

    from meshd.base.ranges import VIA

    try:
        outer = IPv6Interface(route)
    except ValueError:
        raise CliError("with one argument, expect an IPv6 CIDR") from None
    if outer.ip not in VIA:
        raise CliError("not a via route")
    if outer.network.prefixlen < 96:
        raise CliError("short length, want /96 or more")
    site = int(outer.ip) >> 32 & 0xFFFFFFFF
    inner = IPv4Address(int(outer.ip) & 0xFFFFFFFF)
    return f"site {site} (0x{site:x}), {inner}/{outer.network.prefixlen - 96}"


def _test_risk(client: LocalClient, flags: Parsed) -> None:
    if flags.args:
        raise CliError("unexpected arguments")
    confirm("This is a test risky action.", flags.text("accept-risk"), "test-risk")
    out("did-test-risky-action")


ENV = Command("env", usage="mesh debug env", short="Print the environment of this command", run=_env)

STAT = Command("stat", usage="mesh debug stat <files...>", short="Print what the system says about files", run=_stat)

RESOLVE = Command(
    "resolve",
    usage="mesh debug resolve <hostname>",
    short="Resolve a name with the system's resolver",
    flags=[Flag("net", STRING, "ip", "kind of addresses: ip, ip4 or ip6")],
    run=_resolve,
)

VIA = Command(
    "via",
    usage="mesh debug via <site-id> <v4-cidr>\nmesh debug via <v6-route>",
    short="Convert between IPv4 prefixes of a site and their IPv6 routes",
    run=_via,
)

TEST_RISK = Command(
    "test-risk",
    usage="mesh debug test-risk",
    short="Ask as before something dangerous",
    flags=[Flag("accept-risk", STRING, "", "do not ask before an action with this risk")],
    run=_test_risk,
)
