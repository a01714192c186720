"""What a look at this host shows about its resolver, and the way that follows from it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from meshd.base.errors import MeshdError
from meshd.core.dnscompile import OSConfig
from meshd.core.dnsway import Facts, Way
from meshd.host.linux.dnsdirect import DirectDNS, look
from meshd.host.linux.dnsnetworkmanager import NetworkManagerDNS
from meshd.host.linux.dnsresolvconf import DebianResolvconfDNS, OpenresolvDNS
from meshd.host.linux.dnsresolved import SERVICE, ResolvedDNS
from meshd.host.linux.journal import Journal
from meshd.host.linux.namespaces import is_foreign, stands_apart
from meshd.host.linux.program import SECONDS, Run, run_program
from meshd.host.resolvconf import RESOLV_CONF
from meshd.wire.resolvconf import NONE

_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_NM = ("org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager")
_BUS_SOCKET = Path("/run/dbus/system_bus_socket")
_DEBIAN_STATUS = 99  # of Debian's resolvconf for options that it does not know


class HostDNS(Protocol):
    """One way to set the host's resolver. Methods raise MeshdError and run programs that take their time."""

    can_split: bool
    """Whether some names can go to us, and the others where they went before."""

    @property
    def watched(self) -> tuple[Path, ...]: ...

    def base(self) -> OSConfig: ...

    def apply(self, config: OSConfig) -> None: ...

    def lost(self) -> bool: ...

    def close(self) -> None: ...


def look_at_host(run: Run = run_program, root: Path = Path("/"), bus_socket: Path = _BUS_SOCKET) -> Facts:
    """Only looks: nothing is started or changed. Raises MeshdError when /etc/resolv.conf cannot be read."""
    found = look(root / RESOLV_CONF.lstrip("/"))
    resolved_up = manager_up = uses_resolved = False
    version = ""
    # The machine's own services are not for a network namespace within it: interfaces there are others.
    apart = stands_apart()
    if _has_bus(bus_socket, apart):
        resolved_up, manager_up = _has_owner(run, SERVICE), _has_owner(run, _NM[0])
    if manager_up:
        version = _property(run, *_NM, _NM[0], "Version")
        uses_resolved = _property(run, _NM[0], f"{_NM[1]}/DnsManager", f"{_NM[0]}.DnsManager", "Mode") == SERVICE_MODE
    try:
        nsswitch = (root / "etc/nsswitch.conf").read_text(errors="replace")
    except OSError:
        nsswitch = ""
    return Facts(
        resolv_conf=None if found.kind == NONE else found.data,
        nsswitch=nsswitch,
        resolved_up=resolved_up,
        networkmanager_up=manager_up,
        networkmanager_version=version,
        networkmanager_uses_resolved=uses_resolved,
        resolvconf=resolvconf_kind() if b"resolvconf" in found.data and not apart else "",
    )


SERVICE_MODE = "systemd-resolved"


def open_way(way: Way, journal: Journal, interface: str, index: int) -> HostDNS:
    """The way that was chosen."""
    if way is Way.RESOLVED:
        return ResolvedDNS(journal, interface, index)
    if way is Way.NETWORK_MANAGER:
        return NetworkManagerDNS(journal, interface)
    if way is Way.DEBIAN_RESOLVCONF:
        return DebianResolvconfDNS(journal)
    if way is Way.OPENRESOLV:
        return OpenresolvDNS(journal)
    return DirectDNS(journal)


def foreign_problem(path: str = RESOLV_CONF) -> str:
    """Why this process must leave the resolver alone; "" when it need not."""
    if not is_foreign(path):
        return ""
    return (
        f"meshd runs in a network namespace of its own, but {path} is the one of the whole machine, so it was left "
        "alone. Give the namespace a file of its own, /etc/netns/NAME/resolv.conf for `ip netns exec`."
    )


def resolvconf_kind() -> str:
    """Which of the programs called resolvconf is installed."""
    if shutil.which("resolvconf") is None:
        return ""
    try:
        done = subprocess.run(
            ("resolvconf", "--version"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode == _DEBIAN_STATUS or done.stdout.startswith("Debian resolvconf"):
        return "debian"
    # systemd's own program answers to the name as well, and sends everything to systemd-resolved.
    return "" if "systemd" in done.stdout else "openresolv"


def _has_bus(bus_socket: Path, apart: bool) -> bool:
    if shutil.which("busctl") is None:
        return False
    return "DBUS_SYSTEM_BUS_ADDRESS" in os.environ or (bus_socket.exists() and not apart)


def _has_owner(run: Run, name: str) -> bool:
    try:
        return run(("busctl", "call", *_BUS, "NameHasOwner", "s", name), "").split()[-1:] == ["true"]
    except MeshdError:
        return False


def _property(run: Run, service: str, path: str, interface: str, name: str) -> str:
    try:
        words = run(("busctl", "--auto-start=no", "get-property", service, path, interface, name), "").split(None, 1)
    except MeshdError:
        return ""
    return words[1].strip().strip('"') if len(words) > 1 else ""
