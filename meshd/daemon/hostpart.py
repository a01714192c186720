"""The part of a node that touches the host: tunnel interface, router, network monitor, forwarding checks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from meshd.base.addr import IPAddress, IPPrefix, parse_prefix
from meshd.base.errors import MeshdError
from meshd.base.log import get_logger, kv
from meshd.daemon.flags import Flags
from meshd.io.interfaces import addresses_out
from meshd.io.mark import mark_socket
from meshd.node.capture import Tap, no_tap

if TYPE_CHECKING:
    from meshd.core.dnscompile import ResolverConfig
    from meshd.core.dnsway import Way
    from meshd.host.linux.dnsfacts import HostDNS
    from meshd.host.linux.dnskeeper import DnsKeeper
    from meshd.host.linux.dnskeeper import Outcome as DnsOutcome
    from meshd.host.linux.firewallkeeper import FirewallKeeper
    from meshd.host.linux.journal import Journal
    from meshd.host.linux.netfilter import Netfilter, Outcome
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
        self._outside: RtNetlink | None = None
        """The same without a tunnel interface, where addresses are only looked at."""
        self._journal: Journal | None = None
        self._netfilter: Netfilter | None = None
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
            ip_interface(((a.far or a.local).packed, a.bits)).network
            for a in self._netlink.addresses()
            if a.interface != self._own_index
        ]

    def own_addresses(self) -> list[IPAddress]:
        """The addresses of the host's other interfaces, as other hosts may use them."""
        if self._netlink is None:
            return []
        found = self._netlink.addresses()
        return [a.local for a in found if a.interface != self._own_index and not a.local.is_loopback]

    def watch_network(self, events: HostEvents) -> None:
        """Tell of changes of the host's network also without a tunnel interface, with which that is done already.

        Where the kernel does not say, connections that are gone are noticed by their silence.
        """
        if self.tun is not None or not sys.platform.startswith("linux"):
            return
        from meshd.host.linux.monitor import NetworkMonitor
        from meshd.host.linux.router import TABLE
        from meshd.host.linux.rtnetlink import RtNetlink

        def of_ours() -> None:
            """There is neither interface nor route."""

        loop = asyncio.get_running_loop()
        try:
            netlink = RtNetlink()
            self._exits.callback(netlink.close)
            monitor = NetworkMonitor(
                loop,
                0,
                "",
                TABLE,
                events.network_changed,
                lambda _: False,
                of_ours,
                of_ours,
                lambda _: None,
                of_ours,
                netlink.addresses,
                addresses_out,
            )
        except (OSError, MeshdError) as error:  # a sandbox
            log.info("network_not_watched", extra=kv(reason=error))
            return
        self._exits.callback(monitor.close)
        self._outside = netlink

    def reachable_addresses(self) -> list[IPAddress]:
        """Those of them whose interface is up: one that is switched off keeps what it was given."""
        netlink = self._netlink or self._outside
        if netlink is None:
            return []
        from meshd.wire.netlink import addresses_up

        found = addresses_up(netlink.links(), netlink.addresses())
        return [a.local for a in found if a.interface != self._own_index and not a.local.is_loopback]

    def uid_of(self, name: str) -> int | None:
        """The uid of a user of this host, by name or number."""
        import pwd

        with contextlib.suppress(KeyError, ValueError):  # the latter for what can be no name
            return pwd.getpwnam(name).pw_uid
        return int(name) if name.isascii() and name.isdigit() and len(name) <= 10 else None

    def forwarding_problem(self, routes: list[str]) -> str:
        """What keeps this host from forwarding for the routes it advertises (RT-10)."""
        if self._netlink is None:
            return ""
        from meshd.host.linux.forwarding import forwarding_problem

        own = {a.local for a in self._netlink.addresses()}
        return forwarding_problem([parse_prefix(route) for route in routes], own)

    def strict_interfaces(self) -> list[str]:
        """Interfaces that check strictly from where packets come."""
        if self.tun is None:
            return []
        from meshd.host.linux.forwarding import strict_interfaces

        return strict_interfaces(besides=self.tun.name)

    def keep_firewall(self, ports: Callable[[], list[int]], done: Callable[[Outcome], None]) -> FirewallKeeper | None:
        """Who sets packet filter rules while this part is open; None without a tunnel interface."""
        if self.tun is None or self._journal is None:
            return None
        from meshd.host.linux.firewallkeeper import FirewallKeeper
        from meshd.host.linux.netfilter import Netfilter

        self._netfilter = Netfilter(self.tun.name, self._journal)
        keeper = FirewallKeeper(asyncio.get_running_loop(), self._netfilter, ports, self.attached, done)
        self._exits.callback(keeper.close)
        return keeper

    def keep_dns(
        self, resolver: Callable[[ResolverConfig], None], done: Callable[[DnsOutcome], None]
    ) -> DnsKeeper | None:
        """Who sets the host's resolver, to be closed before our own stops answering; None without a tunnel interface:
        then no program of the host could ask us."""
        if self.tun is None or self._journal is None:
            return None
        from meshd.host.linux.dnsfacts import open_way
        from meshd.host.linux.dnskeeper import DnsKeeper

        journal, tun, index = self._journal, self.tun, self._own_index

        def opened(way: Way) -> HostDNS:
            return open_way(way, journal, tun.name, index)

        return DnsKeeper(asyncio.get_running_loop(), opened, resolver, done)

    def rename(self, name: str) -> None:
        """Somebody gave our interface another name: go on with that one."""
        if self.tun is None:
            return
        log.warning("interface_renamed", extra=kv(was=self.tun.name, now=name))
        self.tun.name = name
        if self.router is not None:
            self.router.rename(name)
        if self._netfilter is not None:
            self._netfilter.rename(name)

    def udp_gro_problem(self) -> str:
        """What keeps UDP from being forwarded in batches; "" for nothing, or without a tunnel interface."""
        if self.tun is None:
            return ""
        from meshd.host.linux.ethtool import udp_gro_problem

        return udp_gro_problem(self.tun.name)

    def enable_udp_gro(self) -> None:
        """Mend that. Raises MeshdError."""
        if self.tun is None:
            raise MeshdError("UDP GRO forwarding cannot be enabled in userspace mode", code="unsupported")
        from meshd.host.linux.ethtool import enable_udp_gro

        enable_udp_gro(self.tun.name)

    def tap(self, deliver: Callable[[bool, bytes], None]) -> Tap:
        """Copies of the packets of the tunnel interface. Raises MeshdError where there are none to be had."""
        if self.tun is None:
            return no_tap(deliver)
        from meshd.io.packettap import PacketTap

        return PacketTap(asyncio.get_running_loop(), self.tun.name, deliver)

    def marks_sockets(self) -> bool:
        """Whether our own packets are told apart by a mark (or need not be, without a tunnel interface)."""
        if self.tun is None:
            return True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return mark_socket(probe)

    def close(self) -> None:
        self._exits.close()


