"""Choosing the home region."""

from __future__ import annotations

import pytest

from meshd.core.homerelay import HomeRelay
from meshd.core.netreport import Report
from meshd.core.relayadapter import net_info, relay_map
from meshd.core.relaymap import RelayMap, RelayNode, RelayRegion
from meshd.wire.control import DERPHomeParams, DERPMap, DERPNode, DERPRegion, decode


def relays(*numbers):
    return RelayMap({n: RelayRegion(n, str(n), "", (RelayNode(str(n), n, f"r{n}.test"),)) for n in numbers})


def test_home_single_region_is_chosen_at_once():
    home = HomeRelay(0)
    assert home.map_changed(relays(900))
    assert home.region == 900


def test_home_several_regions_wait_for_the_first_answer():
    home = HomeRelay(0)
    assert not home.map_changed(relays(1, 2))
    assert home.answered(2)
    assert not home.answered(1)
    assert home.region == 2


def test_home_follows_the_check_only_while_control_is_connected():
    home = HomeRelay(0)
    home.map_changed(relays(1, 2))
    home.answered(1)
    assert not home.checked(2, control_connected=False)
    assert home.checked(2, control_connected=True)
    assert home.region == 2


def test_home_without_measurement_stays_or_is_picked_by_seed():
    home = HomeRelay(4)
    home.map_changed(relays(1, 2, 3))
    assert home.checked(0, control_connected=False)
    assert home.region == 2
    assert not home.checked(0, control_connected=True)


def test_home_gone_from_the_map_is_given_up():
    home = HomeRelay(0)
    home.map_changed(relays(1))
    assert home.map_changed(relays(2, 3))
    assert home.region == 0


def test_relay_map_from_wire_fills_ports_and_skips_the_unusable():
    nodes = (
        DERPNode(name="1a", region_id=1, host_name="a.test"),
        DERPNode(name="1b", region_id=1, ipv4="192.0.2.1", derp_port=8443, stun_port=-1),
        DERPNode(name="1c", region_id=1),
    )
    wire = DERPMap(
        regions={1: DERPRegion(region_id=1, region_code="one", nodes=nodes), -3: DERPRegion(region_id=-3)},
        home_params=DERPHomeParams(region_score={1: 0.5, 2: -1.0}),
    )
    found = relay_map(wire)
    assert list(found.regions) == [1]
    a, b = found.regions[1].nodes
    assert (a.derp_port, a.stun_port, b.derp_port, b.stun_port, b.host) == (443, 3478, 8443, -1, "192.0.2.1")
    assert found.home_score == {1: 0.5}
    assert found.code(1) == "one"
    assert found.code(7) == "7"


def test_relay_map_absent_is_empty():
    assert relay_map(None) == RelayMap()
    assert relay_map(DERPMap()) == RelayMap()


def test_net_info_names_latencies_by_family():
    report = Report(udp=True, region_v4_latency={1: 0.5}, region_v6_latency={1: 0.25}, mapping_varies=False)
    info = net_info(report, home=1)
    assert info.derp_latency == {"1-v4": 0.5, "1-v6": 0.25}
    assert info.preferred_derp == 1
    assert info.working_udp is True
    assert info.mapping_varies_by_dest_ip is False


@pytest.mark.parametrize(
    ("host", "usable"),
    [
        ("derp1.example.com", True),
        ("derp1.example.com.", True),
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("x_1", True),
        ("", False),
        ("two..dots", False),
        ("a" * 64 + ".example", False),
        ("new\r\nline", False),
        ("space here", False),
        ("b\u00fccher.example", False),
        (".", False),
    ],
)
def test_relay_map_host_that_no_resolver_takes_is_left_out(host, usable):
    """Asking for it raises other errors than those of a network."""
    wire = DERPMap(regions={1: DERPRegion(region_id=1, nodes=(DERPNode(name="1", host_name=host),))})
    assert bool(relay_map(wire).regions[1].nodes) is usable


@pytest.mark.parametrize("number", [-1, 0, 65536, 1 << 40])
def test_relay_map_region_that_is_no_port_is_left_out(number):
    wire = DERPMap(regions={number: DERPRegion(region_id=number), 65535: DERPRegion(region_id=65535)})
    assert set(relay_map(wire).regions) == {65535}


@pytest.mark.parametrize("number", [-2, 65536, 1 << 40, -(1 << 63)])
def test_relay_map_port_that_is_none_costs_what_is_asked_there_and_no_more(number):
    text = (
        f'{{"Regions":{{"1":{{"RegionID":1,"Nodes":[{{"HostName":"a.test","DERPPort":{number}}},'
        f'{{"HostName":"b.test","STUNPort":{number}}}]}}}}}}'
    )
    region = relay_map(decode(DERPMap, text.encode())).regions[1]
    assert [node.host for node in region.derp_nodes] == ["b.test"]
    assert [node.stun_port for node in region.nodes] == [3478, -1]
