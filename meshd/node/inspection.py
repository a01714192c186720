"""Answers about the network and this machine that change nothing, as JSON for the LocalAPI."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

import msgspec

from meshd.base.addr import AddrPort, IPAddress, IPPrefix
from meshd.base.clock import Clock
from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.base.keys import LockPrivate
from meshd.base.ranges import DERP_MAGIC_IP
from meshd.core import exitnode
from meshd.core.candidate import Quality
from meshd.core.dnscompile import OSConfig
from meshd.core.filtermatches import filter_matches
from meshd.core.node import Node
from meshd.core.path import PathChange
from meshd.core.unsignedpeers import holders_of
from meshd.host.resolvconf import host_resolvers
from meshd.node.backend import Backend
from meshd.node.dnsresolver import NodeResolver
from meshd.node.magicsock import MagicSock
from meshd.node.probes import peer_for
from meshd.node.relaycheck import region_report
from meshd.wire.control import encode

JSON = dict[str, Any]
_SERVICE_PREFIX = "services/"


class HostChecks(Protocol):
    """What the host can say about itself."""

    def uid_of(self, name: str) -> int | None: ...

    def forwarding_problem(self, routes: list[str]) -> str: ...

    def udp_gro_problem(self) -> str: ...

    def enable_udp_gro(self) -> None: ...

    def marks_sockets(self) -> bool: ...


class Inspection:
    """The reading half of a node's service that needs neither tunnel nor counters."""

    def __init__(
        self,
        backend: Backend,
        magicsock: MagicSock,
        clock: Clock,
        host: HostChecks,
        resolver: NodeResolver,
        base_dns: Callable[[], OSConfig] = host_resolvers,
    ) -> None:
        """``base_dns`` tells what the host's resolver would be without us."""
        self._base_dns = base_dns
        self._backend = backend
        self._resolver = resolver
        self._magicsock = magicsock
        self._clock = clock
        self._host = host
        self._last_suggestion = ("", "")  # the profile that it was made for, and a stable id
        self._updates: list[JSON] = []

    def packet_filter_rules(self) -> list[JSON] | None:
        netmap = self._backend.netmap
        return [msgspec.json.decode(encode(rule)) for rule in netmap.filter_rules] if netmap else None

    def packet_filter_matches(self) -> list[JSON] | None:
        netmap = self._backend.netmap
        return filter_matches(netmap.filter_rules, self._holders) if netmap else None

    def _holders(self, capability: str) -> Iterable[IPPrefix]:
        netmap = self._backend.netmap
        return holders_of(capability, netmap.peers.values() if netmap else ())

    def has_netmap(self) -> bool:
        return self._backend.netmap is not None

    def has_capability(self, name: str) -> bool:
        netmap = self._backend.netmap
        return netmap is not None and netmap.self_node.has_cap(name)

    def dns_config(self) -> JSON:
        netmap = self._backend.netmap
        if netmap is None:
            raise MeshdError("no netmap", code="unavailable")
        built: JSON = msgspec.json.decode(encode(netmap.dns)) if netmap.dns else {}
        for suffix, resolvers in (built.get("Routes") or {}).items():
            built["Routes"][suffix] = resolvers or []
        return built

    def cert_domains(self) -> list[str] | None:
        netmap = self._backend.netmap
        return sorted(netmap.dns.cert_domains) or None if netmap and netmap.dns else None

    def services(self) -> JSON:
        """Services of the network that this node may use, by name."""
        netmap = self._backend.netmap
        if netmap is None:
            raise MeshdError("no netmap", code="unavailable")
        found: JSON = {}
        for name, values in sorted(netmap.self_node.cap_map.items()):
            if name.startswith(_SERVICE_PREFIX):
                for value in values or ():
                    if isinstance(value, dict) and isinstance(value.get("Name"), str):
                        found[value["Name"]] = value
        return found

    def os_dns(self) -> JSON:
        """What the system has without us: used for names that nobody else is in charge of."""
        try:
            found = self._base_dns()
        except MeshdError as error:
            raise MeshdError(f"reading the DNS configuration of this system: {error.message}") from None
        return {
            "Nameservers": [str(server) for server in found.nameservers],
            "SearchDomains": list(found.search_domains),
            "MatchDomains": list(found.match_domains),
        }

    async def relay_report(self, region: str) -> JSON:
        return await region_report(self._magicsock.relays, region, self._magicsock.netcheck)

    async def dns_query(self, name: str, kind: str) -> JSON:
        return await self._resolver.query_json(name, kind)

    def path_changes(self, ip: IPAddress) -> list[JSON]:
        netmap = self._backend.netmap
        if netmap is None:
            raise MeshdError("no netmap", code="unavailable")
        if ip in netmap.self_node.ips:
            raise MeshdError(f"{ip} is local Tailscale IP")
        prefs = self._backend.prefs
        peer = peer_for(netmap, ip, subnets=prefs.route_all, exit_node=prefs.exit_node_id)
        if peer is None:
            raise MeshdError("no matching peer")
        offset = self._clock.wall() - self._clock.monotonic()
        return [_change_json(change, change.at + offset) for change in self._magicsock.path_changes(peer.key)]

    def lock_status(self) -> JSON:
        """Tailnet lock is for others to enforce: this node has a key for it, and holds no chain of updates."""
        persist = self._backend.prefs.persist()
        node = self._backend.node_private
        lock = LockPrivate.parse(persist.network_lock_key)
        return {
            "Enabled": False,
            "Head": None,
            "PublicKey": "nlpub:" + "00" * 32 if node is None or lock.is_zero else lock.public().text(),
            "NodeKey": node.public().text() if node is not None else None,
            "NodeKeySigned": False,
            "NodeKeySignature": None,
            "TrustedKeys": None,
            "VisiblePeers": None,
            "FilteredPeers": None,
            "StateID": 0,
        }

    def suggest_exit_node(self) -> JSON:
        """EX-05."""
        node = exitnode.suggest(
            self._backend.netmap,
            self._magicsock.home_relay,
            self._magicsock.recent_latency,
            self._suggested or self._automatic(),
            secrets.choice,
            self._backend.authority.allowed_exit_nodes(),
        )
        self._last_suggestion = (self._backend.profiles.current.id, node.stable_id if node is not None else "")
        return _suggestion(node)

    @property
    def _suggested(self) -> str:
        """The last suggestion; that of another profile means nothing in this one's network."""
        profile, node = self._last_suggestion
        return node if profile == self._backend.profiles.current.id else ""

    def _automatic(self) -> str:
        """The exit node that was chosen for the user, maybe before this process began."""
        prefs = self._backend.prefs
        return prefs.exit_node_id if prefs.auto_exit_node else ""

    def _suggested_id(self) -> str:
        """The suggestion, or the last one while there can be none."""
        try:
            return str(self.suggest_exit_node()["ID"])
        except MeshdError:
            return self._suggested

    def check_ip_forwarding(self) -> str:
        # Clients ask before they advertise: what counts is what the routes may be, not what they are.
        return self._host.forwarding_problem(["0.0.0.0/0", "::/0"])

    def check_udp_gro(self) -> str:
        return self._host.udp_gro_problem()

    async def enable_udp_gro(self) -> None:
        self._host.enable_udp_gro()

    async def start_update(self) -> None:
        reason = "meshd does not update itself; use the package manager of this system"
        self._updates = [{"status": "UpdateFailed", "message": reason, "version": ""}]

    def update_progress(self) -> list[JSON]:
        return self._updates

    def marks_sockets(self) -> bool:
        return self._host.marks_sockets()

    def is_operator(self, uid: int) -> bool:
        name = self._backend.prefs.operator_user
        return bool(name) and self._host.uid_of(name) == uid


def _change_json(change: PathChange, wall: float) -> JSON:
    shown: JSON = {"When": format_time(wall), "What": change.what}
    if change.before is not None:
        shown["From"] = _end(change.before)
    elif isinstance(change.after, (Quality, AddrPort)):
        shown["From"] = ""  # the first of its kind
    if change.after is not None:
        shown["To"] = _end(change.after)
    return shown


def _end(value: object) -> str | list[str]:
    """One side of a path change: an address, several, or a relay region written as an address."""
    if isinstance(value, int):
        return f"{DERP_MAGIC_IP}:{value}" if value else ""
    if isinstance(value, Collection) and not isinstance(value, (str, AddrPort, Quality)):
        return sorted(str(item) for item in value)
    return str(value.address if isinstance(value, Quality) else value)


def _suggestion(node: Node | None) -> JSON:
    if node is None:
        return {"ID": "", "Name": ""}
    shown: JSON = {"ID": node.stable_id, "Name": node.name}
    place = exitnode.location_of(node)
    if place is not None:
        shown["Location"] = msgspec.json.decode(encode(place))
    return shown
