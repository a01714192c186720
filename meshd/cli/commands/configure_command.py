"""`mesh configure`."""

from __future__ import annotations

from meshd.cli.client import JSON, LocalClient
from meshd.cli.command import Command, Part
from meshd.cli.completion import complete_node
from meshd.cli.errors import CliError
from meshd.cli.flags import BOOL, Flag, Parsed
from meshd.cli.nodes import base_name, canonical_ip, peers
from meshd.cli.output import out, printable


def _kubeconfig(client: LocalClient, flags: Parsed) -> None:
    from meshd.cli import kubeconfig

    if len(flags.args) != 1 or not flags.args[0]:
        raise CliError("usage: mesh configure kubeconfig <hostname-or-fqdn>")
    scheme, separator, host = flags.args[0].rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise CliError(f'"{printable(scheme)}" is neither http nor https')
    scheme = scheme or ("http" if flags.on("http") else "https")
    host = host.rstrip("/")
    status = client.status()
    if status.get("BackendState") != "Running":
        raise CliError("meshd is not running; see 'mesh status'")
    name = _node_name(status, host) or _service_name(client, status, host)
    if not name:
        raise CliError(f'no peer found for "{printable(host)}"')
    kubeconfig.configure(f"{scheme}://{name}", name)
    out(f'kubeconfig configured for "{name}" at URL "{scheme}://{name}"')


def _node_name(status: JSON, host: str) -> str:
    """The full name of a peer given by name or address, "" for none."""
    ip, wanted = canonical_ip(host), host.lower().rstrip(".")
    for peer in peers(status):
        full = str(peer.get("DNSName") or "").lower().rstrip(".")
        if full and (wanted in (full, base_name(status, peer).lower()) or ip in (peer.get("TailscaleIPs") or [])):
            return full
    return ""


def _service_name(client: LocalClient, status: JSON, host: str) -> str:
    """The full name of a service whose address a peer has, "" for none.

    Raises:
        CliError: there is such a service, and nobody serves it now.
    """
    wanted = host.lower().rstrip(".")
    config = client.json("GET", "dns-config") or {}
    for record in config.get("ExtraRecords") or []:
        name = str(record.get("Name") or "").lower().rstrip(".")
        if name and wanted in (name, name.partition(".")[0]):
            address = canonical_ip(str(record.get("Value") or ""))
            prefix = f"{address}/{128 if address and ':' in address else 32}"
            if any(prefix in (peer.get("AllowedIPs") or []) for peer in peers(status)):
                return name
            raise CliError(f'"{printable(host)}" is in MagicDNS, but is not currently reachable on any known peer')
    return ""


KUBECONFIG = Command(
    "kubeconfig",
    usage="mesh configure kubeconfig <hostname-or-fqdn>",
    short="Let kubectl connect to a cluster through the mesh",
    long="""\
The host is the node or service of the mesh that stands before the cluster's API server. A
cluster, a user and a context are added to kubectl's configuration (KUBECONFIG or
~/.kube/config), and the context becomes the one in use.""",
    flags=[Flag("http", BOOL, False, "connect by http instead of https, unless the host begins with a scheme")],
    run=_kubeconfig,
    complete=complete_node,
)

COMMAND = Command(
    "configure",
    usage="mesh configure <subcommand>",
    short="Let other programs of this host use the mesh",
    parts=[Part("kubeconfig", KUBECONFIG.short, "configure_command", "KUBECONFIG")],
)
