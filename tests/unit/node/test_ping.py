"""Pings that a local program asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.base.addr import AddrPort, IPAddress
from meshd.core.netmap import Netmap
from meshd.core.node import Node
from meshd.core.prefs import Prefs
from meshd.node.probes import ping_json
from meshd.wire.control import Hostinfo, Service
from tests.unit.node.test_status import node

ACCEPTS_ROUTES = Prefs(route_all=True)
LOOPBACK = ip_address("127.0.0.1")


def network(*peers: Node) -> Netmap:
    netmap = Netmap(node(1))
    for peer in peers:
        netmap.peers[peer.id] = peer
        netmap.by_ip |= {ip.packed: peer.id for ip in peer.ips}
    return netmap


def ping(netmap: Netmap, ip: IPAddress | str, kind: str, prefs: Prefs = ACCEPTS_ROUTES, **paths: Any) -> dict[str, Any]:
    async def pong(key: object, address: IPAddress) -> Any:
        return SimpleNamespace(latency_s=0.5, peerapi_port=80 if kind == "TSMP" else 0)

    engine: Any = SimpleNamespace(ping_tsmp=pong, ping_icmp=pong)
    magicsock: Any = SimpleNamespace(status=lambda key: object(), relay_code=lambda region: "abc", **paths)
    return asyncio.run(ping_json(netmap, prefs, engine, magicsock, ip_address(str(ip)), kind, 0))


def at_loopback(port: int, **changes: Any) -> Node:
    services = (Service(proto="peerapi4", port=port),)
    fields: dict[str, Any] = {"addresses": (ip_network("127.0.0.1/32"),), "hostinfo": Hostinfo(services=services)}
    return node(2, **fields | changes)


@contextmanager
def server(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made.server_port
        finally:
            made.shutdown()
            thread.join()


def test_ping_peerapi_asks_the_peers_own_server() -> None:
    """NM-08: HEAD at the URL that the peer announced."""
    with server(200) as port:
        told = ping(network(at_loopback(port)), LOOPBACK, "peerapi")
    assert told["PeerAPIURL"] == f"http://127.0.0.1:{port}"
    assert (told["Err"], told["NodeIP"], told["NodeName"]) == ("", "127.0.0.1", "n2.example.")
    assert told["LatencySeconds"] > 0


def test_ping_of_a_wireguard_only_peer_is_an_echo_in_the_tunnel() -> None:
    """NM-08, EX-06: it answers nothing that would find a path."""
    peer = node(2, is_wireguard_only=True, allowed_ips=(ip_network("100.64.0.2/32"), ip_network("10.1.0.0/16")))
    path = SimpleNamespace(address=AddrPort(LOOPBACK, 51820))
    asked = []

    async def pong(key: object, address: IPAddress) -> Any:
        asked.append(str(address))
        return SimpleNamespace(latency_s=0.5, peerapi_port=0)

    engine: Any = SimpleNamespace(ping_icmp=pong)
    magicsock: Any = SimpleNamespace(status=lambda key: path)
    netmap = network(peer)
    for ip in ("100.64.0.2", "10.1.2.3"):
        told = asyncio.run(ping_json(netmap, ACCEPTS_ROUTES, engine, magicsock, ip_address(ip), "disco", 0))
        assert (told["Err"], told["LatencySeconds"], told["Endpoint"]) == ("", 0.5, "127.0.0.1:51820")
    assert asked == ["100.64.0.2"] * 2
    told = asyncio.run(ping_json(netmap, ACCEPTS_ROUTES, engine, magicsock, ip_address("10.1.2.3"), "disco", 1000))
    assert "size" in told["Err"]


def test_ping_goes_to_whom_packets_go() -> None:
    """NM-08: to the longest of the routes that are used."""

    def router(number: int, *routes: str) -> Node:
        own = (ip_network(f"100.64.0.{number}/32"),)
        return node(number, addresses=own, allowed_ips=(*own, *map(ip_network, routes)))

    wide, narrow = router(2, "10.0.0.0/16"), router(3, "10.0.0.0/24")
    netmap = network(wide, narrow, router(4, "0.0.0.0/0", "::/0"), router(5, "0.0.0.0/0", "::/0"))

    def reached(ip: str, **changes: Any) -> str:
        told = ping(netmap, ip, "TSMP", Prefs(**changes))
        return told["NodeIP"] or told["Err"]

    assert reached("10.0.0.5", route_all=True) == "100.64.0.3"
    assert reached("10.0.1.5", route_all=True) == "100.64.0.2"
    for changes in ({}, {"route_all": True}):
        assert reached("8.8.8.8", **changes) == "no matching peer"
    assert reached("10.0.0.5") == "no matching peer"
    for number in (4, 5):
        assert reached("8.8.8.8", exit_node_id=f"n{number}") == f"100.64.0.{number}"
        assert reached("10.0.0.5", exit_node_id=f"n{number}") == f"100.64.0.{number}"
        assert reached("10.0.0.5", exit_node_id=f"n{number}", route_all=True) == "100.64.0.3"


def test_ping_that_cannot_succeed_says_why() -> None:
    """NM-08: in the field Err."""
    with server(404) as port:
        assert ping(network(at_loopback(port)), LOOPBACK, "peerapi")["Err"] == "HTTP status 404"
    assert "cannot connect to 127.0.0.1" in ping(network(at_loopback(port)), LOOPBACK, "peerapi")["Err"]
    expired = network(at_loopback(1, expired=True))
    for kind in ("peerapi", "disco", "TSMP", "ICMP"):
        assert ping(expired, LOOPBACK, kind)["Err"] == "peer's node key has expired"
    without = network(node(2))
    assert ping(without, "100.64.0.2", "peerapi")["Err"] == "no PeerAPI base found for peer 2 (100.64.0.2)"
    assert ping(without, "100.64.0.9", "peerapi")["Err"] == "no peer found with Tailscale IP 100.64.0.9"
    assert ping(without, "100.64.0.9", "disco")["Err"] == "no matching peer"
    own = ping(without, "100.64.0.1", "disco")
    assert (own["IsLocalIP"], own["Err"]) == (True, "100.64.0.1 is local Tailscale IP")


@pytest.mark.parametrize(
    ("relay", "shown"), [(0, {"Endpoint": "192.0.2.1:5"}), (7, {"DERPRegionID": 7, "DERPRegionCode": "abc"})]
)
def test_ping_disco_tells_the_way_it_went(relay: int, shown: dict[str, Any]) -> None:
    """NM-08."""

    async def pong(key: object, size: int) -> Any:
        return SimpleNamespace(latency_s=0.25, relay=relay, address=AddrPort.parse("192.0.2.1:5"))

    told = ping(network(node(2)), "100.64.0.2", "disco", ping=pong)
    assert {name: told[name] for name in shown} == shown
    assert (told["LatencySeconds"], told["NodeName"], told["NodeIP"]) == (0.25, "n2", "100.64.0.2")


def test_ping_by_tsmp_tells_the_peers_port() -> None:
    """NM-08."""
    told = ping(network(node(2)), "100.64.0.2", "TSMP")
    assert (told["LatencySeconds"], told["PeerAPIPort"]) == (0.5, 80)
    assert "PeerAPIPort" not in ping(network(node(2)), "100.64.0.2", "ICMP")
