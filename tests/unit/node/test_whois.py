"""Who is behind an address or a key."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from meshd.base.keys import NodePrivate
from meshd.core.netmap import Netmap
from meshd.node.service import NodeService
from meshd.wire.control import UserProfile
from tests.unit.node.backendworld import Fixture
from tests.unit.node.test_status import node

OTHER = NodePrivate.generate().public()


def asked(question: Any, netmap: Netmap | None) -> Any:
    async def body() -> Any:
        made = Fixture()
        made.backend.netmap = netmap
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