class HostEvents(Protocol):
    """What happens on the host, told in the event loop."""

    def network_changed(self) -> None: ...

    def routing_lost(self) -> None: ...

    def interface_lost(self) -> None: ...

    def interface_renamed(self) -> None: ...

    def settings_changed(self) -> None: ...


def open_host(flags: Flags, events: HostEvents, queues: int = 1) -> HostPart:
    """Open the first entry of ``--tun`` that works, with so many queues, its router and the monitor.

    Raises MeshdError that tells for each entry why it did not, and what to do about the last.
    """
    part = HostPart()
    reasons: list[tuple[str, str]] = []
    hint: str | None = None
    for name in flags.tun.split(","):
        if name == USERSPACE:
            return part
        try:
            _open_tun(part, name, flags, events, queues)
        except (MeshdError, OSError) as error:
            part.close()
            failure = error if isinstance(error, MeshdError) else _unconfigured(name, error)
            reasons.append((name, failure.message))
            hint = failure.hint or hint
            log.warning("tun_failed", extra=kv(interface=name, reason=failure.message))
            continue
        return part
    several = "cannot open a tunnel interface: " + "; ".join(f"{name}: {reason}" for name, reason in reasons)
    raise MeshdError(
        reasons[0][1] if len(reasons) == 1 else several,
        code="host",
        hint=hint or "Run meshd as root with /dev/net/tun present, or with --tun=userspace-networking.",
    )


def _unconfigured(name: str, error: OSError) -> MeshdError:
    """A sandbox may have no AF_NETLINK, and somebody may take the interface away at once."""
    hint = "Allow meshd AF_NETLINK (RestrictAddressFamilies= of its unit), or use --tun=userspace-networking."
    return MeshdError(
        f"cannot configure the tunnel interface {name}: {error.strerror or error}",
        code="host",
        hint=hint if error.errno in (errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES) else None,
    )


