"""Which prefixes are accepted, and what the host should hold."""

from __future__ import annotations

from ipaddress import ip_network as net

from meshd.core.routes import MAX_SINGLE_ROUTES, RouteTable, accepted_prefixes, router_config

OWN = (net("100.64.0.2/32"), net("fd7a:115c:a1e0::2/128"))


def test_accepted_prefixes_own_addresses_always_subnets_only_when_wanted() -> None:
    """RT-02."""
    allowed = (*OWN, net("10.0.0.0/8"), net("0.0.0.0/0"), net("::/0"))
    assert accepted_prefixes(OWN, allowed, subnets=False, exit_node=False) == OWN
    assert accepted_prefixes(OWN, allowed, subnets=True, exit_node=False) == (*OWN, net("10.0.0.0/8"))
    assert accepted_prefixes(OWN, allowed, subnets=False, exit_node=True) == (*OWN, net("0.0.0.0/0"), net("::/0"))


def test_route_table_merges_single_ula_addresses_into_one_route() -> None:
    """RT-03."""
    table = RouteTable()
    table.set_peer(b"a", OWN)
    table.set_peer(b"b", (net("100.64.0.3/32"), net("fd7a:115c:a1e0::3/128"), net("10.1.0.0/16")))
    assert table.routes() == {
        net("100.64.0.2/32"),
        net("100.64.0.3/32"),
        net("10.1.0.0/16"),
        net("fd7a:115c:a1e0::/48"),
    }
    table.set_peer(b"b", ())
    assert table.routes() == {net("100.64.0.2/32"), net("fd7a:115c:a1e0::/48")}
    table.set_peer(b"a", ())
    assert table.routes() == frozenset()


def test_route_table_prefix_of_two_peers_stays_until_both_are_gone() -> None:
    table = RouteTable()
    table.set_peer(b"a", (net("10.0.0.0/8"),))
    table.set_peer(b"b", (net("10.0.0.0/8"),))
    table.set_peer(b"a", ())
    assert net("10.0.0.0/8") in table.routes()


def test_route_table_very_many_peers_become_one_route() -> None:
    """RT-03."""
    table = RouteTable()
    hosts = net("100.64.0.0/16").hosts()
    for number in range(MAX_SINGLE_ROUTES + 1):
        table.set_peer(number.to_bytes(4, "big"), (net(next(hosts)),))
    assert table.routes() == {net("100.64.0.0/10")}


def test_route_table_of_about_the_limit_does_not_change_with_every_peer() -> None:
    """RT-03: ten thousand routes less or more each time take a second, for each peer that comes or goes."""
    table = RouteTable()
    hosts = list(net("100.64.0.0/16").hosts())
    for number in range(MAX_SINGLE_ROUTES + 1):
        table.set_peer(number, (net(hosts[number]),))
    assert table.take_touched() is None
    for number in range(MAX_SINGLE_ROUTES // 10):
        table.set_peer(number, ())
        assert table.take_touched() == set()
    assert table.routes() == {net("100.64.0.0/10")}
    table.set_peer(MAX_SINGLE_ROUTES, ())
    assert len(table.routes()) == MAX_SINGLE_ROUTES - MAX_SINGLE_ROUTES // 10
    assert table.take_touched() is None
    table.set_peer(0, (net(hosts[0]),))
    assert table.take_touched() == {net(hosts[0])}


def test_route_table_one_route_for_two_peers_when_control_prefers_it() -> None:
    """RT-04."""
    table = RouteTable()
    table.prefer_one_route(True)
    table.set_peer(1, (net("100.64.0.2/32"),))
    assert table.routes() == {net("100.64.0.2/32")}
    table.set_peer(2, (net("100.64.0.3/32"), net("10.0.0.0/8")))
    assert table.routes() == {net("100.64.0.0/10"), net("10.0.0.0/8")}
    table.take_touched()
    table.prefer_one_route(False)
    assert table.touched
    assert table.routes() == {net("100.64.0.2/32"), net("100.64.0.3/32"), net("10.0.0.0/8")}


def test_router_config_adds_the_service_address() -> None:
    """RT-07."""
    config = router_config(OWN, frozenset(), ())
    assert config.routes == {net("100.100.100.100/32"), net("fd7a:115c:a1e0::53/128")}
    assert not router_config((), frozenset(), ()).routes


def test_router_config_attached_network_wins_over_an_accepted_route() -> None:
    attached = [net("192.168.1.0/24"), net("10.0.0.5/32")]
    config = router_config(OWN, frozenset({net("192.168.0.0/16"), net("10.0.0.0/8")}), attached)
    assert config.throws == {net("192.168.1.0/24")}
    same = router_config(OWN, frozenset({net("192.168.1.0/24")}), attached)
    assert net("192.168.1.0/24") not in same.routes
    assert net("192.168.1.0/24") in same.throws


def test_router_config_exit_node_captures_both_families_and_the_lan() -> None:
    """RT-06, EX-04."""
    attached = [net("192.168.1.0/24"), net("127.0.0.0/8"), net("fe80::/64")]
    config = router_config(OWN, frozenset({net("0.0.0.0/0")}), attached, exit_node=True)
    assert {net("0.0.0.0/0"), net("::/0"), net("192.168.1.0/24")} <= config.routes
    assert config.throws == {net("127.0.0.0/8")}
    allowed = router_config(OWN, frozenset({net("0.0.0.0/0")}), attached, exit_node=True, lan_access=True)
    assert net("192.168.1.0/24") in allowed.throws


def test_router_config_exit_node_leaves_a_lan_of_the_meshs_range_to_the_host() -> None:
    """RT-06: providers have such networks. Not all of the range, or peers would be out of reach."""
    attached = [net("100.70.1.0/24"), net("100.64.0.0/10"), net("100.70.1.5/32"), net("fd7a:115c:a1e0::/64")]
    peers = frozenset({net("0.0.0.0/0"), net("100.64.0.2/32")})
    allowed = router_config(OWN, peers, attached, exit_node=True, lan_access=True)
    assert allowed.throws == {net("100.70.1.0/24")}
    assert peers < allowed.routes
    assert not router_config(OWN, peers, attached, exit_node=True).throws
    assert not router_config(OWN, peers, attached, lan_access=True).throws


def test_route_table_touches_only_what_differs() -> None:
    table = RouteTable()
    assert table.take_touched() is None  # nobody has seen it yet
    table.set_peer(b"a", OWN)
    assert table.take_touched() == {OWN[0], net("fd7a:115c:a1e0::/48")}
    table.set_peer(b"a", OWN)
    assert not table.touched
    table.set_peer(b"b", (net("100.64.0.3/32"), net("fd7a:115c:a1e0::3/128")))
    assert table.take_touched() == {net("100.64.0.3/32")}
