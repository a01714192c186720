"""Choosing an exit node: switching the chosen one off and on again, and suggesting one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from meshd.base.errors import MeshdError
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import UNRESOLVED_EXIT_NODE, Prefs
from meshd.wire.control import DERPRegion, Location

AUTO = "auto:"
"""Before an expression that stands for an exit node."""
SUGGESTED = "suggest-exit-node"
"""Capability of a peer that may be suggested."""
STEERING = "traffic-steering"
"""Capability of ours: the network ranks exit nodes, by the priorities of their places."""
OWN_JUDGEMENT = "client-side-reachability"
"""Capability of ours: whether the server sees a peer says nothing about whether we reach it."""
BY_PROBES = "client-side-reachability-routecheck"
"""With `OWN_JUDGEMENT`: we are to probe. Who does not goes by what the server sees."""
ALLOWANCE_M = 100_000.0
"""Distance that makes no difference: about a millisecond of light in fibre, and places are rough anyway."""
EARTH_RADIUS_M = 6_371_000.0
_MASK = (1 << 64) - 1

Choose = Callable[[Sequence[Node]], Node]


def toggle(prefs: Prefs, enabled: bool) -> Prefs:
    """Switch the exit node off, or the one that was used last on again (PP-07). MeshdError when there was none."""
    if enabled == bool(prefs.exit_node_id):
        return prefs
    if not enabled:
        prior = f"{AUTO}{prefs.auto_exit_node}" if prefs.auto_exit_node else prefs.exit_node_id
        return msgspec.structs.replace(prefs, exit_node_id="", auto_exit_node="", internal_exit_node_prior=prior)
    prior = prefs.internal_exit_node_prior
    if not prior:
        never = "no exit node IP to enable & prior exit node IP was never resolved an a node"
        raise MeshdError("no prior exit node to enable" if prefs.exit_node_ip else never, code="internal")
    if prior.startswith(AUTO):
        return msgspec.structs.replace(prefs, exit_node_id=UNRESOLVED_EXIT_NODE, auto_exit_node=prior[len(AUTO) :])
    return msgspec.structs.replace(prefs, exit_node_id=prior, auto_exit_node="")


def resolve_auto(prefs: Prefs, suggested: str, allowed: Sequence[str] | None) -> Prefs:
    """The preferences of a node that chooses its exit node itself (PP-17): ``suggested`` (a stable id) is taken, or
    else the present one kept if it is ``allowed``, or else an id that nobody has, so that nothing leaks."""
    if not prefs.auto_exit_node:
        return prefs
    keeps = prefs.exit_node_id and (allowed is None or prefs.exit_node_id in allowed)
    chosen = suggested or (prefs.exit_node_id if keeps else UNRESOLVED_EXIT_NODE)
    return msgspec.structs.replace(prefs, exit_node_id=chosen, exit_node_ip="")


def suggest(
    netmap: Netmap | None,
    home: int,
    latency: Mapping[int, float],
    previous: str,
    choose: Choose,
    allowed: Sequence[str] | None = None,
) -> Node | None:
    """The exit node that is best reached from here, None when the network suggests none.

    ``home`` is our relay region, ``latency`` the seconds to each region. Among equals ``previous`` (a stable id)
    stays, otherwise ``choose`` picks; regions are equal when the latency of none is known. ``allowed`` lists stable
    ids; None allows all. Peers with a relay region come before those with a place only.
    In a network that steers traffic its ranking decides, and nothing else.
    MeshdError while our own region is not known and needed.
    """
    regions = netmap.derp_map.regions if netmap is not None and netmap.derp_map is not None else None
    steered = netmap is not None and netmap.self_node.has_cap(STEERING)
    if netmap is None or not (steered or (home and regions)):
        raise MeshdError("no preferred DERP, try again later", code="internal")
    own = netmap.self_node
    unseen = own.has_cap(OWN_JUDGEMENT) and not own.has_cap(BY_PROBES)
    candidates = [node for node in netmap.sorted_peers() if _may_be_suggested(node, unseen=unseen)]
    if allowed is not None:
        candidates = [node for node in candidates if node.stable_id in allowed]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    if steered or not regions:
        return max(candidates, key=lambda node: (_priority(node), _share(own.id, node.id), node.id))
    by_region: dict[int, list[Node]] = {}
    for node in candidates:
        if node.home_derp:
            by_region.setdefault(node.home_derp, []).append(node)
    if by_region:
        return _keep(_in_nearest_region(by_region, latency, previous, choose), previous, choose)
    region = regions.get(home)
    if region is None:
        raise MeshdError("no preferred DERP, try again later", code="internal")
    return _keep(_nearest(candidates, region) or candidates, previous, choose)


def _may_be_suggested(node: Node, *, unseen: bool) -> bool:
    """``unseen``: also one that the server does not see. One whose key expired carries nothing, seen or not."""
    return node.has_cap(SUGGESTED) and node.offers_exit and not node.expired and (unseen or node.online is not False)


def _priority(node: Node) -> int:
    place = location_of(node)
    return place.priority if place is not None else 0


def _share(own: int, other: int) -> int:
    """How well two nodes fit: any number, the same every time, and another one for each pair, so that the nodes of a
    network spread over exit nodes of one rank, and stay where they are while others come and go."""
    number = 0xCBF29CE484222325
    for byte in own.to_bytes(8) + other.to_bytes(8):  # FNV-1a, 64 bits
        number = (number ^ byte) * 0x100000001B3 & _MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # so that similar ids fall far apart
        number = (number ^ number >> shift) * factor & _MASK
    return number ^ number >> 31


def location_of(node: Node) -> Location | None:
    """Where a node says it is."""
    return node.hostinfo.location if node.hostinfo is not None else None


def _keep(equals: Sequence[Node], previous: str, choose: Choose) -> Node:
    return next((node for node in equals if node.stable_id == previous), None) or choose(equals)


def _in_nearest_region(
    by_region: Mapping[int, Sequence[Node]], latency: Mapping[int, float], previous: str, choose: Choose
) -> Sequence[Node]:
    known = [region for region in by_region if latency.get(region)]
    if known:
        return by_region[min(known, key=lambda region: (latency[region], region))]
    for nodes in by_region.values():
        if any(node.stable_id == previous for node in nodes):
            return nodes
    return by_region[choose([nodes[0] for nodes in by_region.values()]).home_derp]


def _nearest(candidates: Sequence[Node], region: DERPRegion) -> list[Node]:
    """The candidates within the allowance of the nearest one, of these the ones of highest priority."""
    placed = [(node, place) for node in candidates if (place := location_of(node)) is not None]
    if not placed:
        return []
    far = {node.id: distance_m(region.latitude, region.longitude, p.latitude, p.longitude) for node, p in placed}
    limit = min(far.values()) + ALLOWANCE_M
    near = [(node, place.priority) for node, place in placed if far[node.id] <= limit]
    best = max(priority for _, priority in near)
    return [node for node, priority in near if priority == best]


def distance_m(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Metres over a spherical earth between two places in degrees."""
    a, b = math.radians(latitude), math.radians(other_latitude)
    across = math.radians(other_longitude - longitude)
    half = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(across / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(min(1.0, math.sqrt(half)))
