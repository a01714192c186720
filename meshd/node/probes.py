"""Pings of all kinds and the network check, as JSON for the LocalAPI."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from meshd.base.addr import AddrPort, IPAddress
from meshd.base.errors import MeshdError
from meshd.base.gotime import format_time
from meshd.core.netmap import Netmap
from meshd.core.netreport import Report
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.core.routes import accepted_prefixes
from meshd.node.engine import Engine
from meshd.node.magicsock import MagicSock
from meshd.node.peerapiping import hit_peer_api, peer_api_of

JSON = dict[str, Any]
_NANOSECONDS = 1_000_000_000


def peer_for(netmap: Netmap, ip: IPAddress, *, subnets: bool, exit_node: str = "") -> Node | None:
    """The peer that packets to an address go to: its owner, or the one with the most specific route to it of those
    that are used (``subnets``: subnet routes are; ``exit_node``: whose default routes are, by its stable id)."""
    owner = netmap.peer_by_ip(ip)
    if owner is not None:
        return owner
    best: tuple[int, Node] | None = None
    for node in netmap.peers.values():
        if node.allowed_ips is node.addresses:
            continue
        chosen = bool(exit_node) and node.stable_id == exit_node
        for prefix in accepted_prefixes(node.addresses, node.allowed_ips, subnets=subnets, exit_node=chosen):
            if prefix.version == ip.version and ip in prefix and (best is None or prefix.prefixlen > best[0]):
                best = (prefix.prefixlen, node)
    return best[1] if best else None


async def ping_json(
    netmap: Netmap, prefs: Prefs, engine: Engine, magicsock: MagicSock, ip: IPAddress, kind: str, size: int
) -> JSON:
    """One ping. ``Err`` says why it cannot succeed; one that nobody answers never returns."""
    result: JSON = {
        "IP": str(ip), "NodeIP": "", "NodeName": "", "Err": "", "LatencySeconds": 0, "Endpoint": "",
        "PeerRelay": "", "DERPRegionID": 0, "DERPRegionCode": "",
    }  # fmt: skip
    if kind == "peerapi":
        return result | await _peer_api_ping(netmap, ip)
    if ip in netmap.self_node.ips:
        return result | {"Err": f"{ip} is local Tailscale IP", "IsLocalIP": True}
    node = peer_for(netmap, ip, subnets=prefs.route_all, exit_node=prefs.exit_node_id)
    if node is None:
        return result | {"Err": "no matching peer"}
    result |= {"NodeIP": str(node.ips[0]) if node.ips else "", "NodeName": node.first_label or node.name}
    if node.expired:
        return result | {"Err": "peer's node key has expired"}
    if magicsock.status(node.key) is None:
        return result | {"Err": "unknown peer: it has not said yet how it can be reached"}
    if kind == "disco" and node.is_wireguard_only:
        return result | await _wireguard_ping(node, engine, magicsock, ip, size)
    if kind == "disco":
        outcome = await magicsock.ping(node.key, size)
        if outcome is None:
            return await _never()
        result["LatencySeconds"] = outcome.latency_s
        if outcome.relay:
            result |= {"DERPRegionID": outcome.relay, "DERPRegionCode": magicsock.relay_code(outcome.relay)}
        else:
            result["Endpoint"] = str(outcome.address)
        return result
    send = engine.ping_tsmp if kind == "TSMP" else engine.ping_icmp
    pong = await send(node.key, ip)
    if pong is None:
        return await _never()
    result["LatencySeconds"] = pong.latency_s
    if pong.peerapi_port:
        result["PeerAPIPort"] = pong.peerapi_port
    return result


async def _wireguard_ping(node: Node, engine: Engine, magicsock: MagicSock, ip: IPAddress, size: int) -> JSON:
    """A peer that speaks WireGuard alone is asked by an ICMP echo in the tunnel; the path is the one that it took."""
    if size:
        return {"Err": "a peer that speaks nothing but WireGuard cannot be pinged with a size"}
    own = [address for address in node.ips if address.version == ip.version]
    pong = await engine.ping_icmp(node.key, ip if ip in own or not own else own[0])
    if pong is None:
        return await _never()
    path = magicsock.status(node.key)
    address = path.address if path is not None else None
    return {"LatencySeconds": pong.latency_s, "Endpoint": str(address) if address is not None else ""}


async def _peer_api_ping(netmap: Netmap, ip: IPAddress) -> JSON:
    started = time.monotonic()
    told: JSON = {"NodeIP": str(ip)}
    try:
        node, url = peer_api_of(netmap, ip)
        told |= {"NodeName": node.name}
        await hit_peer_api(url)
    except MeshdError as error:
        return told | {"Err": error.message}
    return told | {"PeerAPIURL": url, "LatencySeconds": time.monotonic() - started}


async def _never() -> JSON:
    """Nobody answered: the client decides how long it waits, and cancels us."""
    await asyncio.get_running_loop().create_future()
    raise MeshdError("unreachable")


def netcheck_json(report: Report, wall: float) -> JSON:
    """The report in the form of the reference's ``netcheck.Report``."""
    return {
        "Now": format_time(wall),
        "UDP": report.udp,
        "IPv6": report.ipv6,
        "IPv4": report.ipv4,
        "IPv6CanSend": report.ipv6_can_send,
        "IPv4CanSend": report.ipv4_can_send,
        "OSHasIPv6": report.os_has_ipv6,
        "ICMPv4": report.icmpv4,
        "MappingVariesByDestIP": report.mapping_varies,
        "UPnP": report.upnp,
        "PMP": report.pmp,
        "PCP": report.pcp,
        "PreferredDERP": report.preferred_derp,
        "RegionLatency": _nanoseconds(report.region_latency),
        "RegionV4Latency": _nanoseconds(report.region_v4_latency),
        "RegionV6Latency": _nanoseconds(report.region_v6_latency),
        "GlobalV4Counters": _counters(report.global_v4_counters),
        "GlobalV6Counters": _counters(report.global_v6_counters),
        "GlobalV4": str(report.global_v4) if report.global_v4 else "",
        "GlobalV6": str(report.global_v6) if report.global_v6 else "",
        "CaptivePortal": report.captive_portal,
    }


def _nanoseconds(latencies: dict[int, float]) -> JSON:
    return {str(region): round(seconds * _NANOSECONDS) for region, seconds in sorted(latencies.items())}


def _counters(seen: dict[AddrPort, int]) -> JSON:
    return {str(address): count for address, count in seen.items()}
