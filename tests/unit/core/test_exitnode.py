"""Choosing an exit node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from meshd.base.errors import MeshdError
from meshd.core import exitnode
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from tests.unit.core.mapworld import joined, node

DERP = {
    "Regions": {
        "1": {"RegionID": 1, "RegionCode": "a", "Latitude": 52.5, "Longitude": 13.4, "Nodes": []},
        "2": {"RegionID": 2, "RegionCode": "b", "Nodes": []},
    }
}


def exit_peer(number: int, **fields: Any) -> dict[str, Any]:
    base = node(number, CapMap={exitnode.SUGGESTED: None}, Online=True)
    return base | {"AllowedIPs": [*base["AllowedIPs"], "0.0.0.0/0", "::/0"]} | fields


def placed(number: int, latitude: float, longitude: float, priority: int = 0) -> dict[str, Any]:
    place = {"Latitude": latitude, "Longitude": longitude, "Priority": priority}
    return exit_peer(number, Hostinfo={"Location": place})


def world(*peers: dict[str, Any]) -> Netmap:
    netmap = joined(*peers, DERPMap=DERP).netmap
    assert netmap is not None
    return netmap


def first(equals: Sequence[Node]) -> Node:
    return equals[0]


def last(equals: Sequence[Node]) -> Node:
    return equals[-1]


def test_suggest_needs_our_own_region() -> None:
    """EX-05."""
    for netmap, home in ((None, 1), (world(exit_peer(2)), 0), (world(placed(2, 0, 0), placed(3, 0, 0)), 9)):
        with pytest.raises(MeshdError, match="no preferred DERP, try again later"):
            exitnode.suggest(netmap, home, {}, "", first)


def test_suggest_only_peers_that_offer_it_are_online_and_named() -> None:
    """cap:suggest-exit-node; EX-05."""
    netmap = world(
        node(2), exit_peer(3, Online=False), exit_peer(4, CapMap={}), exit_peer(5, KeyExpiry="2020-01-01T00:00:00Z")
    )
    assert exitnode.suggest(netmap, 1, {}, "", first) is None
    chosen = exitnode.suggest(world(node(2), exit_peer(5)), 1, {}, "", first)
    assert chosen is not None
    assert chosen.id == 5


def test_suggest_takes_the_region_of_lowest_latency_and_stays_with_a_good_choice() -> None:
    """EX-05."""
    netmap = world(exit_peer(2, HomeDERP=1), exit_peer(3, HomeDERP=2), exit_peer(4, HomeDERP=2), placed(5, 52, 13))
    latency = {1: 0.05, 2: 0.01}
    chosen = exitnode.suggest(netmap, 1, latency, "", first)
    assert chosen is not None
    assert chosen.id == 3
    chosen = exitnode.suggest(netmap, 1, latency, "s4", first)
    assert chosen is not None
    assert chosen.id == 4


def test_suggest_while_no_latency_is_known_stays_or_takes_any_region() -> None:
    """EX-05: not always the region of the peer that is listed first."""
    netmap = world(exit_peer(2, HomeDERP=1), exit_peer(3, HomeDERP=2), exit_peer(4, HomeDERP=2))
    for latency in ({}, {9: 0.01}, {1: 0.0}):
        kept = exitnode.suggest(netmap, 9, latency, "s3", last)
        assert kept is not None
        assert kept.id == 3
        chosen = exitnode.suggest(netmap, 9, latency, "s9", last)
        assert chosen is not None
        assert chosen.id == 4


def test_suggest_without_regions_takes_the_near_one_of_highest_priority() -> None:
    """EX-05."""
    netmap = world(placed(2, 52.4, 13.0), placed(3, 52.5, 13.5, priority=9), placed(4, 40.7, -74.0, priority=99))
    chosen = exitnode.suggest(netmap, 1, {}, "", first)
    assert chosen is not None
    assert chosen.id == 3


def test_distance_between_two_cities() -> None:
    assert exitnode.distance_m(52.52, 13.40, 48.86, 2.35) == pytest.approx(878_000, rel=0.01)


def test_toggle_remembers_and_restores() -> None:
    """PP-07: off keeps the node in mind, on brings it back, twice changes nothing."""
    used = Prefs(exit_node_id="n1")
    off = exitnode.toggle(used, False)
    assert (off.exit_node_id, off.internal_exit_node_prior) == ("", "n1")
    assert exitnode.toggle(off, False) == off
    on = exitnode.toggle(off, True)
    assert (on.exit_node_id, on.internal_exit_node_prior) == ("n1", "n1")
    assert exitnode.toggle(on, True) is on


def test_toggle_without_a_prior_node_says_which_it_lacks() -> None:
    """PP-07."""
    with pytest.raises(MeshdError) as caught:
        exitnode.toggle(Prefs(), True)
    assert caught.value.message == "no exit node IP to enable & prior exit node IP was never resolved an a node"
    with pytest.raises(MeshdError, match="^no prior exit node to enable$"):
        exitnode.toggle(Prefs(exit_node_ip="100.64.0.9"), True)


def test_toggle_of_an_automatic_exit_node_remembers_the_expression() -> None:
    """PP-07, PP-17."""
    off = exitnode.toggle(Prefs(exit_node_id="n1", auto_exit_node="any"), False)
    assert (off.exit_node_id, off.auto_exit_node, off.internal_exit_node_prior) == ("", "", "auto:any")
    on = exitnode.toggle(off, True)
    assert (on.exit_node_id, on.auto_exit_node) == ("auto:any", "any")


def test_resolve_auto_takes_the_suggestion_else_keeps_else_leaks_nothing() -> None:
    """PP-17."""
    auto = Prefs(exit_node_id="n1", exit_node_ip="100.64.0.1", auto_exit_node="any")
    assert exitnode.resolve_auto(auto, "n2", None).exit_node_id == "n2"
    kept = exitnode.resolve_auto(auto, "", ["n1"])
    assert (kept.exit_node_id, kept.exit_node_ip) == ("n1", "")
    assert exitnode.resolve_auto(auto, "", ["n3"]).exit_node_id == "auto:any"
    assert exitnode.resolve_auto(Prefs(exit_node_id="n1"), "n2", None).exit_node_id == "n1"


def test_suggest_heeds_the_list_of_allowed_nodes() -> None:
    """EX-05: the policy's AllowedSuggestedExitNodes."""
    netmap = world(exit_peer(5), exit_peer(6))
    ids = {n.id: n.stable_id for n in netmap.sorted_peers()}
    chosen = exitnode.suggest(netmap, 1, {}, "", first, [ids[6]])
    assert chosen is not None
    assert chosen.id == 6
    assert exitnode.suggest(netmap, 1, {}, "", first, []) is None


