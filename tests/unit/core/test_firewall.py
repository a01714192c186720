"""What preferences and capabilities ask of the host's packet filter."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from meshd.core.firewall import NO_DIVERT, OFF, ON, FirewallConfig, firewall_config
from meshd.core.prefs import Prefs, from_json
from tests.unit.node.test_reconciler import node

OWN = ip_network("100.64.0.1/32")


def config(prefs: dict[str, Any] | None = None, *caps: str) -> FirewallConfig:
    return firewall_config(node(1, addresses=(OWN,), cap_map=dict.fromkeys(caps, ())), from_json(prefs or {}))


def test_firewall_config_of_default_preferences() -> None:
    """RT-05."""
    assert config() == FirewallConfig(mode=ON, own=(OWN.network_address,), snat=True)


@pytest.mark.parametrize(("mode", "expected"), [(0, OFF), (1, NO_DIVERT), (2, ON)])
def test_firewall_config_follows_the_mode(mode: int, expected: int) -> None:
    """RT-05: NetfilterMode."""
    assert config({"NetfilterMode": mode}).mode == expected
    if expected == OFF:
        assert config({"NetfilterMode": mode, "AdvertiseRoutes": ["10.0.0.0/8"]}) == FirewallConfig()


def test_firewall_config_of_a_router() -> None:
    """RT-05: AdvertiseRoutes, NoSNAT."""
    got = config({"AdvertiseRoutes": ["10.0.0.0/8"]})
    assert (got.forwards, got.forwards_v6, got.snat) == (True, False, True)
    got = config({"AdvertiseRoutes": ["10.0.0.0/8", "2001:db8::/32"], "NoSNAT": True})
    assert (got.forwards, got.forwards_v6, got.snat) == (True, True, False)
    got = config({"AdvertiseRoutes": ["fd7a:115c:a1e0:b1a:0:7:a00:0/104"]})
    assert (got.forwards, got.forwards_v6) == (True, False), "it stands for an IPv4 network"


@pytest.mark.parametrize(("said", "stateful"), [(None, False), (True, False), (False, True)])
def test_firewall_config_is_stateful_only_when_asked_for(said: bool | None, stateful: bool) -> None:
    """RT-05: NoStatefulFiltering."""
    assert config({"NoStatefulFiltering": said}).stateful is stateful


@pytest.mark.parametrize(
    ("kind", "caps", "expected"),
    [
        ("", [], ""),
        ("", ["linux-netfilter?v=nftables"], "nftables"),
        ("", ["linux-netfilter?v=nftables", "linux-netfilter?v=iptables"], "iptables"),
        ("nftables", ["linux-netfilter?v=iptables"], "nftables"),
    ],
)
def test_firewall_config_kind_is_the_preference_before_controls(kind: str, caps: list[str], expected: str) -> None:
    """RT-05, RT-13: NetfilterKind."""
    assert config({"NetfilterKind": kind}, *caps).kind == expected


def test_firewall_config_drops_spoofed_sources_unless_control_says_otherwise() -> None:
    """RT-16."""
    assert config().drop_spoofed
    assert not config({}, "disable-linux-cgnat-drop-rule").drop_spoofed


def test_firewall_config_of_a_user_of_an_exit_node() -> None:
    """RT-16."""
    assert config({"ExitNodeIP": "100.64.0.2"}).exit_node
    assert config({"ExitNodeID": "n2"}).exit_node


@pytest.mark.parametrize(
    ("routes", "offers"),
    [([], False), (["0.0.0.0/0"], False), (["::/0", "10.0.0.0/8"], False), (["10.0.0.0/8", "::/0", "0.0.0.0/0"], True)],
)
def test_prefs_offer_an_exit_node_with_both_default_routes(routes: list[str], offers: bool) -> None:
    """EX-03."""
    assert Prefs(advertise_routes=tuple(routes)).offers_exit_node is offers
