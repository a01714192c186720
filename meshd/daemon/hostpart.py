"""The part of a node that touches the host: tunnel interface, router, network monitor, forwarding checks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from meshd.base.addr import IPPrefix, parse_prefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.daemon.flags import Flags
from meshd.io.mark import mark_socket

if TYPE_CHECKING:
    from meshd.host.linux.router import LinuxRouter
    from meshd.host.linux.rtnetlink import RtNetlink
    from meshd.io.tun import TunDevice

log = get_logger(__name__)

USERSPACE = "userspace-networking"
_MAX_NAME = 15  # bytes of an interface name (IFNAMSIZ - 1)


class HostPart:
    """What was opened on the host; ``close`` undoes it. Without a tunnel interface there is no router."""

    def __init__(self) -> None:
        self._exits = contextlib.ExitStack()
        self.tun: TunDevice | None = None
        self.router: LinuxRouter | None = None
        self.problems: list[str] = []
        self._netlink: RtNetlink | None = None
        self._own_index = 0

    @property
    def tun_fds(self) -> list[int]:
        return list(self.tun.fds) if self.tun is not None else []

    @property
    def vnet_header(self) -> bool:
        return self.tun is not None and self.tun.vnet_header

    def attached(self) -> list[IPPrefix]:
        """The prefixes of the host's other interfaces."""
        if self._netlink is None:
            return []
        return [
            ip_interface((a.local.packed, a.bits)).network
            for a in self._netlink.addresses()
            if a.interface != self._own_index
        ]

    def uid_of(self, name: str) -> int | None:
        """The uid of a user of this host, by name or number."""
        import pwd

        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
        return int(name) if name.isascii() and name.isdigit() else None

    def forwarding_problem(self, routes: list[str]) -> str:
        """RT-10: what keeps this host from forwarding for the routes it advertises."""
        if self.tun is None:
            return ""
        missing = []
        versions = {parse_prefix(route).version for route in routes}
        for version, path in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
            if version in versions and _read(f"/proc/sys/{path}") == "0":
                missing.append(path.replace("/", "."))
        if not missing:
            return ""
        return f"IP forwarding is disabled, subnet routing will not work. Enable it with: sysctl -w {missing[0]}=1"

    def udp_gro_problem(self) -> str:
        """What keeps UDP from being forwarded in batches; "" for nothing, or without a tunnel interface."""
        if self.tun is None:
            return ""
        from meshd.host.linux.ethtool import udp_gro_problem

        return udp_gro_problem(self.tun.name)

    def enable_udp_gro(self) -> None:
        """Mend that. Raises MeshdError."""
        if self.tun is None:
            raise MeshdError("there is no tunnel interface", code="unsupported")
        from meshd.host.linux.ethtool import enable_udp_gro

        enable_udp_gro(self.tun.name)

    def marks_sockets(self) -> bool:
        """Whether our own packets are told apart by a mark (or need not be, without a tunnel interface)."""
        if self.tun is None:
            return True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return mark_socket(probe)

    def close(self) -> None:
        self._exits.close()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


class HostEvents(Protocol):
    """What happens on the host, told in the event loop."""

    def network_changed(self) -> None: ...

    def rules_lost(self) -> None: ...

    def interface_lost(self) -> None: ...


def open_host(flags: Flags, events: HostEvents) -> HostPart:
    """Open the first entry of ``--tun`` that works, its router and the monitor.

    Raises MeshdError that tells for each entry why it did not.
    """
    part = HostPart()
    reasons = []
    for name in flags.tun.split(","):
        if name == USERSPACE:
            return part
        try:
            _open_tun(part, name, flags, events)
        except MeshdError as error:
            part.close()
            reasons.append(f"{name}: {error.message}")
            log.warning("tun_failed", extra=kv(interface=name, reason=error.message))
            continue
        return part
    raise MeshdError(
        "cannot open a tunnel interface: " + "; ".join(reasons),
        code="host",
        hint="Run meshd as root with /dev/net/tun present, or with --tun=userspace-networking.",
    )


def _open_tun(part: HostPart, name: str, flags: Flags, events: HostEvents) -> None:
    if not sys.platform.startswith("linux"):
        raise MeshdError(f"tunnel interfaces are not supported on {sys.platform}", code="unsupported")
    if not 0 < len(name.encode()) <= _MAX_NAME or "/" in name or not name.isprintable() or " " in name:
        raise MeshdError(f"{name!r} is no interface name: 1 to {_MAX_NAME} characters without / or space", code="usage")
    from meshd.host.linux.journal import Journal
    from meshd.host.linux.monitor import NetworkMonitor
    from meshd.host.linux.router import TABLE, LinuxRouter
    from meshd.host.linux.rtnetlink import RtNetlink
    from meshd.io.tun import open_tun

    tun = open_tun(name)
    part._exits.callback(tun.close)
    netlink = RtNetlink()
    part._exits.callback(netlink.close)
    path = Path(flags.statedir) / "host-journal.json" if flags.statedir else None
    router = LinuxRouter(netlink, tun.name, Journal(path))
    part._exits.callback(router.close)
    part._own_index = netlink.interface_index(tun.name)
    monitor = NetworkMonitor(
        asyncio.get_running_loop(),
        part._own_index,
        TABLE,
        events.network_changed,
        events.rules_lost,
        events.interface_lost,
    )
    part._exits.callback(monitor.close)
    part.tun, part.router, part._netlink = tun, router, netlink


def undo_traces(flags: Flags) -> None:
    """Undo what a daemon that is gone left on the host (``--cleanup``, and every start)."""
    if not sys.platform.startswith("linux") or not flags.statedir:
        return
    path = Path(flags.statedir) / "host-journal.json"
    if not path.exists():
        return
    from meshd.host.linux.journal import Journal
    from meshd.host.linux.router import clean_up
    from meshd.host.linux.rtnetlink import RtNetlink

    netlink = RtNetlink()
    try:
        clean_up(netlink, Journal(path))
    except (OSError, MeshdError) as error:
        log.warning("cleanup_failed", extra=kv(reason=error))
    finally:
        netlink.close()