def _open_tun(part: HostPart, name: str, flags: Flags, events: HostEvents, queues: int) -> None:
    if not sys.platform.startswith("linux"):
        raise MeshdError(f"tunnel interfaces are not supported on {sys.platform}", code="unsupported")
    if name.startswith("tap:"):
        raise MeshdError(
            "TAP interfaces are not supported",
            code="unsupported",
            hint="Use a TUN interface, such as --tun=mesh0, and --advertise-routes for networks behind this host.",
        )
    if not 0 < len(name.encode()) <= _MAX_NAME or "/" in name or not name.isprintable() or " " in name:
        raise MeshdError(f"{name!r} is no interface name: 1 to {_MAX_NAME} characters without / or space", code="usage")
    from meshd.host.linux.dnsundo import undo_all as undo_dns
    from meshd.host.linux.journal import Journal
    from meshd.host.linux.monitor import NetworkMonitor
    from meshd.host.linux.router import TABLE, LinuxRouter
    from meshd.host.linux.rtnetlink import RtNetlink
    from meshd.io.tun import open_tun

    tun = open_tun(name, queues=queues)
    part._exits.callback(tun.close)
    netlink = RtNetlink()
    part._exits.callback(netlink.close)
    if netlink.tun_queues(netlink.interface_index(tun.name)) > len(tun.fds):
        # The kernel lets anybody open one more queue of an interface that has several, and shares out the packets.
        raise MeshdError(
            f"cannot open the tunnel interface {tun.name}: another process holds it",
            code="tun",
            hint="Stop the other process or choose another name with --tun.",
        )
    path = Path(flags.statedir) / "host-journal.json" if flags.statedir else None
    part._journal = Journal(path)
    # The interface is ours, so no other daemon runs here that could have written what is there.
    undo_dns(part._journal, unknown=True)
    router = LinuxRouter(netlink, tun.name, part._journal)
    part._exits.callback(router.close)
    part._own_index = netlink.interface_index(tun.name)

    def renamed(name: str) -> None:
        part.rename(name)
        events.interface_renamed()

    monitor = NetworkMonitor(
        asyncio.get_running_loop(),
        part._own_index,
        tun.name,
        TABLE,
        events.network_changed,
        router.holds,
        events.routing_lost,
        events.interface_lost,
        renamed,
        events.settings_changed,
        netlink.addresses,
        addresses_out,
        netlink.port,
    )
    part._exits.callback(monitor.close)
    part.tun, part.router, part._netlink = tun, router, netlink


def _note_usual(netlink: RtNetlink, journal: Journal, names: str) -> None:
    """Packet filter rules as they are called after interfaces that are gone; those of others may be in use."""
    from meshd.host.linux.journal import FirewallEntry
    from meshd.host.linux.netfilter import IPTABLES, NFT

    gone = []
    for name in names.split(","):
        try:
            netlink.interface_index(name)
        except OSError:
            gone.append(name)
    programs = {NFT: "nft", IPTABLES: "iptables-restore"}
    kinds = [kind for kind, program in programs.items() if shutil.which(program) is not None]
    journal.record_firewall([FirewallEntry(kind, name) for name in gone for kind in kinds])


def undo_traces(flags: Flags) -> None:
    """Undo what a daemon that is gone left on the host (``--cleanup``, and every start)."""
    if not sys.platform.startswith("linux"):
        return
    path = Path(flags.statedir) / "host-journal.json" if flags.statedir else None
    try:
        found = path is not None and path.exists()
    except OSError as error:
        raise MeshdError(
            f"cannot read the state directory {flags.statedir}: {error.strerror}",
            code="host",
            hint="Run meshd as root.",
        ) from None
    if not found and not flags.cleanup:
        return
    from meshd.host.linux.dnsundo import undo_all as undo_dns
    from meshd.host.linux.journal import Journal

    journal = Journal(path)
    undo_dns(journal, unknown=flags.cleanup)
    from meshd.host.linux.netfilter import undo
    from meshd.host.linux.router import clean_up, note_unused
    from meshd.host.linux.rtnetlink import RtNetlink

    try:
        with contextlib.closing(RtNetlink()) as netlink:
            if not found:
                # One that kept no state is gone without a word, as in a container that was killed.
                journal = Journal(None)
                _note_usual(netlink, journal, flags.tun)
                note_unused(netlink, journal)
            undo(journal)
            clean_up(netlink, journal)
    except (OSError, MeshdError) as error:
        log.warning("cleanup_failed", extra=kv(reason=error))
