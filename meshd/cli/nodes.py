"""Finding nodes in a status: by name, by address, as an exit node."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from meshd.cli.client import JSON, LocalClient
from meshd.cli.errors import CliError
from meshd.cli.output import printable


def canonical_ip(text: str) -> str | None:
    """The usual spelling of an address, None when it is not one."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, text))
        except (OSError, ValueError):
            continue
    return None


def peers(status: JSON) -> list[JSON]:
    """The peers of a status."""
    return list((status.get("Peer") or {}).values())


def base_name(status: JSON, peer: JSON) -> str:
    """The DNS name of a node without the suffix of the network, "" when it has none."""
    name = str(peer.get("DNSName") or "").rstrip(".")
    suffix = "." + str(status.get("MagicDNSSuffix") or "").strip(".")
    return name[: -len(suffix)] if len(suffix) > 1 and name.lower().endswith(suffix.lower()) else name


def display_name(status: JSON, peer: JSON) -> str:
    """How a node is called in lists: its short DNS name, or the host name in quotes."""
    name = base_name(status, peer)
    if not name:
        return '("' + _host_label(str(peer.get("HostName") or "")) + '")'
    if name.startswith("xn-"):
        try:
            return f"{name} ({printable(name.encode('ascii').decode('idna'))})"
        except UnicodeError:
            return printable(name)
    return printable(name)


def _host_label(name: str) -> str:
    """A host name reduced to what a DNS label may hold."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c == "-") else "-" for c in name.lower())
    return kept.strip("-")[:63]


def address_of(client: LocalClient, status: JSON, host: str) -> tuple[str, bool]:
    """The mesh address of a host given by address or name, and whether it is this machine.

    Names of the network come first, the system's resolver last.
    """
    literal = canonical_ip(host)
    if literal is not None:
        return literal, literal in (status.get("TailscaleIPs") or [])
    own = status.get("Self") or {}
    for node in _matching(status, [*peers(status), own], host):
        if not node.get("TailscaleIPs"):
            raise CliError("node found but lacks an IP")
        return str(node["TailscaleIPs"][0]), node is own
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise CliError(
            f'error looking up IP of "{printable(host)}": {getattr(error, "strerror", None) or error}'
        ) from None
    if not found:
        raise CliError(f'no IPs found for "{printable(host)}"')
    return str(found[0][4][0]), False


def _matching(status: JSON, nodes: list[JSON], host: str) -> Iterator[JSON]:
    wanted = host.lower().rstrip(".")
    for node in nodes:
        full = str(node.get("DNSName") or "").lower().rstrip(".")
        if wanted and wanted in (full, base_name(status, node).lower(), display_name(status, node).lower()):
            yield node


def node_with_ip(status: JSON, ip: str) -> JSON | None:
    """The node (this one included) that has an address."""
    for node in [*peers(status), status.get("Self") or {}]:
        if ip in (node.get("TailscaleIPs") or []):
            return node
    return None


def exit_node_choice(status: JSON, text: str) -> str:
    """The address of the exit node that a user named, checked as far as the status allows.

    Raises:
        CliError: unknown, ambiguous, ourselves, or not offering to be one.
    """
    ip = canonical_ip(text)
    if ip is not None:
        return _exit_node_by_ip(status, ip)
    name = text.lower().rstrip(".")
    found = [
        peer
        for peer in peers(status)
        if name in (base_name(status, peer).lower(), str(peer.get("DNSName") or "").lower().rstrip("."))
    ]
    if not found:
        raise CliError(f'invalid value "{text}" for --exit-node; must be IP or peer hostname')
    if len(found) > 1:
        raise CliError(f'ambiguous exit node name "{text}"')
    if not found[0].get("TailscaleIPs"):
        raise CliError(f'node "{text}" has no Tailscale IP?')
    if not found[0].get("ExitNodeOption"):
        raise CliError(f'node "{text}" is not advertising an exit node')
    return str(found[0]["TailscaleIPs"][0])


def _exit_node_by_ip(status: JSON, ip: str) -> str:
    if ip in (status.get("TailscaleIPs") or []):
        raise CliError(
            f"cannot use {ip} as an exit node as it is a local IP address to this machine; "
            "did you mean --advertise-exit-node?"
        )
    if status.get("BackendState") == "Running":
        node = node_with_ip(status, ip)
        if node is None:
            raise CliError(f"no node found in netmap with IP {ip}")
        if not node.get("ExitNodeOption"):
            raise CliError(f"node {ip} is not advertising an exit node")
    return ip
