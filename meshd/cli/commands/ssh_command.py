"""`mesh ssh`: the system's ssh with what the mesh knows about names and host keys."""

from __future__ import annotations

import os
import sys

from meshd.cli.client import DEFAULT_SOCKET, JSON, LocalClient
from meshd.cli.command import Command
from meshd.cli.completion import complete_node
from meshd.cli.errors import CliError
from meshd.cli.files import write_if_changed
from meshd.cli.flags import Parsed
from meshd.cli.nodes import base_name, canonical_ip, peers


def _run(client: LocalClient, flags: Parsed) -> None:
    if not flags.args:
        raise CliError("usage: mesh ssh [user@]<host>")
    user, at, host = flags.args[0].rpartition("@")
    if not host or host.startswith("-") or user.startswith("-"):
        raise CliError("usage: mesh ssh [user@]<host>")
    status = client.status()
    peer = find_peer(status, host)
    if peer is not None:
        host = name_for_ssh(peer, use_dns=bool(client.prefs().get("CorpDNS")))
    program = _find_ssh()
    arguments = [program, *_options(known_hosts_file(status), client.path), f"{user}{at}{host}", *flags.args[1:]]
    try:
        os.execv(program, arguments)
    except OSError as error:
        raise CliError(f"cannot run {program}: {error.strerror}") from None


def find_peer(status: JSON, host: str) -> JSON | None:
    """The peer with that address, name or short name."""
    address = canonical_ip(host)
    wanted = host.lower().rstrip(".")
    for peer in peers(status):
        if address is not None:
            if address in (peer.get("TailscaleIPs") or []):
                return peer
            continue
        full = str(peer.get("DNSName") or "").lower().rstrip(".")
        if wanted and wanted in (full, base_name(status, peer).lower()):
            return peer
    return None


def name_for_ssh(peer: JSON, *, use_dns: bool) -> str:
    """The name that ssh is told: one for every spelling, so that one line of known hosts is enough."""
    addresses: list[str] = peer.get("TailscaleIPs") or []
    if use_dns or not addresses:
        return str(peer.get("DNSName") or "")
    return next((ip for ip in addresses if ":" not in ip), addresses[0])


def known_hosts(status: JSON) -> str:
    """The host keys that the coordination server vouches for, as ssh reads them."""
    lines = []
    for peer in sorted(peers(status), key=lambda p: str(p.get("DNSName") or "")):
        names = [str(peer.get("DNSName") or ""), *(peer.get("TailscaleIPs") or [])]
        for key in peer.get("sshHostKeys") or []:
            key = str(key).strip()
            if key.isprintable():
                lines += [f"{name} {key}" for name in names if name and " " not in name]
    return "".join(line + "\n" for line in lines)


def known_hosts_file(status: JSON) -> str:
    """Write them where only this user can change them."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    directory = os.path.join(home, "meshd")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise CliError(f"cannot make {directory}: {error.strerror}") from None
    path = os.path.join(directory, "ssh_known_hosts")
    write_if_changed(path, known_hosts(status).encode(), 0o644)
    return path


def _find_ssh() -> str:
    from shutil import which

    program = which("ssh")
    if program is None:
        raise CliError("no system 'ssh' command found: install the OpenSSH client")
    return program


def _options(hosts: str, socket_path: str) -> list[str]:
    proxy = [os.path.abspath(sys.argv[0])]
    if socket_path != DEFAULT_SOCKET:
        proxy.append(f"--socket={socket_path}")
    command = " ".join('"' + word.replace("%", "%%") + '"' for word in proxy) + " nc %h %p"
    values = (
        f'UserKnownHostsFile "{hosts}"',
        "UpdateHostKeys no",
        "StrictHostKeyChecking yes",
        "CanonicalizeHostname no",
        f"ProxyCommand {command}",
    )
    return [word for value in values for word in ("-o", value)]


COMMAND = Command(
    "ssh",
    usage="mesh ssh [user@]<host> [args...]",
    short="SSH to a node of the mesh",
    long="""\
Runs the ssh of the system and adds to it:

  - names of the mesh are known, even with --accept-dns=false
  - it works without an interface too (--tun=userspace-networking)
  - the keys of the host are checked against those that the coordination server vouches for""",
    run=_run,
    complete=complete_node,
)
