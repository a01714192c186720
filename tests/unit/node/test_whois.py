"""Who is behind an address or a key."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from msgspec import structs

from meshd.base.keys import NodePrivate
from meshd.core.netmap import Netmap
from meshd.core.prefs import Prefs
from meshd.node.service import NodeService
from meshd.wire.control import FilterRule, UserProfile, decode
from tests.unit.node.backendworld import Fixture
from tests.unit.node.test_status import node

OTHER = NodePrivate.generate().public()


def asked(question: Any, netmap: Netmap | None, prefs: Prefs | None = None) -> Any:
    async def body() -> Any:
        made = Fixture()
        made.backend.netmap = netmap
        made.backend.profiles.prefs = prefs or made.backend.prefs
        parts: Any = SimpleNamespace()
        service = NodeService(
            made.backend,
            parts,
            parts,
            made.clock,
            tun=True,
            counters=dict,
            host=parts,
            resolver=parts,
            stop=lambda: None,
        )
        try:
            return question(service)
        finally:
            await made.backend.close()

    return asyncio.run(body())


def network() -> Netmap:
    netmap = Netmap(node(1))
    peer = node(2, user=7)
    netmap.peers[2], netmap.by_key[peer.key] = peer, 2
    netmap.by_ip |= {ip.packed: 2 for ip in peer.ips} | {ip.packed: 0 for ip in netmap.self_node.ips}
    netmap.user_profiles[7] = UserProfile(id=7, login_name="u@x")
    return netmap


def test_whois_by_key_finds_us_and_peers() -> None:
    """NM-06: ourselves also when nobody said who owns us; a key that nobody has, and no map, give nothing."""
    netmap = network()
    peer = asked(lambda s: s.whois_node(netmap.peers[2].key), netmap)
    assert (peer["Node"]["ID"], peer["UserProfile"]["LoginName"]) == (2, "u@x")
    own = asked(lambda s: s.whois_node(netmap.node_key), netmap)
    assert (own["Node"]["ID"], own["UserProfile"]) == (1, {"ID": 1, "LoginName": "", "DisplayName": ""})
    assert asked(lambda s: s.whois_node(OTHER), netmap) is None
    assert asked(lambda s: s.whois_node(OTHER), None) is None


def test_whois_by_address_goes_by_owners_not_by_routes() -> None:
    """NM-05."""
    netmap = network()
    for text, found in (("100.64.0.2", 2), ("fd7a:115c:a1e0::2", 2), ("100.64.0.1", 1)):
        assert asked(lambda s, t=text: s.whois(ip_address(t), 0, ""), netmap)["Node"]["ID"] == found
    assert asked(lambda s: s.whois(ip_address("10.0.0.1"), 80, "tcp"), netmap) is None
    assert asked(lambda s: s.whois(ip_address("100.64.0.2"), 80, "tcp"), None) is None


def granting(netmap: Netmap, *grants: tuple[str, str, str]) -> Netmap:
    """With rules that grant a source, at a destination, a capability."""
    rules = [{"SrcIPs": [source], "CapGrant": [{"Dsts": [at], "Caps": [name]}]} for source, at, name in grants]
    netmap.filter_rules = tuple(decode(FilterRule, json.dumps(rule).encode()) for rule in rules)
    return netmap


def test_whois_tells_the_same_capabilities_whatever_address_a_node_comes_by() -> None:
    """NM-07: a rule may name a node by one of its addresses only."""
    netmap = granting(network(), ("100.64.0.2", "100.64.0.1/32", "db"))
    for text in ("100.64.0.2", "fd7a:115c:a1e0::2"):
        assert asked(lambda s, t=text: s.whois(ip_address(t), 0, ""), netmap)["CapMap"] == {"db": []}
    assert asked(lambda s: s.whois_node(netmap.peers[2].key), netmap)["CapMap"] == {"db": []}


def test_whois_tells_what_a_node_may_do_at_another_address() -> None:
    """NM-07."""
    netmap = granting(network(), ("*", "100.64.0.1/32", "here"), ("*", "10.1.0.0/16", "there"))
    for question in (
        lambda s: s.whois(ip_address("100.64.0.2"), 0, "", ip_address("10.1.2.3")),
        lambda s: s.whois_node(netmap.peers[2].key, ip_address("10.1.2.3")),
    ):
        assert asked(question, netmap)["CapMap"] == {"there": []}


def test_whois_with_the_shields_up_tells_no_capabilities() -> None:
    """NM-07, PF-06."""
    netmap = granting(network(), ("*", "0.0.0.0/0", "db"))
    for shields_up, caps in ((False, {"db": []}), (True, None)):
        found = asked(lambda s: s.whois(ip_address("100.64.0.2"), 0, ""), netmap, Prefs(shields_up=shields_up))
        assert found["CapMap"] == caps


def test_whois_of_a_node_outside_of_tailnet_lock_tells_only_what_ingress_needs() -> None:
    """NM-07, PF-09: a server that cannot be trusted must not let such a node do more."""
    netmap = granting(network(), ("*", "0.0.0.0/0", "db"), ("*", "0.0.0.0/0", "https://tailscale.com/cap/ingress"))
    netmap.peers[2] = structs.replace(netmap.peers[2], unsigned_peer_api_only=True)
    found = asked(lambda s: s.whois(ip_address("100.64.0.2"), 0, ""), netmap)
    assert found["CapMap"] == {"https://tailscale.com/cap/ingress": []}
