"""Whether a connection for a local program is the daemon's to make, or the program's own."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from msgspec.structs import replace

from meshd.base.errors import MeshdError
from meshd.node.service import NodeService
from tests.unit.node.test_status import node
from tests.unit.node.test_whois import asked, network


def target(name: str, *, tun: bool = True, **prefs: Any) -> tuple[str, bool]:
    netmap = network()
    peer = netmap.peers[2]
    netmap.peers[2] = node(2, key=peer.key, allowed_ips=(*peer.addresses, ip_network("10.1.0.0/16")))
    netmap.by_name["n2.example"] = (2,)

    def question(service: NodeService) -> tuple[str, bool]:
        profiles = service._backend.profiles
        profiles.set_prefs(replace(profiles.prefs, **{"want_running": True} | prefs))
        service._tun = tun
        return service.dial_target(name)

    found: tuple[str, bool] = asked(question, netmap)
    return found


@pytest.mark.parametrize("name", ["100.64.0.2", "fd7a:115c:a1e0::2", "n2.example"])
def test_dial_target_peer_is_reached_by_the_daemon(name: str) -> None:
    assert target(name) == (name.replace("n2.example", "100.64.0.2"), True)


@pytest.mark.parametrize("name", ["100.64.0.1", "fd7a:115c:a1e0::1", "n1.example"])
def test_dial_target_own_address_is_left_to_the_program(name: str) -> None:
    """A service of this host sees the user that connects, and its packet filter does."""
    assert target(name) == (name.replace("n1.example", "100.64.0.1"), False)


@pytest.mark.parametrize("accepts", [True, False])
def test_dial_target_subnet_is_the_meshs_where_routes_are_accepted(accepts: bool) -> None:
    """Elsewhere 10.1.2.3 is in a network of the host's own, where root may do more than the user."""
    assert target("10.1.2.3", route_all=accepts) == ("10.1.2.3", accepts)
    assert target("192.0.2.1", route_all=accepts) == ("192.0.2.1", False)


def test_dial_target_of_a_node_that_is_down_is_left_to_the_program() -> None:
    assert target("100.64.0.2", want_running=False) == ("100.64.0.2", False)


@pytest.mark.parametrize("name", ["100.64.0.1", "100.64.0.2"])
def test_dial_target_without_a_tunnel_is_refused(name: str) -> None:
    """What is meant for the mesh is not for the host's own network to see."""
    with pytest.raises(MeshdError, match="no tunnel interface"):
        target(name, tun=False)
    assert target("192.0.2.1", tun=False) == ("192.0.2.1", False)
