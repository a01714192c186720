"""From the relay map and network report on the wire to the ones decisions are made with, and back."""

from __future__ import annotations

import re

from meshd.core.netreport import Report
from meshd.core.relaymap import DEFAULT_DERP_PORT, DEFAULT_STUN_PORT, RelayMap, RelayNode, RelayRegion
from meshd.wire.control import DERPMap, DERPNode, DERPRegion, NetInfo

MAX_NODES = 64  # of one region
MAX_PORT = 65535
MAX_REGION = 65535  # a region stands where messages have a port
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.){0,126}[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f:.]{2,45}", re.ASCII)


def relay_map(wire: DERPMap | None) -> RelayMap:
    """The usable part of a DERP map: regions with a number, and servers with a host name or address that can be one."""
    if wire is None:
        return RelayMap()
    regions = {
        number: _region(number, region)
        for number, region in sorted((wire.regions or {}).items())
        if 0 < number <= MAX_REGION and region is not None
    }
    scores = wire.home_params.region_score if wire.home_params is not None else None
    return RelayMap(regions, {r: s for r, s in (scores or {}).items() if s > 0})


def _region(number: int, wire: DERPRegion) -> RelayRegion:
    nodes = tuple(
        _node(number, node)
        for node in wire.nodes[:MAX_NODES]
        if node is not None and _HOST.fullmatch(node.host_name or node.ipv4)
    )
    return RelayRegion(
        id=number,
        code=wire.region_code,
        name=wire.region_name,
        nodes=nodes,
        may_be_home=not wire.no_measure_no_home,
    )


def _node(region: int, wire: DERPNode) -> RelayNode:
    return RelayNode(
        name=wire.name,
        region=region,
        host=wire.host_name or wire.ipv4,
        ipv4=wire.ipv4,
        ipv6=wire.ipv6,
        derp_port=wire.derp_port or DEFAULT_DERP_PORT,
        stun_port=(wire.stun_port or DEFAULT_STUN_PORT) if 0 <= wire.stun_port <= MAX_PORT else -1,
        stun_only=wire.stun_only or not 0 <= wire.derp_port <= MAX_PORT,
        cert_name=wire.cert_name,
        insecure_for_tests=wire.insecure_for_tests,
        stun_test_ip=wire.stun_test_ip,
    )


def net_info(report: Report, *, home: int, firewall_mode: str = "", have_port_map: bool = False) -> NetInfo:
    """What control is told of a report; ``home`` is the region in use, which a report may not name."""
    latency = {f"{region}-v4": seconds for region, seconds in report.region_v4_latency.items()}
    latency |= {f"{region}-v6": seconds for region, seconds in report.region_v6_latency.items()}
    return NetInfo(
        mapping_varies_by_dest_ip=report.mapping_varies,
        working_ipv6=report.ipv6,
        os_has_ipv6=report.os_has_ipv6,
        working_udp=report.udp,
        working_icmpv4=report.icmpv4,
        have_port_map=have_port_map,
        upnp=report.upnp,
        pmp=report.pmp,
        pcp=report.pcp,
        preferred_derp=home,
        derp_latency=latency,
        firewall_mode=firewall_mode,
    )