def steered(*peers: dict[str, Any], own_id: int = 1, caps: tuple[str, ...] = (exitnode.STEERING,)) -> Netmap:
    netmap = joined(*peers).netmap
    assert netmap is not None
    netmap.self_node = msgspec.structs.replace(netmap.self_node, id=own_id, cap_map=dict.fromkeys(caps))
    return netmap


def test_suggest_in_a_network_that_steers_traffic_goes_by_its_ranking_alone() -> None:
    """cap:traffic-steering, EX-10: no relay region is needed, and neither distance nor a former choice matters."""
    netmap = steered(exit_peer(2, HomeDERP=1), placed(3, 0, 0, 5), placed(4, 52.5, 13.4, 7), exit_peer(5, Online=False))
    chosen = exitnode.suggest(netmap, 0, {}, "s3", first)
    assert chosen is not None
    assert chosen.id == 4
    assert exitnode.suggest(netmap, 0, {}, "", first, allowed=[]) is None


def test_suggest_among_nodes_of_one_rank_spreads_over_them_and_stays() -> None:
    """cap:traffic-steering: the same choice as that of other clients, which others that come and go do not change."""
    peers = [exit_peer(number) for number in range(2, 7)]
    chosen = {own: exitnode.suggest(steered(*peers, own_id=own), 0, {}, "", first) for own in range(100, 140)}
    ids = {own: node.id for own, node in chosen.items() if node is not None}
    assert set(ids.values()) == {2, 3, 4, 5, 6}
    for own, taken in ids.items():
        others = [peer for peer in peers if peer["ID"] in (taken, 2, 6)]
        again = exitnode.suggest(steered(*others, own_id=own), 0, {}, "", last)
        assert again is not None
        assert again.id == taken


def test_share_of_two_nodes_is_that_of_other_clients() -> None:
    """cap:traffic-steering: figures of tailscaled 1.103."""
    assert exitnode._share(1, 2) == 2894733656357143581
    assert exitnode._share(123456789012345, 987654321) == 4353737511800421836


def test_suggest_peers_that_the_server_does_not_see_where_it_is_not_to_judge() -> None:
    """cap:client-side-reachability."""
    peers = [exit_peer(2, Online=False)]
    judge, probe = exitnode.OWN_JUDGEMENT, exitnode.BY_PROBES
    for caps, found in (((), None), ((judge,), 2), ((judge, probe), None)):
        chosen = exitnode.suggest(steered(*peers, caps=(exitnode.STEERING, *caps)), 0, {}, "", first)
        assert (chosen.id if chosen is not None else None) == found
